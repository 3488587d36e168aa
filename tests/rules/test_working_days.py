from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.rules.service import TextPolicy, TextWindow
from models.rules.working_days import (
    LONDON,
    add_working_days,
    add_working_hours,
    is_open,
    is_working_day,
    london_day,
    next_opening,
)

NINE, FIVE = time(9), time(17)
RESULTS = TextPolicy().result_window
ROUTINE = TextPolicy().routine_window

days = st.dates(date(2024, 1, 1), date(2032, 12, 31))
instants = st.integers(0, 8 * 366 * 24 * 60 * 60).map(lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
windows = st.sampled_from([RESULTS, ROUTINE, TextPolicy().reminder_window])


def london(*parts):
    return datetime(*parts, tzinfo=LONDON)


@pytest.mark.parametrize(
    "holiday",
    [
        date(2026, 1, 1),
        date(2026, 4, 3),
        date(2026, 4, 6),
        date(2026, 5, 4),
        date(2026, 5, 25),
        date(2026, 8, 31),
        date(2026, 12, 25),
        date(2026, 12, 28),
        date(2022, 9, 19),
        date(2023, 5, 8),
    ],
)
def test_englands_bank_holidays_are_no_working_days(holiday):
    assert not is_working_day(holiday)


@pytest.mark.parametrize("scottish", [date(2026, 1, 2), date(2026, 8, 3), date(2026, 11, 30), date(2026, 3, 17)])
def test_other_nations_holidays_are_working_days_in_england(scottish):
    assert is_working_day(scottish)


def test_a_holiday_announced_late_can_be_passed_in():
    assert is_working_day(date(2026, 6, 15))
    assert not is_working_day(date(2026, 6, 15), {date(2026, 6, 15)})
    assert add_working_days(date(2026, 6, 12), 1, {date(2026, 6, 15)}) == date(2026, 6, 16)


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        (date(2026, 11, 24), 1, date(2026, 11, 25)),
        (date(2026, 11, 27), 1, date(2026, 11, 30)),
        (date(2026, 11, 28), 1, date(2026, 11, 30)),
        (date(2026, 11, 28), 0, date(2026, 11, 30)),
        (date(2026, 11, 27), 0, date(2026, 11, 27)),
        (date(2026, 12, 24), 1, date(2026, 12, 29)),
        (date(2026, 12, 23), 3, date(2026, 12, 30)),
        (date(2026, 4, 2), 2, date(2026, 4, 8)),
    ],
)
def test_working_days_skip_weekends_and_holidays(start, days, end):
    assert add_working_days(start, days) == end


@given(days, st.integers(0, 40), st.integers(0, 40))
def test_working_days_add_up(start, a, b):
    assume(is_working_day(start))
    assert add_working_days(add_working_days(start, a), b) == add_working_days(start, a + b)


@given(days, st.integers(1, 40))
def test_the_nth_working_day_has_n_working_days_behind_it(start, n):
    end = add_working_days(start, n)
    counted = sum(is_working_day(start + timedelta(days=i)) for i in range(1, (end - start).days + 1))
    assert is_working_day(end)
    assert counted == n


@pytest.mark.parametrize(
    ("instant", "hours", "due"),
    [
        (london(2026, 11, 24, 10), 4, london(2026, 11, 24, 14)),
        (london(2026, 11, 24, 15), 4, london(2026, 11, 25, 11)),
        (london(2026, 11, 24, 9), 8, london(2026, 11, 24, 17)),
        (london(2026, 11, 24, 20), 0, london(2026, 11, 25, 9)),
        (london(2026, 11, 27, 16, 30), 1, london(2026, 11, 30, 9, 30)),
        (london(2026, 12, 24, 16), 2, london(2026, 12, 29, 10)),
        # The clocks go back on 25 October 2026 and forward on 28 March 2027.
        (london(2026, 10, 23, 16), 2, london(2026, 10, 26, 10)),
        (london(2027, 3, 25, 16), 2, london(2027, 3, 30, 10)),
    ],
)
def test_working_hours_are_counted_on_londons_clock(instant, hours, due):
    assert add_working_hours(instant, hours, NINE, FIVE) == due


def test_due_times_are_answered_in_utc():
    assert add_working_hours(london(2026, 7, 6, 10), 1, NINE, FIVE).tzinfo is UTC
    assert next_opening(london(2026, 7, 6, 10), ROUTINE).tzinfo is UTC


@given(instants, st.integers(0, 60), st.integers(0, 60))
def test_working_hours_add_up(instant, a, b):
    twice = add_working_hours(add_working_hours(instant, a, NINE, FIVE), b, NINE, FIVE)
    once = add_working_hours(instant, a + b, NINE, FIVE)
    # Closing time and the next opening are the same working instant.
    assert twice == once or next_opening(once, TextWindow(NINE, FIVE, working_days_only=True)) == twice


@given(instants, st.integers(0, 3), windows)
def test_one_working_hour_more_is_never_earlier(instant, hours, window):
    earlier = add_working_hours(instant, hours, window.opens, window.closes)
    assert add_working_hours(instant, hours + 1, window.opens, window.closes) > earlier >= instant


@pytest.mark.parametrize(
    ("now", "window", "opening"),
    [
        (london(2026, 12, 24, 17), RESULTS, london(2026, 12, 29, 9)),
        (london(2026, 12, 24, 17), ROUTINE, london(2026, 12, 24, 17)),
        (london(2026, 11, 24, 16, 30), RESULTS, london(2026, 11, 25, 9)),
        (london(2026, 11, 24, 16, 29, 59), RESULTS, london(2026, 11, 24, 16, 29, 59)),
        (london(2026, 11, 24, 3), ROUTINE, london(2026, 11, 24, 8)),
        (london(2026, 10, 24, 23), ROUTINE, london(2026, 10, 25, 8)),
        (london(2027, 3, 27, 23), ROUTINE, london(2027, 3, 28, 8)),
    ],
)
def test_a_window_opens_on_londons_clock(now, window, opening):
    assert next_opening(now, window) == opening


@given(st.integers(0, 24 * 60), st.sampled_from([date(2026, 10, 24), date(2027, 3, 27)]), windows)
def test_nothing_leaves_at_night_when_the_clocks_change(minutes, eve, window):
    now = datetime(eve.year, eve.month, eve.day, 12, tzinfo=UTC) + timedelta(minutes=minutes)
    wall = next_opening(now, window).astimezone(LONDON).time()
    assert window.opens <= wall < window.closes


@given(instants, windows)
def test_the_next_opening_is_open_and_the_first(now, window):
    opening = next_opening(now, window)
    wall = opening.astimezone(LONDON)
    assert opening >= now
    assert window.opens <= wall.time() < window.closes
    assert is_working_day(wall.date()) or not window.working_days_only
    assert opening == now or not is_open(opening - timedelta(microseconds=1), window)


@given(instants, windows)
def test_asking_again_at_the_opening_changes_nothing(now, window):
    opening = next_opening(now, window)
    assert next_opening(opening, window) == opening
    assert is_open(opening, window)


def test_a_naive_instant_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        next_opening(london(2026, 11, 24, 10).replace(tzinfo=None), RESULTS)


def test_a_window_that_never_opens_is_refused():
    with pytest.raises(ValueError, match="never opens"):
        next_opening(london(2026, 11, 24, 10), TextWindow(time(17), time(9), working_days_only=False))


def test_working_time_is_not_counted_backwards():
    with pytest.raises(ValueError, match="forwards"):
        add_working_days(date(2026, 1, 5), -1)
    with pytest.raises(ValueError, match="forwards"):
        add_working_hours(london(2026, 1, 5, 10), -1, NINE, FIVE)


def test_the_day_is_londons():
    assert london_day(datetime(2026, 7, 1, 23, 30, tzinfo=UTC)) == date(2026, 7, 2)
