"""When it is safe to ring somebody, as they said when they ordered (H13; FEATURES 65).

Whoever named no time may be rung at any. A first call is due as its kind says, safe or not: a person decides. What is
tried again, and what answers a resident, is due at a time that is safe.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, time
from typing import Final

from models.rules.order import SafeTime
from models.rules.service import ClinicPolicy, TextWindow
from models.rules.working_days import LONDON, next_opening

HOURS: Final[Mapping[SafeTime, tuple[time, time]]] = {
    SafeTime.MORNING: (time(9), time(12)),
    SafeTime.AFTERNOON: (time(12), time(17)),
    SafeTime.EVENING: (time(17), time(20)),
}
"""London wall time, start included, end excluded."""


def read_safe_times(written: str) -> frozenset[SafeTime]:
    """The times of a contact, as its column holds them."""
    return frozenset(SafeTime(word) for word in written.split(",") if word)


def is_safe(at: datetime, times: AbstractSet[SafeTime]) -> bool:
    """Whether this instant lies in a time that somebody named, on any day."""
    wall = at.astimezone(LONDON).time()
    return not times or any(HOURS[each][0] <= wall < HOURS[each][1] for each in times)


def next_safe(at: datetime, times: AbstractSet[SafeTime], policy: ClinicPolicy) -> datetime:
    """The first instant from `at` on that is safe and in the clinic's working hours (aware UTC).

    `at` itself where no time was named, and where the clinic is closed at every one that was.
    """
    windows = [
        TextWindow(max(policy.opens, begins), min(policy.closes, ends), working_days_only=True)
        for begins, ends in (HOURS[each] for each in times)
    ]
    openings = [next_opening(at, window) for window in windows if window.opens < window.closes]
    return min(openings, default=at)
