"""Every file ends done, held or as a known duplicate, whoever reads it and however often it comes."""

import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import text

from app.lab_arrivals import find_arrivals
from flows.ingest_results import Tally, ingest_waiting_files, read_file
from flows.reconcile import strike
from integrations.lab import reader as lab_files
from models.actions import lab_file
from models.actions.result import ChunkTally, move_position
from models.rules.errors import Code, ServiceError
from models.rules.lab import Fault
from models.rules.vocabulary import Quarantine
from tests.support.ingesting import READ_AT, ask, drop_bytes, ingest, lab_maps, take, texts_of
from tests.support.lab_files import QUOTED, control_file, hl7, long_table, quoted_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

FHIR = Path(__file__).parents[1] / "golden" / "lab" / "06-fhir-bundle.json"


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 4)


@pytest.fixture
def store():
    return MemoryStore()


def files(begin):
    return ask(begin, "SELECT state, held_because FROM lab_file ORDER BY id")


def is_even(begin):
    return strike(begin, lambda: READ_AT).differences == ()


def lease_runs_out(db):
    """Stands for two silent minutes: the reader's claim is over."""
    with db.owner_engine.begin() as owner:
        owner.execute(text("UPDATE lab_file SET claimed_until = clock_timestamp() - interval '1 second'"))


def incoming(store):
    return [key for key in store.objects if "/incoming/" in key]


# ── Again ────────────────────────────────────────────────────────────────────────────────────


def test_the_same_bytes_again_are_acknowledged_without_any_effect(begin, kits):
    take(begin, hl7(kits[0].rows(), control_id="X"))
    again = take(begin, hl7(kits[0].rows(), control_id="X"))

    assert (again.duplicates, again.rows) == (1, 0)
    assert files(begin) == [("done", None), ("duplicate", None)]
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]
    assert is_even(begin)


def test_the_same_bytes_after_a_hold_are_read_as_soon_as_they_can_be(begin, kits, store):
    content = long_table(kits[0].rows())
    for control in (b"rows=9\nsha256=0\n", control_file(content)):
        store.put("NORTHLAB/incoming/results.csv", content)
        store.put("NORTHLAB/incoming/results.csv.ctl", control)
        ingest_waiting_files(ingest(begin, store), limit=10)

    assert files(begin) == [("held", "incomplete_file"), ("done", None)]
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]
    assert is_even(begin)


def test_other_bytes_under_a_used_control_id_are_held_for_the_lab_desk(begin, kits):
    take(begin, hl7(kits[0].rows(), control_id="X"))
    take(begin, hl7(kits[1].rows(), control_id="X"))

    assert files(begin) == [("done", None), ("held", "control_id_reuse")]
    assert texts_of(begin, kits[1].id) == []
    assert ask(begin, "SELECT kind, lab FROM clinic_case") == [("lab_row", "NORTHLAB")]
    assert is_even(begin)


def test_a_whole_file_may_follow_a_cut_one_under_the_same_control_id(begin, kits):
    whole = hl7(kits[0].rows(), control_id="X")
    take(begin, whole[:-20])
    take(begin, whole)

    assert files(begin) == [("held", "incomplete_file"), ("done", None)]
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]


def test_two_readers_with_the_same_bytes_use_them_once(begin, kits, store):
    content = hl7([row for kit in kits for row in kit.rows()], control_id="X")
    for _ in range(4):
        drop_bytes(store, content)
    at_once = threading.Barrier(2)
    failures = []

    def read():
        try:
            at_once.wait(10)
            ingest_waiting_files(ingest(begin, store), limit=10)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    [each.start() for each in readers]
    [each.join(30) for each in readers]

    assert failures == []
    assert sorted(state for state, _ in files(begin)) == ["done", "duplicate", "duplicate", "duplicate"]
    assert ask(begin, "SELECT purpose, count(*) FROM text GROUP BY purpose") == [("all_clear", 4)]
    assert is_even(begin)


# ── Claims ───────────────────────────────────────────────────────────────────────────────────


def claim(begin):
    with begin() as session:
        return lab_file.claim_file(session, labs=lab_maps())


def arrive(begin, *names):
    with begin() as session:
        arrivals = [lab_file.Arrival("NORTHLAB", f"NORTHLAB/incoming/{name}", "1", 1) for name in names]
        return lab_file.take_arrivals(session, arrivals, now=READ_AT)


def test_an_arrival_is_noted_once(begin):
    assert arrive(begin, "a", "b") == 2
    assert arrive(begin, "a", "b", "c") == 1


def test_each_file_is_claimed_by_one_reader_oldest_first(begin):
    arrive(begin, "a", "b")

    assert [claim(begin).key[-1], claim(begin).key[-1], claim(begin)] == ["a", "b", None]


def test_a_file_whose_reader_fell_silent_is_taken_up_where_it_stood(begin, db):
    arrive(begin, "a")
    first = claim(begin)
    with db.owner_engine.begin() as owner:
        owner.execute(text("UPDATE lab_file SET messages_read = 7"))
    assert claim(begin) is None

    lease_runs_out(db)

    assert (claim(begin).id, first.messages_read) == (first.id, 0)
    assert ask(begin, "SELECT messages_read FROM lab_file") == [(7,)]


def test_a_file_of_a_lab_that_is_not_ours_is_left_alone(begin):
    arrive(begin, "a")

    with begin() as session:
        assert lab_file.claim_file(session, labs=["ELSEWHERE"]) is None


# ── One bad file ─────────────────────────────────────────────────────────────────────────────


class UnreadableStore(MemoryStore):
    """A store that fails to give out one object."""

    def __init__(self, broken):
        super().__init__()
        self.broken = broken

    def stream(self, key, version_id=""):
        if key == self.broken:
            raise ServiceError(Code.STORE_DOWN, "The store broke off.")
        return super().stream(key, version_id)


def test_a_file_that_cannot_be_read_stops_no_other_and_is_tried_again(begin, kits, db):
    store = UnreadableStore("")
    store.broken = drop_bytes(store, hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows()))

    with pytest.raises(ServiceError, match="broke off"):
        ingest_waiting_files(ingest(begin, store), limit=10)
    assert sorted(state for state, _ in files(begin)) == ["done", "reading"]
    assert texts_of(begin, kits[1].id) == [("all_clear", "owed")]

    store.broken = ""
    lease_runs_out(db)
    ingest_waiting_files(ingest(begin, store), limit=10)

    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]
    assert is_even(begin)


def vanish(store, key):
    """Stands for whoever deletes an object, with the version that was noted."""
    del store.objects[key]


def test_a_file_that_was_deleted_before_it_was_read_is_held_with_a_case_and_the_others_go_on(begin, kits, store):
    gone = drop_bytes(store, hl7(kits[0].rows()))
    find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[])
    vanish(store, gone)
    drop_bytes(store, hl7(kits[1].rows()))

    ingest_waiting_files(ingest(begin, store), limit=10)

    assert files(begin) == [("held", "incomplete_file"), ("done", None)]
    assert "deleted before it was read" in ask(begin, "SELECT detail FROM lab_file ORDER BY id")[0][0]
    assert ask(begin, "SELECT kind FROM clinic_case") == [("lab_row",)]
    assert ask(begin, "SELECT moved FROM lab_file") == [(True,), (True,)]
    assert is_even(begin)


def test_what_was_read_of_a_file_before_it_was_deleted_stands_and_is_accounted_for(begin, kits, store, monkeypatch):
    monkeypatch.setattr("flows.ingest_results.MESSAGES_A_CHUNK", 1)
    drop_bytes(store, hl7([row for kit in kits for row in kit.rows()]))
    checked = []

    def stream(key, version_id=""):
        yield from islice(MemoryStore.stream(store, key, version_id), 4 if checked else None)
        if checked:
            raise ServiceError(Code.NOT_FOUND, "It was deleted meanwhile.")
        checked.append(key)

    store.stream = stream
    ingest_waiting_files(ingest(begin, store), limit=10)

    assert files(begin) == [("held", "incomplete_file")]
    assert ask(begin, "SELECT messages_read > 0 FROM lab_file") == [(True,)]
    assert is_even(begin)


def test_a_reader_that_was_silent_for_too_long_can_not_hold_what_another_brought_to_its_end(begin, kits, store, db):
    key = drop_bytes(store, hl7(kits[0].rows()))
    find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[])
    slow, tally = claim(begin), Tally()
    lease_runs_out(db)
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert key not in store.objects

    read_file(ingest(begin, store), slow, tally)

    assert (tally.files, tally.held) == (1, 0)
    assert files(begin) == [("done", None)]
    assert ask(begin, "SELECT count(*) FROM clinic_case") == [(0,)]


def test_a_reader_that_was_silent_for_too_long_ends_nothing_that_another_has_held(begin, store, db):
    key = drop_bytes(store, b"x")
    find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[])
    slow = claim(begin)
    lease_runs_out(db)
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert key not in store.objects
    held = files(begin)

    with begin() as session:
        lab_file.end_as_done(session, slow, now=READ_AT, actor="t")
        lab_file.end_as_duplicate(session, slow, of=slow.id, now=READ_AT, actor="t")
    ref = lab_file.as_file_ref(slow, 1)
    with begin() as session, pytest.raises(ServiceError, match="Another reader"):
        move_position(session, ref, ChunkTally(), messages_read=1, lease_seconds=1)

    assert files(begin) == held
    assert held[0][0] == "held"


CUTS = [0.1, 0.5, 0.9, 0.98]


@pytest.mark.parametrize("part", CUTS)
def test_nothing_of_a_cut_file_is_used_and_a_person_has_a_due_time(begin, kits, part):
    whole = hl7([row for kit in kits for row in kit.rows()])
    take(begin, whole[: int(len(whole) * part)])

    assert files(begin) == [("held", "incomplete_file")]
    assert ask(begin, "SELECT count(*) FROM result_version") == [(0,)]
    assert ask(begin, "SELECT kind, owner_role, due_at > :now FROM clinic_case", now=READ_AT) == [
        ("lab_row", "lab_liaison", True)
    ]
    assert is_even(begin)


# ── Putting away ─────────────────────────────────────────────────────────────────────────────


def test_finished_files_leave_the_incoming_folder_with_what_stood_beside_them(begin, kits, store):
    drop_bytes(store, long_table(kits[0].rows()), ending="csv")
    drop_bytes(store, b"%PDF-1.7 not ours")
    ingest_waiting_files(ingest(begin, store), limit=10)

    assert incoming(store) == []
    assert sorted(key.rpartition("/")[0] for key in store.objects if "receipt" not in key) == [
        "NORTHLAB/processed/2026/11/05",
        "NORTHLAB/processed/2026/11/05",
        "NORTHLAB/quarantine",
    ]


def test_a_file_that_overwrites_one_being_read_is_read_too(begin, kits):
    name = "NORTHLAB/incoming/results.csv"

    class LabOverwrites(MemoryStore):
        """A lab that sends its next file under the same name while the first is being read."""

        def read(self, key, version_id=""):
            if key == name + ".ctl" and self.next_file:
                content, self.next_file = self.next_file, b""
                self.put(name, content)
                control = super().read(key, version_id)
                self.put(key, control_file(content))
                return control
            return super().read(key, version_id)

    store = LabOverwrites()
    first, store.next_file = long_table(kits[0].rows()), long_table(kits[1].rows())
    store.put(name, first)
    store.put(name + ".ctl", control_file(first))
    ingest_waiting_files(ingest(begin, store), limit=10)

    assert files(begin) == [("done", None), ("done", None)]
    assert texts_of(begin, kits[0].id) == texts_of(begin, kits[1].id) == [("all_clear", "owed")]
    assert incoming(store) == []


def test_a_table_waits_for_its_control_file(begin, kits, store):
    content = long_table(kits[0].rows())
    store.put("NORTHLAB/incoming/results.csv", content)
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == []

    store.put("NORTHLAB/incoming/results.csv.ctl", control_file(content))
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == [("done", None)]


def test_a_control_file_in_capitals_is_the_one_that_was_waited_for(begin, kits, store):
    content = long_table(kits[0].rows())
    store.put("NORTHLAB/incoming/R.CSV", content)
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == []

    store.put("NORTHLAB/incoming/R.CSV.CTL", control_file(content))
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == [("done", None)]
    assert ask(begin, "SELECT complete FROM lab_file") == [(True,)]
    assert incoming(store) == []


def test_a_table_of_a_lab_that_writes_a_marker_waits_for_it(begin, store):
    with begin() as session:
        [kit] = send_kits(session, 1, lab="QUAYSIDE")
    store.put("QUAYSIDE/incoming/results.txt", quoted_table(kit.rows(QUOTED)))
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == []

    store.put("QUAYSIDE/incoming/results.txt.done", b"")
    ingest_waiting_files(ingest(begin, store), limit=10)
    assert files(begin) == [("done", None)]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


@pytest.mark.parametrize("name", ["a.hl7.part", "a.hl7.TMP", ".a.hl7", "a.hl7.filepart"])
def test_a_file_whose_name_says_that_it_is_still_being_written_is_left_alone(begin, store, kits, name):
    store.put(f"NORTHLAB/incoming/{name}", hl7(kits[0].rows())[:700])
    ingest_waiting_files(ingest(begin, store), limit=10)

    assert files(begin) == []


# ── Too much of one file ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def many(begin):
    """Thirty kits, and their results with a quarter of them in a word that is not agreed."""
    with begin() as session:
        kits = send_kits(session, 30, seed=9)
    rows = [
        row._replace(value="Negatif") if number < 8 else row for number, kit in enumerate(kits) for row in kit.rows()
    ]
    return kits, hl7(rows)


def test_a_file_of_which_too_much_can_not_be_used_is_held_before_anything_of_it_is_told(begin, many, store):
    _, content = many
    take(begin, content, store=store)

    assert files(begin) == [("held", "too_many_quarantined")]
    assert ask(begin, "SELECT (SELECT count(*) FROM text), (SELECT count(*) FROM result_version)") == [(0, 0)]
    assert ask(begin, "SELECT kind, owner_role FROM clinic_case") == [("lab_row", "lab_liaison")]
    assert is_even(begin)


def test_what_was_read_before_a_file_was_stopped_stands_and_is_accounted_for(begin, many, store, monkeypatch):
    monkeypatch.setattr("flows.ingest_results.MESSAGES_A_CHUNK", 10)
    kits, _ = many
    rows = [row._replace(value="Negatif") if n >= 20 else row for n, kit in enumerate(kits) for row in kit.rows()]
    take(begin, hl7(rows), store=store)

    assert files(begin) == [("held", "too_many_quarantined")]
    assert ask(begin, "SELECT count(*) FROM result_version") == [(80,)]
    assert ask(begin, "SELECT count(*) FROM text WHERE state = 'owed'") == [(20,)]
    assert is_even(begin)


def test_after_a_persons_go_ahead_the_same_bytes_are_read_row_by_row(begin, db, many, store):
    _, content = many
    take(begin, content, store=store)
    with db.owner_engine.begin() as owner:
        owner.execute(text("UPDATE lab_file SET go_ahead_by = 'staff:lab-1'"))
    take(begin, content)

    assert files(begin) == [("held", "too_many_quarantined"), ("done", None)]
    assert ask(begin, "SELECT count(*) FROM text WHERE state = 'owed' AND purpose <> 'delayed'") == [(22,)]
    assert ask(begin, "SELECT rows_quarantined FROM lab_file ORDER BY id") == [(0,), (32,)]
    assert is_even(begin)


def test_a_run_takes_what_lands_while_it_runs_but_no_more_than_its_limit(begin, kits):
    class KeepsLanding(MemoryStore):
        """A store where a file lands whenever one has been read through."""

        def move(self, key, to, version_id=""):
            super().move(key, to, version_id)
            if self.waiting:
                drop_bytes(self, self.waiting.pop())

    store = KeepsLanding()
    store.waiting = [hl7(kit.rows()) for kit in kits]
    drop_bytes(store, store.waiting.pop())

    assert ingest_waiting_files(ingest(begin, store), limit=3).files == 3
    assert ingest_waiting_files(ingest(begin, store), limit=3).files == 1


def test_a_file_is_read_in_chunks_each_of_which_moves_its_position(begin, kits, store, monkeypatch):
    monkeypatch.setattr("flows.ingest_results.MESSAGES_A_CHUNK", 1)
    drop_bytes(store, hl7([row for kit in kits for row in kit.rows()]))
    commits = []

    class Watching:
        def __call__(self):
            commits.append(ask(begin, "SELECT messages_read FROM lab_file"))
            return begin()

    ingest_waiting_files(replace(ingest(begin, store), begin=Watching()), limit=1)

    seen = {read for state in commits for (read,) in state}
    assert seen == {0, 1, 2, 3, 4}
    assert is_even(begin)


def test_a_document_that_its_check_lets_pass_and_its_reader_does_not_is_held_and_never_stuck(begin, monkeypatch):
    """As one is that is nested a level deeper than the reader has room for, some calls further down."""

    def too_deep(*_, **__):
        raise lab_files.BrokenFile(Fault(Quarantine.MALFORMED, "The JSON is nested too deeply."))
        yield

    store = MemoryStore()
    drop_bytes(store, FHIR.read_bytes(), ending="json")
    monkeypatch.setattr(lab_files, "read_messages", too_deep)

    ingest_waiting_files(ingest(begin, store), limit=5)

    assert files(begin) == [("held", "malformed")]
    assert ask(begin, "SELECT kind FROM clinic_case") == [("lab_row",)]
