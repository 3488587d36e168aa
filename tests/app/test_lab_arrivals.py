"""What lands in the labs' folders is noted, whatever it is called and whatever is wrong with what lies beside it."""

import pytest

from app.lab_arrivals import find_arrivals, hear_of_arrivals
from flows.ingest_results import ingest_waiting_files
from models.rules.errors import Code, ServiceError
from models.tables.result import LONGEST_KEY
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


# ── Whoever listens ──────────────────────────────────────────────────────────────────────────


def hear(begin, store, queue):
    return hear_of_arrivals(queue, begin, store, lab_maps(), now=READ_AT)


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
