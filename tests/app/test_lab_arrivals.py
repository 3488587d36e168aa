"""What lands in the labs' folders is noted, whatever it is called and whatever is wrong with what lies beside it."""

from datetime import UTC, datetime, timedelta

import pytest

from app.audit_seals import FOLDER as SEALS
from app.lab_arrivals import find_arrivals, hear_of_arrivals
from flows.ingest_results import ingest_waiting_files
from flows.notify_residents import RUNS_KEY
from flows.reconcile import strike
from models.rules.errors import Code, ServiceError
from models.tables.result import LONGEST_KEY
from tests.support.command import at_home
from tests.support.ingesting import READ_AT, ask, drop_bytes, ingest, lab_maps, texts_of
from tests.support.lab_files import control_file, hl7, long_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore


class Refusing(MemoryStore):
    """A store that has an answer to everything but what is asked of certain keys."""

    def __init__(self):
        super().__init__()
        self.refused = {}

    def _check(self, what, key):
        if key.startswith(self.refused.get(what, "\0")):
            raise ServiceError(Code.STORE_DOWN, "The store refused.")

    def list(self, prefix):
        assert len(prefix.encode()) <= LONGEST_KEY  # S3 refuses it
        if prefix == self.refused.get("list"):
            raise ServiceError(Code.STORE_DOWN, "The store refused.")
        return super().list(prefix)

    def pin(self, key):
        self._check("pin", key)
        return super().pin(key)

    def move(self, key, to, version_id=""):
        self._check("move", key)
        super().move(key, to, version_id)


class Queue:
    """Arrivals that come again until they are taken off."""

    def __init__(self, *keys):
        self.waiting = {str(number): key for number, key in enumerate(keys)}

    def receive(self, wait_seconds):
        assert wait_seconds <= 20
        return list(self.waiting.items())

    def done(self, receipt):
        self.waiting.pop(receipt, None)


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 3)


@pytest.fixture
def store():
    return Refusing()


def files(begin):
    return ask(begin, "SELECT object_key, state, moved FROM lab_file ORDER BY id")


def read(begin, store):
    return ingest_waiting_files(ingest(begin, store), limit=10)


# ── Names ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_a_file_under_the_longest_name_that_s3_allows_is_read_and_put_away(begin, store, kits, letter):
    start, end = "NORTHLAB/incoming/", ".hl7"
    key = start + letter * ((LONGEST_KEY - len(start + end)) // len(letter.encode())) + end
    store.put(key, hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows()))

    read(begin, store)

    assert [(state, moved) for _, state, moved in files(begin)] == [("done", True)] * 2
    assert all(len(each.encode()) <= LONGEST_KEY for each in store.objects)
    assert [texts_of(begin, kit.id) for kit in kits[:2]] == [[("all_clear", "owed")]] * 2


def test_files_with_long_names_keep_their_endings_apart(begin, store, kits):
    for number in (1, 2):
        store.put(f"NORTHLAB/incoming/{'x' * 990}-{number}.hl7", hl7(kits[number].rows()))
    read(begin, store)

    assert len([key for key in store.objects if key.endswith(("x-1.hl7", "x-2.hl7"))]) == 2


@pytest.mark.parametrize("folder", ["", "today/"])
def test_the_marker_of_a_folder_is_no_file(begin, store, kits, folder):
    store.put(f"NORTHLAB/incoming/{folder}", b"")
    store.put(f"NORTHLAB/incoming/{folder}a.hl7", hl7(kits[0].rows()))
    read(begin, store)

    assert files(begin) == [(f"NORTHLAB/incoming/{folder}a.hl7", "done", True)]
    assert ask(begin, "SELECT count(*) FROM clinic_case") == [(0,)]


# ── Tables and what stands beside them ───────────────────────────────────────────────────────

TABLE = "NORTHLAB/incoming/results.csv"


def put_table(store, kit, *, control=True):
    content = long_table(kit.rows())
    store.put(TABLE, content)
    if control:
        store.put(f"{TABLE}.ctl", control_file(content))
    return content


def test_a_table_under_the_name_of_one_that_waits_is_read_once_its_own_control_file_comes(begin, store, kits):
    put_table(store, kits[0])
    find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[])
    later = put_table(store, kits[1], control=False)
    read(begin, store)
    assert [state for _, state, _ in files(begin)] == ["done"]

    store.put(f"{TABLE}.ctl", control_file(later))
    read(begin, store)

    assert [state for _, state, _ in files(begin)] == ["done", "done"]
    assert [texts_of(begin, kit.id) for kit in kits[:2]] == [[("all_clear", "owed")]] * 2
    assert [key for key in store.objects if "/incoming/" in key] == []


def test_a_control_file_of_the_same_second_is_the_tables_own(begin, store, kits):
    put_table(store, kits[0])
    table, control = store.modified
    store.modified[control] = store.modified[table]
    read(begin, store)

    assert [state for _, state, _ in files(begin)] == ["done"]


def test_a_table_that_is_written_anew_just_as_it_is_found_waits_for_its_own_control_file(begin, store, kits):
    put_table(store, kits[0])

    def pin(key):  # the lab's next table comes between the listing and the look at the object
        put_table(store, kits[1], control=False)
        return MemoryStore.pin(store, key)

    store.pin = pin
    assert find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[]) == 0


# ── One stops no other ───────────────────────────────────────────────────────────────────────


def test_an_object_that_the_store_will_not_show_stops_no_other(begin, store, kits, caplog):
    store.put("NORTHLAB/incoming/a-name-of-somebody.hl7", hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows()))
    store.refused["pin"] = "NORTHLAB/incoming/a-name-of-somebody"

    with pytest.raises(ServiceError, match="The store refused"):
        read(begin, store)

    assert [state for _, state, _ in files(begin)] == ["done"]
    assert texts_of(begin, kits[1].id) == [("all_clear", "owed")]
    assert "an object that waits in the incoming folder of NORTHLAB: The store refused." in caplog.text
    assert "somebody" not in caplog.text


def test_an_object_that_can_not_be_noted_stops_no_other(begin, store, kits):
    """As a name with a character that the database has no place for."""
    store.put("NORTHLAB/incoming/a\0.hl7", hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows()))

    with pytest.raises(Exception, match="NUL"):
        read(begin, store)

    assert [state for _, state, _ in files(begin)] == ["done"]


def test_a_laboratory_whose_folder_can_not_be_looked_at_stops_no_other(begin, store):
    with begin() as session:
        [kit] = send_kits(session, 1, lab="NORTHLAB")
    drop_bytes(store, hl7(kit.rows()))
    store.refused["list"] = "QUAYSIDE/incoming/"
    failures = []

    assert list(lab_maps()).index("NORTHLAB") < list(lab_maps()).index("QUAYSIDE") < len(lab_maps()) - 1
    store.put("SOUTHVALE/incoming/a.csv", b"nonsense")
    assert find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=failures) == 2
    assert [failure.code for failure in failures] == [Code.STORE_DOWN]


def test_files_that_wait_are_read_though_nothing_new_can_be_found(begin, store, kits, monkeypatch):
    drop_bytes(store, hl7(kits[0].rows()))
    find_arrivals(begin, store, lab_maps(), now=READ_AT, failures=[])
    store.refused["list"] = "NORTHLAB/incoming/"

    def breaks(_):
        raise ServiceError(Code.STORE_DOWN, "Messages could not be filed.")

    monkeypatch.setattr("flows.ingest_results.file_messages", breaks)
    with pytest.raises(ServiceError, match="could not be filed"):
        read(begin, store)

    assert [state for _, state, _ in files(begin)] == ["done"]
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]


def test_a_file_that_can_not_be_put_away_stops_no_other_and_is_tried_again(begin, store, kits):
    stuck = drop_bytes(store, hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows()))
    store.refused["move"] = stuck

    with pytest.raises(ServiceError, match="The store refused"):
        read(begin, store)
    assert sorted((state, moved) for _, state, moved in files(begin)) == [("done", False), ("done", True)]

    store.refused.clear()
    read(begin, store)
    assert [moved for _, _, moved in files(begin)] == [True, True]


# ── What lies unread ─────────────────────────────────────────────────────────────────────────


def unread(begin):
    return ask(begin, "SELECT lab, object_key, why FROM unread_object WHERE gone_at IS NULL ORDER BY object_key")


def put_long_ago(store, key, content=b"x", *, hours=25):
    """An object that has lain in the store for so long."""
    version_id = store.put(key, content)
    store.modified[version_id] = datetime.now(UTC) - timedelta(hours=hours)


def checks_that_fail(begin):
    return {difference.check for difference in strike(begin, lambda: READ_AT).differences}


LYING = {
    "NORTHLAB/incoming/a.hl7.part": ("NORTHLAB", "under_way"),
    "NORTHLAB/incoming/.b.hl7": ("NORTHLAB", "under_way"),
    "NORTHLAB/incoming/c.csv": ("NORTHLAB", "not_whole"),
    "NORTHLAB/incoming/d.csv.ctl": ("NORTHLAB", "alone"),
    "northlab/incoming/e.hl7": ("NORTHLAB", "misplaced"),
    "NORTHLAB/incomming/f.hl7": ("NORTHLAB", "misplaced"),
    "NORTHLAB/g.hl7": ("NORTHLAB", "misplaced"),
    "incoming/h.hl7": ("", "misplaced"),
    "UNKNOWN/incoming/i.hl7": ("", "misplaced"),
    "j.hl7": ("", "misplaced"),
}


@pytest.mark.parametrize("key", LYING)
def test_what_lies_in_the_store_for_a_day_and_is_not_read_is_named_until_it_is_gone(begin, store, key):
    put_long_ago(store, key)
    read(begin, store)
    assert unread(begin) == [(LYING[key][0], key, LYING[key][1])]
    assert checks_that_fail(begin) == {"nothing_lies_unread"}

    del store.objects[key]
    read(begin, store)
    assert (unread(begin), checks_that_fail(begin)) == ([], set())

    put_long_ago(store, key)
    read(begin, store)
    assert len(unread(begin)) == 1


def test_a_table_that_was_written_anew_without_its_control_file_is_not_whole(begin, store):
    put_long_ago(store, f"{TABLE}.ctl", hours=30)
    put_long_ago(store, TABLE)
    read(begin, store)

    assert unread(begin) == [("NORTHLAB", TABLE, "not_whole")]


@pytest.mark.parametrize("key", LYING)
def test_nothing_is_said_of_it_on_its_first_day(begin, store, key):
    put_long_ago(store, key, hours=23)
    read(begin, store)

    assert unread(begin) == []


def test_what_the_product_keeps_in_the_store_is_never_in_its_own_way(begin, store, kits):
    ours = {
        SEALS,
        RUNS_KEY,
        "batches/b/postage/1.pdf",
        "batches/b/packs.pdf",
        "NORTHLAB/outgoing/r.hl7",
        "GONE/processed/2",
    }
    for key in ours:
        put_long_ago(store, key)
    put_long_ago(store, "NORTHLAB/incoming/")
    drop_bytes(store, hl7(kits[0].rows()))
    drop_bytes(store, hl7(kits[1].rows(), trailer=False))
    read(begin, store)
    for version_id in store.modified:
        store.modified[version_id] -= timedelta(days=9)
    read(begin, store)

    assert unread(begin) == []


def test_a_file_that_waits_to_be_read_or_put_away_does_not_lie_unread(begin, store, kits):
    for number in (0, 1):
        put_long_ago(store, f"NORTHLAB/incoming/{number}.hl7", hl7(kits[number].rows()))
    store.refused["move"] = "NORTHLAB/incoming/0"

    with pytest.raises(ServiceError):
        ingest_waiting_files(ingest(begin, store), limit=1)

    assert sorted(state for _, state, _ in files(begin)) == ["arrived", "done"]
    assert unread(begin) == []


def test_a_file_that_no_run_can_note_is_named_by_the_balance_too(begin, store, kits):
    put_long_ago(store, "NORTHLAB/incoming/a.hl7")
    store.refused["pin"] = "NORTHLAB/"

    with pytest.raises(ServiceError):
        read(begin, store)

    assert unread(begin) == [("NORTHLAB", "NORTHLAB/incoming/a.hl7", "not_taken")]


def test_a_picture_of_the_store_that_can_not_be_drawn_leaves_the_last_one(begin, store):
    put_long_ago(store, "NORTHLAB/incoming/a.hl7.part")
    read(begin, store)
    store.refused["list"] = "SOUTHVALE/incoming/"

    with pytest.raises(ServiceError):
        read(begin, store)

    assert len(unread(begin)) == 1


def test_the_command_names_what_lies_unread_and_where(begin, db, store, monkeypatch, tmp_path):
    with at_home(db, monkeypatch, tmp_path) as kitpost:
        assert "Nothing lies unread" in kitpost("lab", "unread")

        put_long_ago(store, "UNKNOWN/incoming/i.hl7")
        read(begin, store)

        assert "whose is unknown  misplaced  UNKNOWN/incoming/i.hl7" in kitpost("lab", "unread", exit_code=1)


# ── Whoever listens ──────────────────────────────────────────────────────────────────────────


def hear(begin, store, queue):
    return hear_of_arrivals(queue, begin, store, lab_maps(), lambda: READ_AT)


def test_what_is_heard_of_is_noted_and_taken_off_the_queue(begin, store, kits):
    queue = Queue(drop_bytes(store, hl7(kits[0].rows())), "audit/seals/1.json")

    assert hear(begin, store, queue) == 1
    assert queue.waiting == {}
    assert hear(begin, store, queue) == 0


def test_a_message_of_which_nothing_comes_is_heard_once_and_the_others_are_noted(begin, store, kits):
    queue = Queue(drop_bytes(store, hl7(kits[0].rows())), drop_bytes(store, hl7(kits[1].rows())))
    store.refused["pin"] = queue.waiting["0"]

    assert hear(begin, store, queue) == 1
    assert queue.waiting == {}
