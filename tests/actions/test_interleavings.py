"""Two transactions about one kit at once, each order forced on real PostgreSQL (ruling 2; H2, H3, H9).

Whoever came second is seen to wait for the kit's lock; then the first commits. Whatever the order: never an
all clear beside a newer correction, never a text claimed on a decision that no longer stands, no deadlock.
"""

import threading
from contextlib import contextmanager
from random import Random

import pytest
from sqlalchemy import text

from flows.ingest_results import ACTOR
from models.actions.release import expire_holds, review, take_chunk
from models.actions.result import Desk, FileRef
from models.actions.text import claim_texts
from models.actions.text_moves import Toolbox
from models.rules.errors import Code, ServiceError
from models.tables.result import LabFile
from tests.support import build, lab
from tests.support.ingesting import READ_AT, ask, case_of, effects_of, lab_maps, services, take, texts_of
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits, share_an_address
from tests.support.texts import catalogue

EARLIER, LATER = "2026-11-02T09:00", "2026-11-03T09:00"
PATIENCE = 20
WAITS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""
LOCK = "SELECT FROM kit WHERE id = :id FOR UPDATE"


@pytest.fixture
def kit(begin):
    with begin() as session:
        return send_kits(session, 1)[0]


class Work(threading.Thread):
    """One transaction in a thread of its own, which may be held just before its commit."""

    def __init__(self, begin, do, *, held=False):
        super().__init__(daemon=True)
        self.begin, self.do = begin, do
        self.done, self.may_commit = threading.Event(), threading.Event()
        self.result = self.error = None
        if not held:
            self.may_commit.set()
        self.start()

    def run(self):
        try:
            with self.begin() as session:
                self.result = self.do(session)
                self.done.set()
                assert self.may_commit.wait(PATIENCE)
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.error = error
        finally:
            self.done.set()

    def end(self):
        self.may_commit.set()
        self.join(PATIENCE)
        assert not self.is_alive(), "it never ended"
        return self


@contextmanager
def first_then(begin, first, second):
    """`first` has done everything but its commit when `second` begins, and commits when `second` waits for it."""
    one = Work(begin, first, held=True)
    assert one.done.wait(PATIENCE)
    two = Work(begin, second)
    until_somebody_waits(begin)
    one.end()
    two.end()
    yield one, two


def until_somebody_waits(begin):
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if ask(begin, WAITS) != [(0,)]:
            return
        pause.wait(0.01)
    raise AssertionError("nobody waits: the kit was not locked")


def both_orders(begin, works):
    """Runs two pieces of work in the order of the parameter; each must end well."""
    with first_then(begin, *works) as (one, two):
        assert (one.error, two.error) == (None, None)
    return one, two


def storing(begin, rows):
    """A piece of work: one file's rows, stored and decided about."""
    force = services(begin)
    northlab = lab_maps()["NORTHLAB"]
    messages = list(lab.messages(hl7(rows), northlab))
    with begin() as session:
        file = LabFile(
            ref=f"{len(rows):04d}{id(messages):028d}"[:32],
            lab="NORTHLAB",
            object_key=str(id(messages)),
            size_bytes=1,
            arrived_at=READ_AT,
        )
        session.add(file)
        session.flush()
        ref = FileRef(file.id, file.ref, "NORTHLAB", 1)
    desk = Desk(ref, northlab, READ_AT, ACTOR, force, build.indexes(), build.cipher())
    return lambda session: take_chunk(session, messages, desk)


def claiming(begin):
    """A piece of work: the sender's claim of whatever is due."""
    tools = Toolbox(services(begin), build.cipher(), build.indexes(), catalogue().render, "fake")
    return lambda session: claim_texts(
        session, service_id="larkfield", limit=10, now=READ_AT, tools=tools, actor="flow:notify_residents"
    )


def reviewing(begin, kit):
    """A piece of work: a person releases a kit whose comments they read."""
    force = services(begin)["larkfield"]
    return lambda session: review(
        session,
        kit_id=kit.id,
        actor="staff:nurse",
        now=READ_AT,
        service=force.service,
        service_version_id=force.version_id,
        cipher=build.cipher(),
    )


def is_current(begin):
    """Every kit stands decided on its results of now, and no result text rests on a decision before that."""
    stale = """
        SELECT t.id FROM text t JOIN kit k ON k.id = t.kit_id JOIN release_decision d ON d.id = k.current_decision_id
        WHERE t.purpose = 'all_clear' AND t.state = 'owed' AND (t.decision_id <> d.id OR d.kind <> 'all_clear')
    """
    behind = """
        SELECT k.id FROM kit k JOIN release_decision d ON d.id = k.current_decision_id
        WHERE (SELECT count(*) FROM result_series s WHERE s.kit_id = k.id)
           <> (SELECT count(*) FROM jsonb_array_elements(d.inputs) AS i
               JOIN result_series s ON s.current_version_id = (i ->> 2)::bigint AND s.kit_id = k.id)
    """
    return ask(begin, stale) == ask(begin, behind) == []


in_both_orders = pytest.mark.parametrize("turned", [False, True], ids=["as named", "turned round"])


def turn(works, turned):
    return works[::-1] if turned else works


# ── Final and partial ────────────────────────────────────────────────────────────────────────


@in_both_orders
def test_final_and_partial_at_once_end_as_the_final_one_says(begin, kit, turned):
    final = storing(begin, kit.rows(at=LATER, message_id="final"))
    partial = storing(begin, kit.rows(at=EARLIER, message_id="partial", status="P"))

    both_orders(begin, turn([final, partial], turned))

    assert {outcome for (outcome,) in ask(begin, "SELECT outcome FROM result_series")} == {"negative"}
    assert [state for purpose, state in texts_of(begin, kit.id) if purpose == "all_clear"] == ["owed"]
    assert case_of(begin, kit.id) is None
    assert is_current(begin)


@in_both_orders
def test_two_halves_of_a_kit_at_once_make_one_all_clear(begin, kit, turned):
    swabs = storing(begin, kit.rows()[:2])
    bloods = storing(begin, kit.rows()[2:])

    both_orders(begin, turn([swabs, bloods], turned))

    assert [state for purpose, state in texts_of(begin, kit.id) if purpose == "all_clear"] == ["owed"]
    assert is_current(begin)


@in_both_orders
def test_the_same_results_in_two_messages_at_once_are_versions_once(begin, kit, turned):
    works = [storing(begin, kit.rows(message_id=name)) for name in ("one", "two")]

    both_orders(begin, turn(works, turned))

    assert ask(begin, "SELECT (SELECT count(*) FROM result_version), (SELECT count(*) FROM result_repeat)") == [(4, 4)]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


# ── A correction and an all clear ────────────────────────────────────────────────────────────


@in_both_orders
def test_a_correction_beside_the_result_that_completes_the_kit_leaves_no_all_clear(begin, kit, turned):
    take(begin, hl7(kit.rows(at=EARLIER)[:3]))
    completes = storing(begin, kit.rows(at=EARLIER, message_id="two")[3:])
    corrects = storing(begin, kit.rows(at=LATER, message_id="three", status="C", value="DETECTED")[:1])

    both_orders(begin, turn([completes, corrects], turned))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("positive", "correction")]
    assert ("all_clear", "owed") not in texts_of(begin, kit.id)
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert is_current(begin)


@in_both_orders
def test_a_correction_beside_a_persons_release_leaves_no_all_clear(begin, kit, turned):
    chlamydia, *others = kit.rows(at=EARLIER)
    take(begin, hl7([chlamydia._replace(comment="Specimen slightly short."), *others]))
    corrects = storing(begin, kit.rows(at=LATER, message_id="two", status="C", value="DETECTED")[:1])

    with first_then(begin, *turn([reviewing(begin, kit), corrects], turned)) as ended:
        errors = [each.error for each in ended if each.error]

    # Turned round, the comment that was read is of a version that no longer stands: nothing is released.
    assert [error.code for error in errors if isinstance(error, ServiceError)] == [Code.NOT_NOW] * turned
    assert len(errors) == turned
    assert ("all_clear", "owed") not in texts_of(begin, kit.id)
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert is_current(begin)


# ── A correction and a claim ─────────────────────────────────────────────────────────────────


def test_a_correction_that_came_first_leaves_the_sender_nothing_to_claim(begin, kit):
    take(begin, hl7(kit.rows(at=EARLIER)))
    corrects = storing(begin, kit.rows(at=LATER, message_id="two", status="C", value="DETECTED")[:1])

    _, claimed = both_orders(begin, [corrects, claiming(begin)])

    assert claimed.result.claimed == ()
    assert texts_of(begin, kit.id) == [("all_clear", "cancelled"), ("please_expect_our_call", "owed")]
    assert ask(begin, "SELECT count(*) FROM text_attempt") == [(0,)]


def test_a_correction_after_the_claim_knows_that_the_text_may_have_left(begin, kit):
    take(begin, hl7(kit.rows(at=EARLIER)))
    corrects = storing(begin, kit.rows(at=LATER, message_id="two", status="C", value="DETECTED")[:1])

    claimed, _ = both_orders(begin, [claiming(begin), corrects])

    assert len(claimed.result.claimed) == 1
    assert texts_of(begin, kit.id) == [("all_clear", "sending")]
    assert ask(begin, "SELECT reasons FROM release_decision ORDER BY id DESC LIMIT 1") == [(["corrected_after_told"],)]


@in_both_orders
def test_a_row_in_quarantine_beside_a_claim_is_first_or_second_like_a_correction(begin, kit, turned):
    take(begin, hl7(kit.rows(at=EARLIER)))
    doubt = storing(begin, kit.rows(at=LATER, message_id="two", born="1955-05-05")[:1])

    both_orders(begin, turn([doubt, claiming(begin)], turned))

    assert texts_of(begin, kit.id) == [("all_clear", "sending" if turned else "cancelled")]
    assert case_of(begin, kit.id) == ("identity", "clinician")


# ── The end of a wait ────────────────────────────────────────────────────────────────────────


def test_a_wait_that_ends_while_the_last_result_comes_is_left_to_the_result(begin, kit):
    take(begin, hl7(kit.rows(at=EARLIER)[:3]))
    ((until,),) = ask(begin, "SELECT hold_until FROM kit")
    force = services(begin)
    result = Work(begin, storing(begin, kit.rows(at=EARLIER, message_id="two")), held=True)
    assert result.done.wait(PATIENCE)

    def end_waits(session):
        return expire_holds(session, limit=9, now=until, actor=ACTOR, services=force, cipher=build.cipher())

    assert Work(begin, end_waits).end().result == 0  # it does not wait for the kit
    result.end()
    assert Work(begin, end_waits).end().result == 0
    assert case_of(begin, kit.id) is None
    assert ("all_clear", "owed") in texts_of(begin, kit.id)


# ── Many at once ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(6))
def test_files_that_name_the_same_kits_and_messages_in_any_order_never_deadlock(begin, seed):
    chance = Random(seed)
    with begin() as session:
        kits = send_kits(session, 12)
    works = []
    for number in range(4):
        mixed = chance.sample(kits, len(kits))
        same = [row for kit in mixed[:6] for row in kit.rows(at=EARLIER, message_id=f"same-{kit.code}")]
        own = [row for kit in mixed[6:] for row in kit.rows(at=LATER, message_id=f"{number}-{kit.code}")]
        works.append(storing(begin, same + own))
    works.append(claiming(begin))

    running = [Work(begin, work) for work in works]

    assert [each.end().error for each in running] == [None] * len(works)
    assert is_current(begin)
    assert ask(begin, "SELECT kit_id FROM text WHERE purpose = 'all_clear' GROUP BY kit_id HAVING count(*) > 1") == []
    with begin() as session:
        assert session.connection().execute(text("SELECT count(*) FROM result_series")).scalar() == 4 * len(
            ask(begin, "SELECT DISTINCT kit_id FROM result_version")
        )


def test_a_reader_that_needs_a_households_kit_waits_for_it_holding_no_later_one(begin):
    with begin() as session:
        first, later = send_kits(session, 2, seed=2)
    share_an_address(begin, first, later)
    holder = Work(begin, lambda session: session.execute(text(LOCK), {"id": first.id}), held=True)
    assert holder.done.wait(PATIENCE)
    reader = Work(begin, storing(begin, later.rows(born=first.born, family="")))
    until_somebody_waits(begin)

    with begin() as session:
        session.execute(text(f"{LOCK} NOWAIT"), {"id": later.id})

    assert [work.end().error for work in (holder, reader)] == [None, None]
    assert case_of(begin, first.id) == case_of(begin, later.id) == ("identity", "clinician")
