"""Every finished file has a receipt beside it that its laboratory can read, and that names nobody (FEATURES 36, 39)."""

import json

import pytest

from flows.ingest_results import ingest_waiting_files
from tests.support.ingesting import ask, drop_bytes, ingest
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 3)


@pytest.fixture
def store():
    return MemoryStore()


def take(begin, store, content):
    """One file arrives and is read; its receipts as JSON and as text."""
    key = drop_bytes(store, content)
    ingest_waiting_files(ingest(begin, store), limit=10)
    name = key.rpartition("/")[2]
    [as_json] = [each for each in store.objects if each.endswith(f"{name}.receipt.json")]
    [as_text] = [each for each in store.objects if each.endswith(f"{name}.receipt.txt")]
    assert as_json.removesuffix(".receipt.json") in store.objects
    return json.loads(store.read(as_json)), store.read(as_text).decode()


def spoilt(kits):
    """Three people's results, of whom one has a result in a word that nobody agreed on."""
    rows = [row for kit in kits for row in kit.rows()]
    return [rows[0]._replace(value="Negatif"), *rows[1:]]


def test_a_receipt_counts_every_row_and_says_why_one_was_refused(begin, store, kits):
    rows = spoilt(kits)
    told, text = take(begin, store, hl7(rows))

    assert told["verdict"] == "taken"
    assert told["rows"] == {"read": 12, "taken": 11, "refused": 1, "supporting": 0, "known_before": 0}
    [refused] = told["refused"]
    assert refused["reason"] == "unknown_token"
    assert refused["accession"] == rows[0].accession
    assert refused["message_id"] == ask(begin, "SELECT min(message_id) FROM lab_message_key")[0][0]
    assert refused["line"] > 1
    assert f"line {refused['line']}, message {refused['message_id']}, accession {rows[0].accession}" in text
    assert "The result word or code is not agreed for this test" in text


def test_a_receipt_of_a_held_file_says_what_to_do(begin, store, kits):
    told, text = take(begin, store, hl7(kits[0].rows())[:-20])

    assert (told["verdict"], told["held_because"], told["rows"]["read"]) == ("held", "incomplete_file", 0)
    assert "send the whole file again" in text
    assert "Nothing of it was used." in text


def test_a_receipt_of_a_file_that_came_before_names_that_one(begin, store, kits):
    first, _ = take(begin, store, hl7(kits[0].rows()))
    told, text = take(begin, store, hl7(kits[0].rows()))

    assert (told["verdict"], told["known_as"], told["sha256"]) == ("known", first["file"], first["sha256"])
    assert "Nothing was done." in text


def test_no_receipt_says_who_somebody_is_or_what_was_found(begin, store, kits):
    for content in (hl7(spoilt(kits)), hl7(kits[1].rows(family="Otherperson"), control_id="other")):
        told, text = take(begin, store, content)
        said = json.dumps(told) + text
        for kit in kits:
            assert kit.family not in said
            assert kit.born not in said
            assert kit.born.replace("-", "") not in said
        assert "Negatif" not in said
        assert "Otherperson" not in said


class DeadlyStore(MemoryStore):
    """A store whose caller dies as it puts its first receipt, or its second."""

    def __init__(self, dies_at):
        super().__init__()
        self.dies_at = dies_at

    def put(self, key, body, content_type=""):
        if self.dies_at and key.endswith(self.dies_at):
            self.dies_at = ""
            raise KeyboardInterrupt
        return super().put(key, body, content_type)


@pytest.mark.parametrize("dies_at", [".receipt.json", ".receipt.txt"])
def test_a_run_killed_between_move_and_receipt_ends_with_one(begin, kits, dies_at):
    store = DeadlyStore(dies_at)
    drop_bytes(store, hl7(kits[0].rows()))
    with pytest.raises(KeyboardInterrupt):
        ingest_waiting_files(ingest(begin, store), limit=10)
    assert not [key for key in store.objects if "/incoming/" in key]

    for _ in range(2):
        ingest_waiting_files(ingest(begin, store), limit=10)

    [name] = [key for key in store.objects if "receipt" not in key]
    assert sorted(store.objects) == [name, f"{name}.receipt.json", f"{name}.receipt.txt"]
    assert len({*store.objects[f"{name}.receipt.json"].values()}) == 1
    assert ask(begin, "SELECT moved FROM lab_file") == [(True,)]
