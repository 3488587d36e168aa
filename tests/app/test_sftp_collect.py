"""Files from a laboratory's SFTP server, over real SSH on loopback: whole ones only, stored first, receipts back."""

import asyncio
import hashlib
import json
import os
from copy import copy
from dataclasses import replace
from datetime import timedelta

import asyncssh
import pytest
from asyncssh import sftp
from sqlalchemy import text

from app.lab_reading import let_in_again
from app.sftp_collect import Collected, collect_files, whole_files
from flows.ingest_results import ingest_waiting_files
from integrations.lab.sftp import SftpServer, open_drop
from models.actions.lab_drop import STILL_SECONDS
from models.rules.errors import Code, ServiceError
from tests.support.ingesting import READ_AT, ask, case_of, ingest, lab_maps, texts_of
from tests.support.lab_files import QUOTED, control_file, fhir, hl7, lone_hl7, long_table, quoted_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore
from tests.support.sftp import refuse, sftp_server


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    made = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path_factory.mktemp("ssh") / "id_ed25519"
    path.write_bytes(made.export_private_key())
    path.chmod(0o600)
    return made, path


@pytest.fixture
def server(key, tmp_path):
    with sftp_server(tmp_path / "lab", key[0]) as running:
        yield running


@pytest.fixture
def ours(server, key):
    return SftpServer("127.0.0.1", server.port, "kitpost", key[1], server.host_key, "results")


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 2)


def visit(ready, ours, lab="NORTHLAB"):
    async def once():
        async with open_drop(ours, timeout_seconds=10) as drop:
            return await collect_files(ready, lab, drop)

    return asyncio.run(once())


def lies_at(server, folder="."):
    return sorted(each.name for each in (server.folder / folder).iterdir() if each.is_file())


def visit_with(ready, ours, wrap, lab="NORTHLAB"):
    """A visit whose putting aside goes through `wrap`."""

    async def once():
        async with open_drop(ours, timeout_seconds=10) as drop:
            drop.put_aside = wrap(drop.put_aside)
            return await collect_files(ready, lab, drop)

    return asyncio.run(once())


def test_a_file_that_takes_the_place_of_one_just_fetched_is_not_lost(begin, server, ours, kits):
    ready = ingest(begin, MemoryStore())
    (server.folder / "r.hl7").write_bytes(hl7(kits[0].rows()))

    def another_comes_first(put_aside):
        async def put(name, as_name):
            (server.folder / "r.tmp").write_bytes(hl7(kits[1].rows()))
            (server.folder / "r.tmp").rename(server.folder / "r.hl7")
            await put_aside(name, as_name)

        return put

    visit_with(ready, ours, another_comes_first)
    ingest_waiting_files(ready, limit=10)

    assert [texts_of(begin, kit.id) for kit in kits] == [[("all_clear", "owed")]] * 2


def test_a_visit_cut_short_leaves_no_marker_that_vouches_for_the_next_file(begin, server, ours):
    ready = ingest(begin, MemoryStore())
    with begin() as session:
        kits = send_kits(session, 2, lab="QUAYSIDE")
    (server.folder / "r.csv").write_bytes(quoted_table(kits[0].rows(QUOTED)))
    (server.folder / "r.csv.done").touch()

    def dies_between_the_two(put_aside):
        done = []

        async def put(name, as_name):
            if done:
                raise KeyboardInterrupt
            done.append(name)
            await put_aside(name, as_name)

        return put

    with pytest.raises(KeyboardInterrupt):
        visit_with(ready, ours, dies_between_the_two, "QUAYSIDE")
    half = b"".join(quoted_table(kits[1].rows(QUOTED)).splitlines(keepends=True)[:3])
    (server.folder / "r.csv").write_bytes(half)

    assert visit(ready, ours, "QUAYSIDE").files == 0


def test_a_file_is_fetched_read_told_put_aside_and_receipted(begin, server, ours, kits):
    (server.folder / "results 03.hl7").write_bytes(hl7(kits[0].rows()))
    ready = ingest(begin, MemoryStore())

    assert visit(ready, ours).files == 1
    assert lies_at(server) == []
    [name] = lies_at(server, "collected")
    assert name.endswith("-results_03.hl7")
    assert visit(ready, ours).receipts == 0  # nothing was read yet

    ingest_waiting_files(ready, limit=10)
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]
    assert [visit(ready, ours).receipts for _ in range(2)] == [1, 0]
    told = json.loads((server.folder / "receipts" / f"{name}.receipt.json").read_text())
    assert (told["verdict"], told["rows"]["taken"]) == ("taken", 4)
    assert lies_at(server, "receipts") == [f"{name}.receipt.json", f"{name}.receipt.txt"]


def test_a_table_is_fetched_with_its_control_file_and_not_without(begin, server, ours, kits):
    content = long_table(kits[0].rows())
    (server.folder / "r.csv").write_bytes(content)
    ready = ingest(begin, MemoryStore())
    assert visit(ready, ours).files == 0

    (server.folder / "r.csv.ctl").write_bytes(control_file(content))
    assert visit(ready, ours).files == 1
    ingest_waiting_files(ready, limit=10)

    assert ask(begin, "SELECT state, complete FROM lab_file") == [("done", True)]
    assert [name.partition("-")[2] for name in lies_at(server, "collected")] == ["r.csv", "r.csv.ctl"]


def test_a_system_that_writes_capitals_is_understood(begin, server, ours, kits):
    content = long_table(kits[0].rows())
    (server.folder / "R.CSV").write_bytes(content)
    (server.folder / "R.CSV.CTL").write_bytes(control_file(content))
    ready = ingest(begin, MemoryStore())

    assert visit(ready, ours).files == 1
    ingest_waiting_files(ready, limit=10)
    assert ask(begin, "SELECT state, complete FROM lab_file") == [("done", True)]
    assert lies_at(server) == []


def test_a_marker_is_waited_for(begin, server, ours):
    with begin() as session:
        [kit] = send_kits(session, 1, lab="QUAYSIDE")
    (server.folder / "r.csv").write_bytes(quoted_table(kit.rows(QUOTED)))
    ready = ingest(begin, MemoryStore())
    assert visit(ready, ours, "QUAYSIDE").files == 0

    (server.folder / "r.csv.done").touch()
    assert visit(ready, ours, "QUAYSIDE").files == 1
    ingest_waiting_files(ready, limit=10)
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


@pytest.mark.parametrize("name", ["a.hl7.part", "a.hl7.tmp", ".a.hl7"])
def test_a_file_that_is_still_being_written_is_left_alone(name):
    assert whole_files([name, "b.hl7"], lab_maps()["NORTHLAB"]) == ["b.hl7"]


def test_a_name_that_is_no_utf_8_is_kept_under_a_readable_one(begin, server, ours, kits):
    (server.folder / os.fsdecode(b"r\xe9sultats.hl7")).write_bytes(hl7(kits[0].rows()))
    (server.folder / "z.hl7").write_bytes(hl7(kits[1].rows()))

    assert visit(ingest(begin, MemoryStore()), ours).files == 2
    assert sorted(name.partition("-")[2] for name in lies_at(server, "collected")) == ["r_sultats.hl7", "z.hl7"]


def test_a_file_that_the_server_refuses_keeps_no_other_and_is_told_without_its_name(
    begin, server, ours, kits, monkeypatch
):
    (server.folder / "SMITH.hl7").write_bytes(hl7(kits[0].rows()))
    (server.folder / "b.hl7").write_bytes(hl7(kits[1].rows()))
    refuse(monkeypatch, "open", b"/SMITH.hl7")

    done = visit(ingest(begin, MemoryStore()), ours)

    assert done.files == 1
    assert lies_at(server) == ["SMITH.hl7"]
    mark = hashlib.sha256(b"SMITH.hl7").hexdigest()[:12]
    assert done.failed == [
        f"A file was left as it is (SHA-256 of its name: {mark}…). The server refuses it (SFTPPermissionDenied)."
    ]


def test_a_receipt_that_the_server_refuses_keeps_no_other(begin, server, ours, kits, monkeypatch):
    for name, kit in zip(("a.hl7", "b.hl7"), kits, strict=True):
        (server.folder / name).write_bytes(hl7(kit.rows()))
    ready = ingest(begin, MemoryStore())
    visit(ready, ours)
    ingest_waiting_files(ready, limit=10)
    refuse(monkeypatch, "open", b"a.hl7.receipt.json.part")

    done = visit(ready, ours)

    assert (done.receipts, len(done.failed)) == (1, 1)
    assert visit(ready, ours).receipts == 0


@pytest.fixture
def without_posix_rename(monkeypatch):
    """A server without OpenSSH's extension."""
    known = sftp.SFTPServerHandler._extensions
    plain = [each for each in known if not each[0].startswith(b"posix-rename")]
    monkeypatch.setattr(sftp.SFTPServerHandler, "_extensions", plain)


@pytest.mark.usefixtures("without_posix_rename")
def test_a_server_without_posix_rename_is_collected_from_too(begin, server, ours, kits):
    ready = ingest(begin, MemoryStore())
    for _ in range(2):  # the second time a file of that name lies in collected/ already
        (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))
        (server.folder / "b.hl7").write_bytes(hl7(kits[1].rows()))
        assert visit(ready, ours).files == 2
    ingest_waiting_files(ready, limit=10)
    assert visit(ready, ours) == Collected(receipts=2)

    assert lies_at(server) == []
    assert len(lies_at(server, "collected")) == 2


def test_a_server_that_tells_no_types_is_collected_from_too(begin, server, ours, kits, monkeypatch):
    # Version 3 of the protocol leaves permissions out at will, and the type stands in them.
    told = sftp.SFTPAttrs.encode
    monkeypatch.setattr(sftp.SFTPAttrs, "encode", lambda self, version: told(silent(self), version))
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))
    ready = ingest(begin, MemoryStore())

    assert visit(ready, ours) == Collected(files=1)
    ingest_waiting_files(ready, limit=10)
    assert visit(ready, ours) == Collected(receipts=1)


def silent(attributes):
    """The same without permissions."""
    less = copy(attributes)
    less.permissions = None
    return less


def test_a_type_that_the_listing_leaves_out_is_asked_for(begin, server, ours, kits, monkeypatch):
    told = sftp.SFTPName.encode
    monkeypatch.setattr(
        sftp.SFTPName,
        "encode",
        lambda self, version: told(sftp.SFTPName(self.filename, self.longname, silent(self.attrs)), version),
    )
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))
    (server.folder / "old").mkdir()

    assert visit(ingest(begin, MemoryStore()), ours) == Collected(files=1, passed_over=1)


def test_links_and_folders_are_passed_over_and_counted(begin, server, ours, kits):
    (server.folder / "old").mkdir()
    (server.folder / "old" / "a.hl7").write_bytes(hl7(kits[0].rows()))
    (server.folder / "b.hl7").symlink_to(server.folder / "old" / "a.hl7")

    assert visit(ingest(begin, MemoryStore()), ours) == Collected(passed_over=2)


def test_folders_that_the_laboratory_made_need_not_be_made(begin, server, ours, kits, monkeypatch):
    for folder in ("collected", "receipts"):
        (server.folder / folder).mkdir()
        refuse(monkeypatch, "mkdir", folder.encode())
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))

    assert visit(ingest(begin, MemoryStore()), ours).files == 1


def test_what_is_not_ours_in_collected_is_nobodys_business(begin, server, ours):
    (server.folder / "collected").mkdir()
    (server.folder / "collected" / os.fsdecode(b"\xe9t\xe9.hl7")).touch()

    assert visit(ingest(begin, MemoryStore()), ours) == Collected()


def test_a_file_that_a_person_let_go_on_has_a_new_receipt(begin, server, ours):
    with begin() as session:
        many = send_kits(session, 30)
    odd = [row for kit in many[:9] for row in kit.rows(value="Perhaps")]
    (server.folder / "a.hl7").write_bytes(hl7([*odd, *(row for kit in many[9:] for row in kit.rows())]))
    ready = ingest(begin, MemoryStore())
    visit(ready, ours)
    ingest_waiting_files(ready, limit=10)
    assert visit(ready, ours).receipts == 1
    assert verdicts(server) == ["held"]

    let_in_again(ready, ask(begin, "SELECT ref FROM lab_file")[0][0], actor="Testina Lead")
    assert visit(ready, ours).receipts == 0  # nobody has read it again yet
    ingest_waiting_files(ready, limit=10)

    assert [visit(ready, ours).receipts for _ in range(2)] == [1, 0]
    assert verdicts(server) == ["taken"]


def test_a_new_receipt_that_was_half_left_is_left_again(begin, server, ours, kits, monkeypatch):
    ready = ingest(begin, MemoryStore())
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows(), trailer=False))
    visit(ready, replace(ours, renames=True))
    ingest_waiting_files(ready, limit=10)
    visit(ready, ours)
    let_in_again(ready, ask(begin, "SELECT ref FROM lab_file")[0][0], actor="Testina Lead")
    ingest_waiting_files(replace(ready, clock=lambda: READ_AT + timedelta(hours=1)), limit=10)
    with monkeypatch.context() as meanwhile:
        refuse(meanwhile, "open", b"a.hl7.receipt.txt.part")
        assert visit(ready, ours).receipts == 0

    assert [visit(ready, ours).receipts for _ in range(2)] == [1, 0]


def verdicts(server):
    """What the receipts that were left say to machines."""
    return [
        json.loads((server.folder / "receipts" / name).read_text())["verdict"]
        for name in lies_at(server, "receipts")
        if name.endswith(".json")
    ]


# ── Is it still being written? ───────────────────────────────────────────────────────────────


@pytest.fixture
def a_minute_passes(db):
    """Machine time can't be moved: the looks were a minute earlier instead."""

    def passes(seconds=STILL_SECONDS):
        with db.owner_engine.begin() as owner:
            owner.execute(
                text("UPDATE lab_drop_look SET recorded_at = recorded_at - make_interval(secs => :s)"), {"s": seconds}
            )

    return passes


def test_a_lone_message_that_is_still_being_written_is_never_read_as_whole(begin, server, ours, kits, a_minute_passes):
    ready = ingest(begin, MemoryStore())
    with (server.folder / "one.hl7").open("wb") as written:
        written.write(lone_hl7(kits[0].rows()))  # up to the border of a segment it reads as whole
        written.flush()
        assert visit(ready, ours) == Collected(waiting=1)
        a_minute_passes()
        written.write(b"NTE|1|L|Specimen leaked in transit: repeat.\r")
    assert visit(ready, ours) == Collected(waiting=1)
    a_minute_passes()
    assert visit(ready, ours) == Collected(files=1)

    ingest_waiting_files(ready, limit=10)
    assert texts_of(begin, kits[0].id) == []
    assert case_of(begin, kits[0].id) is not None


def test_two_looks_that_find_a_file_the_same_are_a_minute_apart(begin, server, ours, kits, a_minute_passes):
    (server.folder / "one.hl7").write_bytes(lone_hl7(kits[0].rows()))
    ready = ingest(begin, MemoryStore())

    assert [visit(ready, ours) for _ in range(2)] == [Collected(waiting=1)] * 2
    a_minute_passes(STILL_SECONDS - 10)
    assert visit(ready, ours) == Collected(waiting=1)
    a_minute_passes(10)
    assert visit(ready, ours) == Collected(files=1)
    assert ask(begin, "SELECT * FROM lab_drop_look") == []


def test_a_file_that_was_away_is_looked_at_anew(begin, server, ours, kits, a_minute_passes):
    content, ready = lone_hl7(kits[0].rows()), ingest(begin, MemoryStore())
    for _ in range(2):
        (server.folder / "one.hl7").write_bytes(content)
        assert visit(ready, ours).waiting == 1
        (server.folder / "one.hl7").unlink()
        visit(ready, ours)
        a_minute_passes()


def test_another_file_with_the_same_bytes_is_looked_at_by_itself(begin, server, ours, kits, a_minute_passes):
    ready = ingest(begin, MemoryStore())
    (server.folder / "one.hl7").write_bytes(lone_hl7(kits[0].rows()))
    visit(ready, ours)
    a_minute_passes()
    (server.folder / "two.hl7").write_bytes(lone_hl7(kits[0].rows()))

    assert visit(ready, ours) == Collected(files=1, waiting=1)
    assert lies_at(server) == ["two.hl7"]


@pytest.mark.parametrize("missing", [1, 9])
def test_a_batch_that_is_not_all_there_yet_is_not_fetched_to_be_held(begin, server, ours, kits, missing):
    whole, ready = hl7(kits[0].rows()), ingest(begin, MemoryStore())
    (server.folder / "a.hl7").write_bytes(whole[:-missing])
    assert visit(ready, ours) == Collected(waiting=1)

    (server.folder / "a.hl7").write_bytes(whole)
    assert visit(ready, ours) == Collected(files=1)


def test_what_never_comes_whole_is_taken_and_held(begin, server, ours, kits, a_minute_passes):
    ready = ingest(begin, MemoryStore())
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows())[:-9])
    visit(ready, ours)
    a_minute_passes()

    assert visit(ready, ours).files == 1
    ingest_waiting_files(ready, limit=10)
    assert ask(begin, "SELECT state, held_because FROM lab_file") == [("held", "incomplete_file")]


def test_a_whole_document_proves_itself(begin, server, ours, kits):
    (server.folder / "a.json").write_bytes(fhir(kits[0].rows()))

    assert visit(ingest(begin, MemoryStore()), ours) == Collected(files=1)


def test_a_laboratory_that_promised_to_rename_is_taken_at_its_word(begin, server, ours, kits):
    (server.folder / "one.hl7").write_bytes(lone_hl7(kits[0].rows()))

    assert visit(ingest(begin, MemoryStore()), replace(ours, renames=True)) == Collected(files=1)


class DownStore(MemoryStore):
    """A store that takes nothing until it is up again."""

    is_up = False

    def put_file(self, key, file):
        if not self.is_up:
            raise ServiceError(Code.STORE_DOWN, "The store is away.")
        super().put_file(key, file)


def test_what_the_store_did_not_take_stays_at_the_laboratory(begin, server, ours, kits):
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))
    store = DownStore()
    ready = ingest(begin, store)
    with pytest.raises(ServiceError, match="away"):
        visit(ready, ours)
    assert lies_at(server) == ["a.hl7"]

    store.is_up = True
    assert visit(ready, ours).files == 1
    assert lies_at(server) == []


def test_a_file_fetched_twice_because_of_a_kill_has_one_effect(begin, server, ours, kits):
    content = hl7(kits[0].rows())
    ready = ingest(begin, MemoryStore())
    for _ in range(2):  # as if the first visit had died before it put the file aside
        (server.folder / "a.hl7").write_bytes(content)
        visit(ready, ours)
        ingest_waiting_files(ready, limit=10)

    assert sorted(state for (state,) in ask(begin, "SELECT state FROM lab_file")) == ["done", "duplicate"]
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]
    assert len(lies_at(server, "collected")) == 1


def test_a_server_that_shows_another_key_is_not_spoken_to(begin, server, ours, kits):
    (server.folder / "a.hl7").write_bytes(hl7(kits[0].rows()))
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()

    with pytest.raises(ServiceError, match="HostKeyNotVerifiable"):
        visit(ingest(begin, MemoryStore()), replace(ours, host_key=other))
    assert lies_at(server) == ["a.hl7"]


def test_a_server_that_does_not_answer_is_a_failure_with_a_sentence(begin, ours):
    with pytest.raises(ServiceError) as failed:
        visit(ingest(begin, MemoryStore()), replace(ours, port=1))
    assert failed.value.code is Code.NOT_NOW


def test_a_key_that_can_not_be_read_is_a_matter_of_settings(begin, ours, tmp_path):
    (tmp_path / "broken").write_text("no key")
    with pytest.raises(ServiceError) as failed:
        visit(ingest(begin, MemoryStore()), replace(ours, key=tmp_path / "broken"))
    assert failed.value.code is Code.SETTINGS
