"""Kits that are fetched at a counter, from dispatch to the last word (laws 1, 7, 10). Everybody is invented."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import col, select

from models.actions.balance import strike_balance
from models.actions.collection import (
    at_counter,
    book_in,
    counters,
    end_uncollected,
    find_parcel,
    hand_over,
    new_code,
    report_missing,
)
from models.actions.kit import cancel_kit
from models.actions.parcel import CourierScan, lapse_unreturned, pair_and_dispatch, scan_returned, take_scans
from models.actions.replacement import replace_kit
from models.actions.stock import recall_lot, receive_lot
from models.rules.collection import (
    COLLECTION_MOVES,
    CollectionState,
    new_collection_code,
    read_collection_code,
    show_collection_code,
)
from models.rules.errors import Code, ServiceError
from models.rules.kit import ALPHABET, KitState
from models.rules.service import CollectionPoint, CollectionPolicy, ServiceInForce
from models.rules.stock import Recipe
from models.rules.text import KitReady, PlaceName, TextPurpose, read_values
from models.rules.vocabulary import ScanKind
from models.rules.working_days import london_day
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase
from models.tables.collection import Collection
from models.tables.kit import Kit, KitEvent
from models.tables.parcel import Direction, Parcel
from models.tables.stock import KitPart, StockLot
from models.tables.text import Text, TextState
from tests.support import build, s10

MARKET = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market Street",), "LS1 4AP", "22 Market Street")
HARBOUR = CollectionPoint("harbour", "Harbour House", ("3 Harbour Lane",), "LS1 4AP", "Harbour House")
COUNCIL = build.service(
    collection=CollectionPolicy(points=(MARKET, HARBOUR)), recipes=(Recipe("northlab", {"lancet": 3}),)
)
SERVICES = {"larkfield": ServiceInForce(COUNCIL, 1)}
PACKER, CORA = "packer:p1", "staff:cora"
DAY = timedelta(days=1)
ARRIVED = build.NOW + 2 * DAY
OVER = ARRIVED + 43 * DAY
DISPATCHED_TO_A_COUNTER = london_day(build.NOW) + (10 + 42 + 60) * DAY
"""Ten days to get there, six weeks to wait, sixty days to post it back."""
numbers = s10.numbers("KP")


class Counter:
    """One kit on its way over a counter, and the hands that move it."""

    def __init__(self, begin, **contact):
        self.begin = begin
        with begin() as session:
            person = build.person(session)
            to = build.contact(session, person, collection_point="market", **contact)
            kit = build.printed_kit(session, of=person, to=to)
            self.kit_id, self.kit = kit.id, kit.code
            receive_lot(
                session, service=COUNCIL, component="lancet", lot="L1", pieces=10,
                expires_on=london_day(build.NOW) + 900 * DAY, now=build.NOW, actor=PACKER,
            )  # fmt: skip
            lot = session.exec(select(StockLot).order_by(col(StockLot.id).desc())).first()
            lot.on_hand -= 3
            session.add(KitPart(kit_id=kit.id, lot_id=lot.id, pieces=3))
            pair_and_dispatch(
                session, kit, return_number=next(numbers), service=COUNCIL, now=build.NOW, actor=PACKER,
                cipher=build.cipher(),
            )  # fmt: skip
            out = select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
            self.parcel = session.exec(out).one()

    def arrive(self, now=ARRIVED, point="market", parcel=None):
        with self.begin() as session:
            return book_in(
                session, parcel or self.parcel, point=point, services=SERVICES, now=now, actor=CORA,
                cipher=build.cipher(), indexes=build.indexes(),
            )  # fmt: skip

    def ask(self, code, now=ARRIVED + DAY):
        with self.begin() as session:
            return find_parcel(session, code, services=SERVICES, now=now, actor=CORA, indexes=build.indexes())

    def fetch(self, code=None, parcel=None, now=ARRIVED + DAY):
        with self.begin() as session:
            return hand_over(
                session, code or self.code(), parcel or self.parcel, services=SERVICES, now=now, actor=CORA,
                cipher=build.cipher(), indexes=build.indexes(),
            )  # fmt: skip

    def renew(self, now=ARRIVED + DAY):
        with self.begin() as session:
            return new_code(
                session, self.kit, services=SERVICES, now=now, actor=PACKER, cipher=build.cipher(),
                indexes=build.indexes(),
            )  # fmt: skip

    def end_waits(self, now=OVER):
        with self.begin() as session:
            return end_uncollected(session, services=SERVICES, now=now, limit=10, actor="flow:t")

    def come_back(self, now=OVER + 3 * DAY):
        with self.begin() as session:
            return scan_returned(session, self.parcel, services=SERVICES, now=now, actor=PACKER)

    def cancel(self, now=ARRIVED):
        with self.begin() as session:
            cancel_kit(session, session.get_one(Kit, self.kit_id), now=now, actor="staff:a", reason="asked")

    def texts(self, state=TextState.OWED):
        with self.begin() as session:
            rows = session.exec(
                select(Text).where(Text.kit_id == self.kit_id, Text.state == state).order_by(Text.not_before, Text.id)
            ).all()
            return [
                (row, read_values(row.purpose, build.cipher().decrypt("text", "values", row.ref, row.values)))
                for row in rows
            ]

    def code(self):
        return next(says.code for _, says in self.texts() if isinstance(says, KitReady))

    def look(self):
        """States of the way and of the kit, pieces in the kit and in the lot."""
        with self.begin() as session:
            row = session.exec(select(Collection).where(Collection.kit_id == self.kit_id)).one()
            part, lot = session.exec(
                select(KitPart, StockLot).join(StockLot, col(StockLot.id) == col(KitPart.lot_id)).where(
                    KitPart.kit_id == self.kit_id
                )
            ).one()  # fmt: skip
            return row.state, session.get_one(Kit, self.kit_id).state, part.pieces, lot.on_hand

    def cases(self):
        with self.begin() as session:
            return {case.detail["why"]: case for case in session.exec(select(ClinicCase))}


def unbalanced(counter):
    """What the balance says of kits at counters; these tests' orders were never decided, which it says too."""
    with counter.begin() as session:
        found = strike_balance(session, now=OVER).differences
    return [each.ids for each in found if each.check == "kit_at_counter"]


@pytest.fixture
def counter(begin):
    return Counter(begin)


# ── Codes ────────────────────────────────────────────────────────────────────────────────────


def code_of(letters):
    left = iter(letters)
    return new_collection_code(lambda _: next(left))


codes = st.lists(st.sampled_from(ALPHABET), min_size=5, max_size=5).map(code_of)


@given(codes)
def test_a_code_is_read_back_however_it_is_written(code):
    assert read_collection_code(show_collection_code(code).lower()) == code


@given(codes, st.integers(0, 5), st.sampled_from(ALPHABET))
def test_no_single_mistake_makes_another_code(code, place, letter):
    mistaken = code[:place] + letter + code[place + 1 :]
    assert mistaken == code or read_collection_code(mistaken) is None


@given(codes, st.integers(0, 4))
def test_no_swap_of_neighbours_makes_another_code(code, place):
    swapped = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
    assert swapped == code or read_collection_code(swapped) is None


# ── The way over the counter ─────────────────────────────────────────────────────────────────


def test_nothing_is_texted_until_the_parcel_waits_and_then_its_code(counter):
    assert counter.texts() == []

    assert counter.arrive().fine

    said = [says for _, says in counter.texts()]
    until = london_day(ARRIVED) + 42 * DAY
    assert said == [KitReady(PlaceName("22 Market Street"), said[0].code, until)] * 3
    assert [london_day(row.not_before) for row, _ in counter.texts()] == [
        london_day(ARRIVED + days * DAY) for days in (0, 7, 28)
    ]
    assert counter.look()[:2] == (CollectionState.WAITING, KitState.DISPATCHED)


def test_the_code_fetches_the_parcel_and_its_person_has_as_long_as_anybody_to_post_it_back(counter):
    counter.arrive()
    code = counter.code()

    asked = counter.ask(code)
    assert (asked.fine, asked.parcel) == (True, counter.parcel)
    assert counter.fetch(code).fine

    with counter.begin() as session:
        assert session.get_one(Kit, counter.kit_id).due_back_on == london_day(ARRIVED + DAY) + 60 * DAY
    assert {row.purpose for row, _ in counter.texts()} == {TextPurpose.RETURN_REMINDER}
    assert [london_day(row.not_before) for row, _ in counter.texts()] == [
        london_day(ARRIVED + (1 + days) * DAY) for days in (7, 15, 30)
    ]
    assert [row.purpose for row, _ in counter.texts(TextState.CANCELLED)] == [TextPurpose.KIT_READY] * 3


def test_a_code_never_hands_over_another_parcel(begin, counter):
    other = Counter(begin)
    counter.arrive()
    other.arrive()

    told = counter.fetch(counter.code(), other.parcel)

    assert (told.fine, told.parcel) == (False, counter.parcel)
    assert "STOP" in told.sentence
    assert [each.look()[0] for each in (counter, other)] == [CollectionState.WAITING] * 2
    assert not counter.fetch(counter.code(), "no label").fine


def test_a_code_that_fetches_nothing_is_taken_down(counter):
    counter.arrive()
    wrong = next(code for code in map("".join, itertools.product(ALPHABET, repeat=6)) if read_collection_code(code))
    assert wrong != counter.code()

    for code in (wrong, "not a code", ""):
        assert not counter.ask(code).fine

    with counter.begin() as session:
        assert len(session.exec(select(Audit).where(Audit.action == "collection.code_unknown")).all()) == 3


def test_every_step_twice_is_every_step_once(counter):
    assert counter.arrive().fine
    assert counter.arrive().fine
    code = counter.code()
    assert counter.fetch(code).fine
    assert not counter.fetch(code).fine, "its code is worth nothing any more"
    assert len(counter.texts()) == 3
    with counter.begin() as session:
        kinds = session.exec(select(KitEvent.kind).where(col(KitEvent.kind).startswith("collection."))).all()
    assert sorted(kinds) == ["collection.collected", "collection.waiting"]


def test_a_parcel_at_the_wrong_counter_is_kept_apart_and_its_person_is_not_sent_there(counter):
    told = counter.arrive(point="harbour")

    assert not told.fine
    assert "Larkfield Pharmacy" in told.sentence
    assert counter.texts() == []


def test_a_tube_or_a_parcel_of_nobody_is_not_booked_in(begin, counter):
    with begin() as session:
        home = build.dispatched_kit(session)
        out = select(Parcel.code).where(Parcel.kit_id == home.id, Parcel.direction == Direction.OUT)
        to_somebodys_home = session.exec(out).one()
    for code in (to_somebodys_home, "23456789CDFH", counter.kit, "?"):
        assert not counter.arrive(parcel=code).fine


def test_another_code_makes_the_first_worthless_and_goes_by_text(counter):
    counter.arrive()
    first = counter.code()

    assert counter.renew() == "", "it was texted, so nobody reads it"

    second = counter.code()
    assert second != first
    assert not counter.ask(first).fine
    assert counter.ask(second).fine
    assert {says.code for _, says in counter.texts()} == {second}


def test_whoever_gets_no_texts_is_a_case_and_their_code_is_read_out(begin):
    counter = Counter(begin, text_consent=False)
    counter.arrive()
    assert counter.texts() == []
    assert counter.cases()["code_not_texted"].due_at

    said = counter.renew()

    assert counter.fetch(said).fine


def test_a_code_is_for_a_kit_that_waits(counter):
    with pytest.raises(ServiceError) as told:
        counter.renew()
    assert told.value.code is Code.CONFLICT


# ── Its time, and its way back ───────────────────────────────────────────────────────────────


def test_a_kit_lapses_neither_on_its_way_nor_while_it_waits(counter):
    with counter.begin() as session:
        last_day = session.get_one(Kit, counter.kit_id).due_back_on
        dispatched = session.exec(select(KitEvent).where(KitEvent.kind == "kit.dispatched")).one()
    assert (last_day, dispatched.detail["due_back_on"]) == (DISPATCHED_TO_A_COUNTER, f"{DISPATCHED_TO_A_COUNTER}")

    arrived = build.NOW + 70 * DAY
    _lapse(counter, arrived)
    assert counter.arrive(now=arrived).fine

    last_day = arrived + 42 * DAY
    with counter.begin() as session:
        assert session.get_one(Kit, counter.kit_id).due_back_on == london_day(last_day) + 60 * DAY
    _lapse(counter, last_day)
    assert counter.fetch(now=last_day).fine


def test_a_kit_that_expired_while_it_waited_is_not_handed_out(counter):
    counter.arrive()
    with counter.begin() as session:
        kit = session.get_one(Kit, counter.kit_id)
        kit.expires_on = kit.due_back_on = london_day(ARRIVED + 5 * DAY)
        session.add(kit)

    assert counter.ask(counter.code(), now=ARRIVED + 5 * DAY).fine, "its last day counts"
    assert "send it back to us unopened" in counter.fetch(now=ARRIVED + 6 * DAY).sentence
    _lapse(counter, ARRIVED + 6 * DAY)
    assert counter.look()[1] is KitState.LAPSED, "and its person is told"


def test_what_nobody_fetched_ends_goes_back_and_its_parts_are_stock_again(counter):
    counter.arrive()
    code = counter.code()
    assert counter.end_waits(now=OVER - DAY) == 0, "the last day counts in full"
    assert counter.fetch(code, now=OVER).sentence.startswith("Its time is over")

    assert counter.end_waits() == 1
    assert counter.end_waits() == 0

    assert counter.look()[:2] == (CollectionState.NOT_COLLECTED, KitState.LAPSED)
    assert counter.texts() == []
    with counter.begin() as session:
        [there] = at_counter(session, service_id="larkfield", point="market")
        assert there.goes_back
        assert session.get_one(Kit, counter.kit_id).closed_reason == "not_collected"
    assert counter.come_back().fine
    assert counter.look() == (CollectionState.BACK, KitState.LAPSED, 0, 10)
    counter.come_back()
    assert counter.look()[2:] == (0, 10), "a second scan puts nothing into stock"
    with counter.begin() as session:
        assert counters(session, service_ids=["larkfield"]) == {}
    assert unbalanced(counter) == []


def test_a_kit_that_is_cancelled_or_replaced_while_it_waits_goes_back(begin):
    for end in ("cancel", "replace"):
        counter = Counter(begin)
        counter.arrive()
        code = counter.code()
        if end == "cancel":
            counter.cancel()
        else:
            with begin() as session:
                replace_kit(
                    session, counter.kit, because="lost", services=SERVICES, now=ARRIVED, actor=PACKER,
                    cipher=build.cipher(), indexes=build.indexes(),
                )  # fmt: skip
        told = counter.ask(code)
        assert not told.fine
        assert "send it back" in told.sentence
        assert not counter.fetch(code).fine
        assert counter.texts() == []
        assert counter.come_back().fine
        assert counter.look()[0] is CollectionState.BACK
        assert counter.look()[2] == 0


def test_a_kit_that_was_cancelled_on_its_way_to_the_counter_is_never_offered(counter):
    counter.cancel()

    assert not counter.arrive().fine

    assert counter.texts() == []
    assert counter.look()[0] is CollectionState.NOT_COLLECTED


def test_a_box_that_a_counter_sends_back_too_soon_is_a_case(counter):
    counter.arrive()
    counter.come_back(now=ARRIVED + DAY)

    assert counter.look()[:2] == (CollectionState.BACK, KitState.RETURNED_TO_SENDER)
    assert "returned_to_sender" in counter.cases()
    assert counter.texts() == []


def test_a_recalled_kit_is_not_handed_over(counter):
    counter.arrive()
    with counter.begin() as session:
        recall_lot(session, service=COUNCIL, component="lancet", lot="L1", because="maker", now=ARRIVED, actor=PACKER)

    assert not counter.ask(counter.code()).fine
    assert not counter.fetch().fine
    assert counter.look()[0] is CollectionState.WAITING


def test_a_kit_in_the_stead_of_one_at_a_counter_goes_to_the_same_counter(begin, counter):
    counter.arrive()
    with begin() as session:
        made = replace_kit(
            session, counter.kit, because="lost", services=SERVICES, now=ARRIVED, actor=PACKER,
            cipher=build.cipher(), indexes=build.indexes(),
        )  # fmt: skip
        made.expires_on = london_day(ARRIVED) + 300 * DAY
        session.flush()
        batch = build.printed_kit(session).batch_id
        made.batch_id, made.state = batch, KitState.PRINTED
        session.flush()
        pair_and_dispatch(
            session, made, return_number=next(numbers), service=COUNCIL, now=ARRIVED, actor=PACKER,
            cipher=build.cipher(),
        )  # fmt: skip
        rows = session.exec(select(Collection).order_by(col(Collection.id))).all()
        assert [(row.kit_id, row.point, row.state) for row in rows] == [
            (counter.kit_id, "market", CollectionState.WAITING),
            (made.id, "market", CollectionState.ON_THE_WAY),
        ]


@pytest.mark.parametrize(("days", "why"), [(10, None), (11, "not_at_counter")])
def test_a_parcel_that_never_came_to_its_counter_is_a_case_once(counter, days, why):
    for _ in range(2):
        with counter.begin() as session:
            report_missing(session, service=COUNCIL, now=build.NOW + days * DAY, limit=10, actor="flow:t")
    assert list(counter.cases()) == ([why] if why else [])


@pytest.mark.parametrize(("days", "why"), [(20, None), (22, "not_back_from_counter")])
def test_a_parcel_that_never_came_back_from_its_counter_is_a_case(counter, days, why):
    counter.arrive()
    counter.end_waits()
    with counter.begin() as session:
        report_missing(session, service=COUNCIL, now=OVER + days * DAY, limit=10, actor="flow:t")
    assert list(counter.cases()) == ([why] if why else [])


def test_the_balance_sees_a_kit_that_no_counter_knows_of_and_a_person_who_was_sent_no_code(begin):
    counter = Counter(begin)
    counter.arrive()
    assert unbalanced(counter) == []
    with begin() as session:
        for text in session.exec(select(Text)):
            text.purpose = TextPurpose.KIT_POSTED
    assert unbalanced(counter) == [(counter.kit,)]


# ── Whatever happens, in any order ───────────────────────────────────────────────────────────


def _courier(counter, direction, kind, at):
    with counter.begin() as session:
        parcel = session.exec(
            select(Parcel.id).where(Parcel.kit_id == counter.kit_id, Parcel.direction == direction)
        ).one()
        scan = CourierScan(parcel, kind, kind[:20], at)
        take_scans(session, [parcel], [scan], services=SERVICES, now=at, actor="flow:t")


def _try_fetch(counter, at):
    owed = [says.code for _, says in counter.texts() if isinstance(says, KitReady)]
    counter.fetch(owed[0] if owed else "22222 2", now=at)


def _try_cancel(counter, at):
    with counter.begin() as session:
        kit = session.get_one(Kit, counter.kit_id)
        if kit.state is KitState.DISPATCHED:
            cancel_kit(session, kit, now=at, actor="staff:a", reason="asked")


def _lapse(counter, at):
    """Ends what was not sent back, all that couriers know being known."""
    with counter.begin() as session:
        for parcel in session.exec(select(Parcel).where(Parcel.kit_id == counter.kit_id)):
            parcel.polled_at = at
            session.add(parcel)
        lapse_unreturned(session, services=SERVICES, now=at, limit=9, actor="flow:t", cipher=build.cipher())


STEPS = {
    "arrives": lambda counter, at: counter.arrive(now=at),
    "fetched": _try_fetch,
    "wait over": lambda counter, at: counter.end_waits(now=at),
    "lapse": _lapse,
    "cancelled": _try_cancel,
    "box back": lambda counter, at: counter.come_back(now=at),
    "courier delivered": lambda counter, at: _courier(counter, Direction.OUT, ScanKind.DELIVERED, at),
    "courier gave up": lambda counter, at: _courier(counter, Direction.OUT, ScanKind.RETURNED_TO_SENDER, at),
    "sample posted": lambda counter, at: _courier(counter, Direction.BACK, ScanKind.IN_NETWORK, at),
}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20)), max_size=12))
def test_no_order_of_events_hands_out_what_is_void_or_makes_stock_of_what_left_or_loses_a_kit(begin, steps):
    counter = Counter(begin)
    at, was = ARRIVED, CollectionState.ON_THE_WAY
    for step, days in steps:
        at += days * DAY
        before = counter.look()
        STEPS[step](counter, at)
        state, kit, pieces, _ = counter.look()
        assert (
            state is was
            or state in COLLECTION_MOVES[was]
            or state in {later for each in COLLECTION_MOVES[was] for later in COLLECTION_MOVES[each]}
        ), (step, was, state)
        if state is CollectionState.COLLECTED and was is not state:
            assert before[1] is KitState.DISPATCHED
        assert (pieces == 0) == (state is CollectionState.BACK)
        ready = [row for row, says in counter.texts() if isinstance(says, KitReady)]
        assert not ready or (state is CollectionState.WAITING and kit is KitState.DISPATCHED), (step, state, kit)
        was = state
    assert unbalanced(counter) == []
