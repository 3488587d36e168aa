"""Courier events over HTTP become parcel and kit states, whatever their order (FEATURES 25-29, 81)."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

import pytest
from sqlmodel import Session, select

from app.database import Begin
from flows.track_returns import Tally, follow_parcels
from integrations.ports import Scan
from models.actions.parcel import pair_and_dispatch
from models.rules.kit import KitState
from models.rules.service import ServiceInForce
from models.rules.text import TextPurpose
from models.rules.vocabulary import ScanKind
from models.tables.kit import Kit, KitEvent
from models.tables.parcel import CourierEvent, Direction, Parcel
from models.tables.text import Text, TextState
from tests.support import build, courier, s10

DAY = timedelta(days=1)
SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
BACK_ON = build.NOW + 9 * DAY
JOURNEY = (
    ("EVDAV", BACK_ON),
    ("EVGPD", BACK_ON + DAY),
    ("EVKSP", BACK_ON + DAY + timedelta(hours=4)),
)


@pytest.fixture
def world() -> Iterator[courier.StandIn]:
    with courier.stand_in() as found:
        yield found


def _dispatched(begin: Begin, count: int = 1) -> list[tuple[Kit, str]]:
    """Kits dispatched at build.NOW with all that is owed, and their return numbers."""
    with begin() as session:
        return [(_dispatch(session, number), number) for number in islice(s10.numbers(), count)]


def _dispatch(session: Session, number: str) -> Kit:
    kit = build.printed_kit(session)
    pair_and_dispatch(
        session,
        kit,
        return_number=number,
        service=build.service(),
        now=build.NOW,
        actor="packer:p1",
        cipher=build.cipher(),
    )
    return kit


def _tell(world: courier.StandIn, number: str, journey: Sequence[tuple[str, datetime]]) -> None:
    world.courier.tell(number, [(code, at.isoformat()) for code, at in journey])


def _follow(begin: Begin, world: courier.StandIn, now: datetime, limit: int = 100) -> Tally:
    return follow_parcels(begin, world.tracker(), SERVICES, clock=lambda: now, cipher=build.cipher(), limit=limit)


def _states(begin: Begin) -> list[KitState]:
    with begin() as session:
        return list(session.exec(select(Kit.state)))


def _texts(begin: Begin, purpose: TextPurpose) -> set[TextState]:
    with begin() as session:
        return set(session.exec(select(Text.state).where(Text.purpose == purpose)))


def test_doubled_and_muddled_events_bring_the_kit_back_once_and_stop_its_reminders(begin, world):
    [(kit, number)] = _dispatched(begin)
    _tell(world, number, JOURNEY)

    tally = _follow(begin, world, BACK_ON + 2 * DAY)

    assert tally == Tally(asked=1, events=len(JOURNEY))
    with begin() as session:
        stored = session.get_one(Kit, kit.id)
        kinds = session.exec(select(KitEvent.kind).where(KitEvent.kit_id == kit.id)).all()
    assert (stored.state, stored.posted_back_at, stored.received_at) == (KitState.COMING_BACK, BACK_ON, None)
    assert kinds.count("kit.coming_back") == 1
    assert _texts(begin, TextPurpose.RETURN_REMINDER) == {TextState.CANCELLED}


def test_events_that_arrive_one_by_one_and_backwards_end_as_when_they_come_at_once(begin, world):
    _dispatched(begin, 2)
    late, at_once = islice(s10.numbers(), 2)
    _tell(world, at_once, JOURNEY)
    for place, event in enumerate(reversed(JOURNEY)):
        _tell(world, late, [event])
        _follow(begin, world, BACK_ON + (2 + place) * DAY)

    with begin() as session:
        rows = session.exec(
            select(Kit.state, Kit.posted_back_at, Parcel.status, Parcel.first_scan_at)
            .join(Parcel)
            .where(Parcel.direction == Direction.BACK)
        ).all()
    # A delivered parcel is asked about no more, so the earlier scans of the late one never come.
    [one, other] = sorted(rows, key=lambda row: row[1], reverse=True)
    assert (one[0], one[2]) == (other[0], other[2]) == (KitState.COMING_BACK, ScanKind.DELIVERED)


def test_a_run_that_is_repeated_asks_and_changes_nothing(begin, world):
    [(_, number)] = _dispatched(begin)
    _tell(world, number, JOURNEY[:1])
    _follow(begin, world, BACK_ON + DAY)
    asked = len(world.courier.calls)

    assert _follow(begin, world, BACK_ON + DAY) == Tally()
    assert len(world.courier.calls) == asked


def test_an_hour_later_it_asks_again_and_the_same_events_are_not_new(begin, world):
    [(_, number)] = _dispatched(begin)
    _tell(world, number, JOURNEY[:1])
    _follow(begin, world, BACK_ON + DAY)

    assert _follow(begin, world, BACK_ON + DAY + timedelta(hours=2)) == Tally(asked=1, events=0)
    with begin() as session:
        assert len(session.exec(select(CourierEvent)).all()) == 1


def test_many_parcels_are_asked_about_thirty_at_a_time(begin, world):
    _dispatched(begin, 31)

    assert _follow(begin, world, build.NOW + DAY).asked == 31
    assert world.courier.calls == ["summary", "summary"]


def test_a_run_asks_about_no_more_than_its_limit_and_the_next_one_goes_on(begin, world):
    _dispatched(begin, 3)

    asked = [_follow(begin, world, build.NOW + DAY, limit=2).asked for _ in range(3)]

    assert asked == [2, 1, 0]


def test_a_courier_that_goes_down_half_way_leaves_what_was_asked_and_the_next_run_asks_the_rest(begin, world):
    _dispatched(begin, 31)
    tracker = world.tracker()

    class HalfWay:
        """Up for one question."""

        def scans(self, tracking_numbers: Sequence[str]) -> Sequence[Scan]:
            if world.courier.calls:
                world.courier.failures.append(503)
            return tracker.scans(tracking_numbers)

    now = build.NOW + DAY
    tally = follow_parcels(begin, HalfWay(), SERVICES, clock=lambda: now, cipher=build.cipher(), limit=100)

    assert (tally.asked, tally.courier_down) == (30, "503")
    assert _follow(begin, world, now) == Tally(asked=1)


def test_no_kit_lapses_while_the_courier_cannot_be_asked(begin, world):
    _dispatched(begin)
    world.courier.failures += [503]

    tally = _follow(begin, world, build.NOW + 100 * DAY)

    assert (tally.lapsed, tally.courier_down) == (0, "503")
    assert _states(begin) == [KitState.DISPATCHED]


def test_a_kit_that_never_comes_back_lapses_once_its_parcel_was_asked_about(begin, world):
    _dispatched(begin)

    assert _follow(begin, world, build.NOW + 59 * DAY).lapsed == 0
    assert _follow(begin, world, build.NOW + 61 * DAY) == Tally(asked=1, lapsed=1)
    assert _follow(begin, world, build.NOW + 62 * DAY).lapsed == 0
    assert _states(begin) == [KitState.LAPSED]
    assert _texts(begin, TextPurpose.KIT_LAPSED) == {TextState.OWED}


def test_a_kit_posted_on_its_last_day_and_seen_in_the_same_run_does_not_lapse(begin, world):
    [(_, number)] = _dispatched(begin)
    _tell(world, number, [("EVDAV", build.NOW + 60 * DAY)])

    assert _follow(begin, world, build.NOW + 61 * DAY).lapsed == 0
    assert _states(begin) == [KitState.COMING_BACK]


def test_a_lapsed_kit_is_asked_about_until_it_expires(begin, world):
    [(_, number)] = _dispatched(begin)
    _follow(begin, world, build.NOW + 61 * DAY)
    _tell(world, number, [("EVDAV", build.NOW + 70 * DAY)])

    _follow(begin, world, build.NOW + 71 * DAY)

    assert _states(begin) == [KitState.COMING_BACK]


def test_a_parcel_that_falls_silent_reaches_a_person_once(begin, world):
    [(_, number)] = _dispatched(begin)
    _tell(world, number, JOURNEY[:1])
    _follow(begin, world, BACK_ON + DAY)

    assert _follow(begin, world, BACK_ON + 29 * DAY).stuck == 0
    assert _follow(begin, world, BACK_ON + 31 * DAY).stuck == 1
    assert _follow(begin, world, BACK_ON + 32 * DAY).stuck == 0


def test_no_transaction_is_open_while_the_courier_is_asked(begin, engine, world):
    _dispatched(begin)
    tracker = world.tracker()
    in_use = []

    class Watching:
        """Looks at the pool whenever it is asked."""

        def scans(self, tracking_numbers: Sequence[str]) -> Sequence[Scan]:
            in_use.append(engine.pool.checkedout())
            return tracker.scans(tracking_numbers)

    follow_parcels(begin, Watching(), SERVICES, clock=lambda: build.NOW + DAY, cipher=build.cipher(), limit=10)

    assert in_use == [0]
