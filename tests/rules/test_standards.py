"""How soon people were reached: counted on London's working days, and never on too few cases."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.rules.standards import (
    STANDARDS,
    CaseTimes,
    Milestone,
    Standard,
    days_between,
    measure,
    measure_all,
    shown_counts,
)
from models.rules.working_days import add_working_days

NOON = datetime(2026, 12, 23, 12, tzinfo=UTC)
TRIED, *_, SIX_WEEKS = STANDARDS
days = st.dates(date(2026, 1, 1), date(2027, 12, 31))
instants = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
case_times = st.builds(CaseTimes, instants, st.none() | instants, st.none() | instants, st.none() | days)


def test_over_christmas_a_try_on_the_next_open_day_is_within_one_working_day():
    tuesday = datetime(2026, 12, 29, 9, tzinfo=UTC)  # after two bank holidays, one of them in lieu, and a weekend
    kept = CaseTimes(datetime(2026, 12, 24, 16, tzinfo=UTC), tried_at=tuesday)
    late = CaseTimes(datetime(2026, 12, 24, 16, tzinfo=UTC), tried_at=tuesday + timedelta(days=1))

    assert measure([kept] * 5, TRIED, now=tuesday).share == 1
    assert measure([late] * 5, TRIED, now=tuesday).share == 0


def test_a_case_whose_time_is_not_over_is_not_counted_and_one_whose_time_is_over_counts_against():
    young, old = CaseTimes(NOON - timedelta(days=42)), CaseTimes(NOON - timedelta(days=43))

    assert measure([young] * 9, SIX_WEEKS, now=NOON).cases == 0
    found = measure([young] * 9 + [old] * 5, SIX_WEEKS, now=NOON)
    assert (found.cases, found.within, found.share, found.is_kept) == (5, 0, 0.0, False)


def test_of_fewer_than_five_cases_no_share_and_no_median_is_said():
    quick = CaseTimes(NOON, tried_at=NOON, treated_on=NOON.date())

    assert all(
        each.share is None and each.median_days is None for each in measure_all([quick] * 4, now=NOON, diagnosis=True)
    )
    assert all(
        each.share == 1
        for each in measure_all([CaseTimes(NOON, NOON, NOON, NOON.date())] * 5, now=NOON, diagnosis=True)
    )


@given(days, st.integers(0, 60))
def test_working_days_are_counted_as_they_are_added(began, ahead):
    start = add_working_days(began, 0)

    assert days_between(start, add_working_days(start, ahead), working_days=True) == ahead


@given(st.lists(case_times, max_size=12))
def test_shares_lie_between_none_and_all_and_more_time_never_lowers_who_was_in_time(times):
    for each in measure_all(times, now=NOON, diagnosis=True):
        assert 0 <= each.within <= each.cases <= len(times)
        assert each.share is None or 0 <= each.share <= 1
    for milestone in Milestone:
        narrow, wide = (
            measure(times, Standard("x", milestone, within, working_days=True), now=NOON) for within in (3, 12)
        )
        assert narrow.within <= wide.within
        assert narrow.median_days == wide.median_days


def test_of_a_reactive_screen_no_treatment_is_expected():
    assert {each.standard.milestone for each in measure_all([], now=NOON, diagnosis=False)} == {
        Milestone.TRIED,
        Milestone.SPOKEN,
    }


@given(st.lists(case_times, max_size=30))
def test_what_leaves_the_service_gives_no_few_away_by_subtraction(times):
    counts = shown_counts(measure_all(times, now=NOON, diagnosis=True))

    (ten_cases, ten), (_, six) = counts[2:]
    assert not any(shown is not None and 0 < shown < 5 for pair in counts for shown in pair)
    assert ten is None or ten_cases - ten == 0 or ten_cases - ten >= 5
    assert None in (ten, six) or six == ten or abs(six - ten) >= 5


def test_no_share_is_set_for_a_reactive_screen_which_is_no_diagnosis():
    late = CaseTimes(NOON - timedelta(days=60), NOON, NOON)

    assert all(each.is_kept is None for each in measure_all([late] * 9, now=NOON, diagnosis=False))
