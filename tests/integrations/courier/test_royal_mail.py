"""Royal Mail's Tracking API, spoken to its stand-in over HTTP (sms-and-post.md B1)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import pytest

from app.demo.courier import CLIENT_ID, CLIENT_SECRET
from integrations.courier.royal_mail import KIND_OF, RoyalMailTracker
from integrations.ports import NotSent, Scan, ScanKind
from tests.support import courier, s10

AT = "2026-11-24T10:00:00+00:00"
MOMENT = datetime(2026, 11, 24, 10, tzinfo=UTC)
NUMBER = next(s10.numbers())


@pytest.fixture
def world() -> Iterator[courier.StandIn]:
    with courier.stand_in() as found:
        yield found


def test_every_event_of_a_parcel_is_told_in_our_words(world):
    world.courier.tell(NUMBER, [("EVDAV", AT), ("EVKSP", "2026-11-25T11:30:00+00:00")])

    found = set(world.tracker().scans([NUMBER]))

    assert found == {
        Scan(NUMBER, ScanKind.IN_NETWORK, "EVDAV", MOMENT),
        Scan(NUMBER, ScanKind.DELIVERED, "EVKSP", datetime(2026, 11, 25, 11, 30, tzinfo=UTC)),
    }


def test_an_event_in_summer_time_is_told_in_utc(world):
    world.courier.tell(NUMBER, [("EVDAV", "2026-07-01T10:00:00+01:00")])

    assert {scan.occurred_at for scan in world.tracker().scans([NUMBER])} == {datetime(2026, 7, 1, 9, tzinfo=UTC)}


def test_a_code_that_is_not_in_the_table_is_unknown_and_kept_as_it_is(world):
    world.courier.tell(NUMBER, [("EVXYZ", AT)])

    assert set(world.tracker().scans([NUMBER])) == {Scan(NUMBER, ScanKind.UNKNOWN, "EVXYZ", MOMENT)}


def test_a_number_that_the_courier_has_not_seen_has_no_events_and_costs_no_second_call(world):
    assert world.tracker().scans([NUMBER]) == []
    assert world.courier.calls == ["summary"]


def test_a_parcel_whose_label_was_only_made_is_not_asked_about_further(world):
    world.courier.tell(NUMBER, [("EVAIE", AT)])

    assert world.tracker().scans([NUMBER]) == []
    assert world.courier.calls == ["summary"]


def test_thirty_numbers_go_in_one_summary(world):
    numbers = list(islice(s10.numbers(), 30))
    world.courier.tell(numbers[7], [("EVDAV", AT)])

    assert {scan.tracking_number for scan in world.tracker().scans(numbers)} == {numbers[7]}
    assert world.courier.calls == ["summary", numbers[7]]


def test_more_than_thirty_numbers_are_refused_here(world):
    with pytest.raises(ValueError, match="at most 30"):
        world.tracker().scans(list(islice(s10.numbers(), 31)))


def test_a_courier_that_is_busy_says_when_to_come_again(world):
    world.courier.failures.append(429)

    with pytest.raises(NotSent) as busy:
        world.tracker().scans([NUMBER])

    assert (busy.value.code, busy.value.retry_after_seconds, busy.value.alarm) == ("429", 7, False)


def test_a_courier_that_is_down_can_be_asked_later(world):
    world.courier.failures.append(503)

    with pytest.raises(NotSent) as down:
        world.tracker().scans([NUMBER])

    assert (down.value.code, down.value.alarm) == ("503", False)


def test_wrong_credentials_raise_an_alarm(world):
    with pytest.raises(NotSent) as refused:
        world.tracker(secret="wrong").scans([NUMBER])

    assert (refused.value.code, refused.value.alarm) == ("401", True)


def test_an_address_where_no_courier_answers_raises_an_alarm_and_does_not_make_parcels_unseen(world):
    elsewhere = RoyalMailTracker(world.url.removesuffix("/mailpieces/v2"), CLIENT_ID, CLIENT_SECRET)

    with pytest.raises(NotSent) as refused:
        elsewhere.scans([NUMBER])

    assert (refused.value.code, refused.value.alarm) == ("404", True)


def test_a_courier_that_does_not_answer_can_be_asked_later():
    tracker = RoyalMailTracker("http://127.0.0.1:9/mailpieces/v2", "id", "secret")

    with pytest.raises(NotSent) as silent:
        tracker.scans([NUMBER])

    assert silent.value.code == "ConnectError"


@pytest.mark.parametrize("event", [("EVDAV", "yesterday"), ("EVDAV", "2026-11-24T10:00:00")])
def test_an_event_without_a_clear_time_is_no_answer(world, event):
    world.courier.journeys[NUMBER] = [event]

    with pytest.raises(NotSent) as unreadable:
        world.tracker().scans([NUMBER])

    assert (unreadable.value.code, unreadable.value.alarm) == ("unreadable", True)


def test_the_stand_in_doubles_and_muddles_what_it_was_told(world):
    world.courier.tell(NUMBER, [("EVDAV", AT), ("EVGPD", "2026-11-25T08:00:00+00:00")])

    found = world.tracker().scans([NUMBER])

    assert len(found) > len(set(found))
    assert [scan.occurred_at for scan in found] != sorted(scan.occurred_at for scan in found)


def test_each_code_has_one_meaning_and_each_meaning_but_unknown_a_code():
    assert len(KIND_OF) == 33
    assert set(KIND_OF.values()) == set(ScanKind) - {ScanKind.UNKNOWN}
