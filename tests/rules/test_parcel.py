"""The packing bench, courier events, reminders and lapses (FEATURES 16, 25-30, 81; sms-and-post.md B1)."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import permutations
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.rules.kit import new_kit_code, new_parcel_code
from models.rules.parcel import (
    MOVED,
    SCAN_RANK,
    Bench,
    BenchVerdict,
    Label,
    ReturnVerdict,
    Scanned,
    due_back_on,
    is_tracking_number,
    judge_return,
    judge_scan,
    lapse_of,
    merge,
    probably_delivered_at,
    read_label,
    reminder_arm,
    reminder_policy,
    reminders,
)
from models.rules.service import PackPolicy, ReminderSplit, ReturnPolicy, TextWindow
from models.rules.vocabulary import ScanKind
from models.rules.working_days import LONDON, is_open, london_day

POLICY = ReturnPolicy()
WINDOW = TextWindow(time(10), time(19), working_days_only=False)
NUMBER = "AB473124829GB"
"""The S10 number of the UPU's own example digits, 47312482 with check digit 9."""

instants = st.datetimes(
    datetime(2026, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2027, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)
events = st.lists(st.sampled_from(ScanKind), max_size=6)
randoms = st.randoms(use_true_random=False)


# ── At the packing bench ─────────────────────────────────────────────────────────────────────


def test_the_universal_postal_unions_own_example_is_a_tracking_number():
    assert is_tracking_number(NUMBER)


@given(st.integers(2, 10), st.sampled_from("0123456789"))
def test_one_wrong_digit_never_makes_another_tracking_number(place, digit):
    wrong = NUMBER[:place] + digit + NUMBER[place + 1 :]

    assert is_tracking_number(wrong) == (wrong == NUMBER)


@pytest.mark.parametrize("text", ["", "473124829", "AB473124829", "AB473124829G", "ÀB473124829GB", "AB47312482²GB"])
def test_what_has_not_the_form_is_no_tracking_number(text):
    assert not is_tracking_number(text)


@given(randoms)
def test_each_label_is_read_as_what_it_is(source):
    kit, parcel = new_kit_code(source.choice), new_parcel_code(source.choice)

    assert read_label(kit.lower()) == Scanned(Label.FORM, kit)
    assert read_label(f" {kit}2\t") == Scanned(Label.TUBE, kit + "2")
    assert read_label(parcel) == Scanned(Label.OUTER, parcel)
    assert read_label("AB 4731 2482 9GB") == Scanned(Label.RETURN, NUMBER)


@pytest.mark.parametrize("text", ["", "hello", "AB473124828GB", "https://example.invalid", "7K3F9XN2PA"])
def test_a_misread_code_is_no_label(text):
    assert read_label(text) is None


def _bench(source, **changes) -> Bench:
    kit = new_kit_code(source.choice)
    return Bench(
        **{
            "kit_code": kit,
            "tubes": frozenset({kit + "1", kit + "2"}),
            "outer_code": new_parcel_code(source.choice),
            "return_number": "",
            "scanned": frozenset(),
            **changes,
        }
    )


def _whole(bench: Bench) -> frozenset[Scanned]:
    return frozenset({*(Scanned(Label.TUBE, tube) for tube in bench.tubes), Scanned(Label.RETURN, NUMBER)})


@given(randoms, st.data())
def test_only_a_whole_and_unblocked_kit_is_dispatched_and_only_by_its_own_outer_label(source, data):
    empty = _bench(source)
    other = _bench(source)
    scanned = data.draw(st.frozensets(st.sampled_from(sorted(_whole(empty), key=str))))
    blocked = data.draw(st.booleans())
    outer = data.draw(st.sampled_from([empty.outer_code, other.outer_code]))
    bench = Bench(empty.kit_code, empty.tubes, empty.outer_code, "", scanned, blocked)

    verdict = judge_scan(bench, Scanned(Label.OUTER, outer))

    whole = scanned == _whole(empty) and not blocked and outer == empty.outer_code
    assert (verdict is BenchVerdict.DISPATCH) == whole


@given(randoms, st.sampled_from([Label.TUBE, Label.OUTER, Label.FORM]))
def test_a_piece_of_another_kit_is_wrong(source, label):
    bench, other = _bench(source), _bench(source)
    assume(other.kit_code != bench.kit_code and other.outer_code != bench.outer_code)
    piece = {Label.TUBE: min(other.tubes), Label.OUTER: other.outer_code, Label.FORM: other.kit_code}[label]

    assert judge_scan(bench, Scanned(label, piece)) is BenchVerdict.WRONG


@given(randoms)
def test_after_a_wrong_piece_nothing_but_the_kits_own_form_goes_on(source):
    bench = _bench(source, blocked=True)

    assert judge_scan(bench, Scanned(Label.TUBE, min(bench.tubes))) is BenchVerdict.BLOCKED
    assert judge_scan(bench, Scanned(Label.FORM, bench.kit_code)) is BenchVerdict.OK


@given(randoms)
def test_a_second_return_label_in_one_parcel_is_wrong(source):
    bench = _bench(source, scanned=frozenset({Scanned(Label.RETURN, NUMBER)}))

    assert judge_scan(bench, Scanned(Label.RETURN, NUMBER)) is BenchVerdict.AGAIN
    assert judge_scan(bench, Scanned(Label.RETURN, "AA000000005GB")) is BenchVerdict.WRONG


@given(randoms)
def test_a_return_label_printed_for_the_kit_is_the_only_right_one(source):
    bench = _bench(source, return_number=NUMBER)

    assert judge_scan(bench, Scanned(Label.RETURN, NUMBER)) is BenchVerdict.OK
    assert judge_scan(bench, Scanned(Label.RETURN, "AA000000005GB")) is BenchVerdict.WRONG


# ── On the way ───────────────────────────────────────────────────────────────────────────────


def _end(kinds) -> ScanKind:
    status = ScanKind.LABELLED
    for kind in kinds:
        status = merge(status, kind)
    return status


@given(events, randoms)
def test_events_in_any_order_and_any_number_end_in_the_same_status(kinds, source):
    muddled = kinds * 2
    source.shuffle(muddled)

    assert _end(muddled) is _end(kinds)


@given(events, st.sampled_from(ScanKind))
def test_a_status_only_moves_forward(kinds, late):
    assert SCAN_RANK[merge(_end(kinds), late)] >= SCAN_RANK[_end(kinds)]


def test_an_unknown_code_moves_nothing():
    assert all(merge(status, ScanKind.UNKNOWN) is status for status in ScanKind)
    assert ScanKind.UNKNOWN not in MOVED


def test_every_kind_has_a_rank_of_its_own():
    assert sorted(SCAN_RANK.values()) == list(range(len(ScanKind)))


def test_a_whole_journey_ends_the_same_in_each_of_its_orders():
    journey = (ScanKind.IN_NETWORK, ScanKind.OUT_FOR_DELIVERY, ScanKind.ATTEMPTED, ScanKind.DELIVERED)

    assert {_end(order) for order in permutations(journey)} == {ScanKind.DELIVERED}


# ── Reminders, in London's hours ─────────────────────────────────────────────────────────────


def _reminders(dispatched_at: datetime, lapses_at: datetime | None = None, policy: ReturnPolicy = POLICY):
    until = lapses_at or lapse_of(london_day(dispatched_at) + timedelta(days=60))
    return reminders(probably_delivered_at(dispatched_at, policy), lapses_at=until, policy=policy, window=WINDOW)


@given(instants)
def test_no_reminder_comes_before_the_kit_probably_arrived_or_outside_the_hours(dispatched_at):
    for reminder in _reminders(dispatched_at):
        assert reminder.due_at > probably_delivered_at(dispatched_at, POLICY)
        assert is_open(reminder.due_at, WINDOW)


@given(instants, st.integers(0, 60))
def test_no_reminder_comes_once_the_kit_has_lapsed(dispatched_at, days):
    lapses_at = dispatched_at + timedelta(days=days)

    assert all(reminder.due_at < lapses_at for reminder in _reminders(dispatched_at, lapses_at))


@given(instants, st.integers(0, 60))
def test_reminders_are_numbered_in_order_and_only_the_last_says_so(dispatched_at, days):
    found = _reminders(dispatched_at, dispatched_at + timedelta(days=days))

    assert [reminder.occurrence for reminder in found] == list(range(1, len(found) + 1))
    assert [reminder.last for reminder in found] == [number == len(found) for number in range(1, len(found) + 1)]
    assert sorted(reminder.due_at for reminder in found) == [reminder.due_at for reminder in found]


@pytest.mark.parametrize(
    ("dispatched_at", "first"),
    [
        (datetime(2026, 3, 20, 12, tzinfo=UTC), datetime(2026, 3, 31, 9, tzinfo=UTC)),  # over the change to summer time
        (datetime(2026, 10, 16, 12, tzinfo=UTC), datetime(2026, 10, 27, 10, tzinfo=UTC)),  # and to winter time
    ],
)
def test_a_reminder_keeps_londons_hour_when_the_clocks_change(dispatched_at, first):
    assert _reminders(dispatched_at)[0].due_at == first
    assert first.astimezone(LONDON).hour == 10


def test_a_kit_dispatched_before_christmas_probably_arrives_after_the_holidays():
    arrives = probably_delivered_at(datetime(2026, 12, 24, 12, tzinfo=UTC), POLICY)

    assert arrives.date() == date(2026, 12, 30)


# ── Lapses and silence ───────────────────────────────────────────────────────────────────────


@given(instants, st.integers(1, 400))
def test_a_kit_is_never_due_back_after_it_expires(dispatched_at, valid_days):
    expires_on = london_day(dispatched_at) + timedelta(days=valid_days)

    due = due_back_on(dispatched_at, expires_on, PackPolicy())

    assert due == min(expires_on, london_day(dispatched_at) + timedelta(days=60))


@given(st.dates(date(2026, 1, 1), date(2027, 12, 31)))
def test_a_kit_lapses_when_its_last_day_has_ended_in_london(day):
    assert london_day(lapse_of(day)) == day + timedelta(days=1)
    assert london_day(lapse_of(day) - timedelta(seconds=1)) == day


def _judge(now: datetime, *, posted: datetime | None = None, scanned: datetime | None = None) -> ReturnVerdict:
    lapses_at = datetime(2026, 11, 24, tzinfo=UTC)
    return judge_return(now=now, lapses_at=lapses_at, posted_back_at=posted, last_scan_at=scanned, policy=POLICY)


@given(instants)
def test_a_kit_that_was_not_posted_back_lapses_at_its_time_and_not_before(now):
    assert (_judge(now) is ReturnVerdict.LAPSE) == (now >= datetime(2026, 11, 24, tzinfo=UTC))


@given(instants, instants)
def test_a_kit_that_was_posted_back_never_lapses(now, posted):
    assert _judge(now, posted=posted) is not ReturnVerdict.LAPSE


def test_a_parcel_that_fell_silent_goes_to_a_person_after_thirty_days():
    posted = datetime(2026, 11, 1, tzinfo=UTC)
    seen = posted + timedelta(days=2)

    assert _judge(seen + timedelta(days=30), posted=posted, scanned=seen) is ReturnVerdict.WAIT
    assert _judge(seen + timedelta(days=30, seconds=1), posted=posted, scanned=seen) is ReturnVerdict.STUCK


# ── Two timings of reminders compared ────────────────────────────────────────────────────────

SPLIT = ReminderSplit("early", (3, 7, 14), percent_b=30)


def test_without_a_comparison_nobody_is_in_an_arm():
    assert reminder_arm("7K3F9XN2PP", None) == ""
    assert reminder_policy("", POLICY) == POLICY


@given(st.integers())
def test_a_kit_stays_in_the_arm_it_was_drawn_into(seed):
    code = new_kit_code(Random(seed).choice)

    assert reminder_arm(code, SPLIT) == reminder_arm(code, SPLIT) in {"early:a", "early:b"}


def test_arms_are_drawn_in_the_proportion_that_the_council_chose_and_anew_for_a_new_comparison():
    chance = Random(1)
    codes = [new_kit_code(chance.choice) for _ in range(4000)]
    drawn = [reminder_arm(code, SPLIT) == "early:b" for code in codes]
    other = [reminder_arm(code, replace(SPLIT, name="late")) == "late:b" for code in codes]

    assert 0.27 < sum(drawn) / len(codes) < 0.33
    assert 0.05 < sum(map(bool.__and__, drawn, other)) / len(codes) < 0.13  # independent: 9 %


def test_only_arm_b_gets_the_other_days():
    policy = ReturnPolicy(split=SPLIT)

    assert reminder_policy("early:b", policy).reminder_days == (3, 7, 14)
    assert reminder_policy("early:a", policy).reminder_days == policy.reminder_days
