"""When it is safe to ring (H13; FEATURES 65)."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.order import SafeTime
from models.rules.safe_time import HOURS, is_safe, next_safe, read_safe_times
from models.rules.service import ClinicPolicy, TextWindow
from models.rules.working_days import LONDON, is_open

POLICY = ClinicPolicy()
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
times = st.frozensets(st.sampled_from(SafeTime))
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds


def test_the_column_of_a_contact_is_read_back():
    assert read_safe_times("") == frozenset()
    assert read_safe_times("evening,morning") == {SafeTime.MORNING, SafeTime.EVENING}


@pytest.mark.parametrize(
    ("at", "named", "safe"),
    [
        (NOON, "", True),
        (NOON, "morning", False),
        (NOON - timedelta(seconds=1), "morning", True),
        (NOON, "afternoon", True),
        (datetime(2026, 7, 1, 8, 30, tzinfo=UTC), "morning", True),  # 09:30 in London's summer
    ],
)
def test_times_are_londons_and_their_end_is_not_in_them(at, named, safe):
    assert is_safe(at, read_safe_times(named)) is safe


@given(instants, times)
def test_the_next_safe_time_is_safe_in_working_hours_and_never_sooner(at, named):
    found = next_safe(at, named, POLICY)

    assert found >= at
    if named - {SafeTime.EVENING}:
        assert is_safe(found, named)
        assert is_open(found, TextWindow(POLICY.opens, POLICY.closes, working_days_only=True))
        assert found - at <= timedelta(days=6), "Easter and its weekend, or Christmas and its"
    else:
        assert found == at, "nobody is there in the evening, so nothing is put off"
    assert next_safe(found, named, POLICY) == found


def test_the_hours_do_not_overlap_and_leave_no_gap():
    spans = [HOURS[each] for each in SafeTime]
    assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]
    assert spans[0][0] == time(9)
    assert LONDON.key == "Europe/London"
