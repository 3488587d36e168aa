"""The audit is sealed behind its writers, and whoever touches it is found out."""

import time

import pytest
from sqlalchemy import text

from app.audit_seals import FOLDER, seal_waiting, verify_whole
from models.actions import audit
from models.actions.audit_seal import newest_seal
from tests.support import build
from tests.support.memory_store import MemoryStore


@pytest.fixture
def store():
    return MemoryStore()


ONE_MORE = """
    INSERT INTO audit (service_id, actor, action, subject, subject_id, because, detail, occurred_at, transaction)
    SELECT service_id, actor, action, subject, 9, because, detail, occurred_at, transaction FROM audit LIMIT 1
"""


def write(begin, *kits):
    with begin() as session:
        for kit_id in kits:
            about = {"subject": "kit", "subject_id": kit_id, "why": "ŵ"}
            audit.record(session, action="test.done", actor="staff:t", now=build.NOW, **about)


def seal_all(begin, store):
    """Until nothing waits: transactions of other tests on this server may hold the sealer back for a moment."""
    sealed = seal_waiting(begin, store)
    give_up = time.monotonic() + 20
    while verify_whole(begin, store).fresh and time.monotonic() < give_up:
        time.sleep(0.01)
        sealed += seal_waiting(begin, store)
    return sealed


def owner(db, statement):
    with db.owner_engine.begin() as session:
        session.execute(text(statement))


def test_every_entry_is_sealed_once_and_the_audit_is_whole(begin, store):
    for number in range(3):
        write(begin, number, number)
        assert seal_all(begin, store) == 2
    assert seal_waiting(begin, store) == 0

    found = verify_whole(begin, store)
    assert (found.blocks, found.entries, found.fresh, found.outside, found.broken) == (3, 6, 0, 3, [])


def test_a_long_backlog_is_sealed_in_bounded_blocks(begin, store, monkeypatch):
    monkeypatch.setattr("models.actions.audit_seal.MOST_ENTRIES", 3)
    for number in range(10):
        write(begin, number)

    assert seal_all(begin, store) == 10
    found = verify_whole(begin, store)
    assert (found.entries, found.broken) == (10, [])
    assert found.blocks >= 4


def test_what_an_open_transaction_writes_waits_for_its_end_and_stops_no_writer(begin, store):
    with begin() as slow:
        audit.record(slow, action="test.slow", subject="kit", subject_id=1, actor="staff:t", now=build.NOW)
        slow.flush()
        write(begin, 2)
        seal_waiting(begin, store)
        assert verify_whole(begin, store).fresh == 1  # committed later than the slow one began: it waits too
    assert seal_all(begin, store) == 2

    assert verify_whole(begin, store).broken == []


@pytest.mark.parametrize(
    ("touch", "says"),
    [
        ("UPDATE audit SET actor = 'staff:x' WHERE subject_id = 1", "block 1 is not what was sealed"),
        ("DELETE FROM audit WHERE subject_id = 1", "Block 1 was sealed with 2 entries and has 1"),
        (ONE_MORE, "1 entries stand where a block was sealed without them"),
        ("DELETE FROM audit_seal WHERE number = 1", "Block 1 is missing"),
        ("UPDATE audit_seal SET digest = repeat('a', 64) WHERE number = 2", "not the one that was kept outside"),
        ("DELETE FROM audit_seal WHERE number = 2", "Block 2 is not the one that was kept outside"),
    ],
)
def test_whoever_touches_the_audit_is_found_out(begin, db, store, touch, says):
    write(begin, 1, 2)
    seal_all(begin, store)
    write(begin, 3)
    seal_all(begin, store)

    owner(db, touch)

    assert says in " ".join(verify_whole(begin, store).broken)


def test_a_seal_that_a_killed_run_left_out_is_kept_outside_by_the_next(begin, store):
    write(begin, 1)
    seal_all(begin, MemoryStore())

    seal_waiting(begin, store)

    with begin() as session:
        assert [*store.objects] == [f"{FOLDER}{1:010}-{newest_seal(session).digest}.json"]


def test_after_a_move_to_another_server_sealing_goes_on(begin, db, store):
    write(begin, 1, 2)
    seal_all(begin, store)
    write(begin, 3)
    ahead = "transaction = transaction + 1000000000"  # what an old server's numbers look like to a new one
    owner(db, f"UPDATE audit SET {ahead}")
    owner(db, "UPDATE audit_seal SET to_transaction = to_transaction + 1000000000")

    assert seal_waiting(begin, store) == 1  # what the old server left
    write(begin, 4)
    assert seal_all(begin, store) == 1

    found = verify_whole(begin, store)
    assert (found.blocks, found.entries, found.fresh) == (3, 4, 0)


def test_the_application_may_not_change_a_seal(begin, store):
    write(begin, 1)
    seal_all(begin, store)
    for statement in ("UPDATE audit_seal SET entries = 0", "DELETE FROM audit_seal"):
        with pytest.raises(Exception, match="permission denied"), begin() as session:
            session.execute(text(statement))
