"""England's working days, and when a window is open: reckoned on London's clock, answered in UTC.

Bank holidays come from the `holidays` package (England). One-off holidays, such as a funeral of state,
are announced after a package is built, so every function takes them as `also_closed`.
"""

from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import holidays

from models.rules.service import TextWindow

LONDON: Final = ZoneInfo("Europe/London")
NO_DAYS: Final[frozenset[date]] = frozenset()
_SATURDAY: Final = 5
_LONGEST_CLOSURE_DAYS: Final = 366
"""A window that stays shut for a year is a mistake in the configuration, not a long weekend."""


@cache
def _bank_holidays(year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays("GB", subdiv="ENG", years=year))


def is_working_day(on: date, also_closed: AbstractSet[date] = NO_DAYS) -> bool:
    """Monday to Friday, and neither a bank holiday in England nor one of the one-off days."""
    return on.weekday() < _SATURDAY and on not in _bank_holidays(on.year) and on not in also_closed


def add_working_days(on: date, days: int, also_closed: AbstractSet[date] = NO_DAYS) -> date:
    """The nth working day after a date. With 0: the date itself, or the next working day if it is not one."""
    if days < 0:
        raise ValueError("working days are counted forwards")
    while days > 0:
        on += timedelta(days=1)
        days -= is_working_day(on, also_closed)
    while not is_working_day(on, also_closed):
        on += timedelta(days=1)
    return on


def add_working_hours(
    instant: datetime, hours: float, opens: time, closes: time, also_closed: AbstractSet[date] = NO_DAYS
) -> datetime:
    """The instant that lies so many working hours later, in UTC; only open time of working days counts.

    `opens` and `closes` are London wall time. Hours that end exactly at closing are due at closing.
    With 0 hours: the instant itself when open, else the next opening.
    """
    if hours < 0:
        raise ValueError("working hours are counted forwards")
    window = TextWindow(opens, closes, working_days_only=True)
    left = timedelta(hours=hours)
    instant = next_opening(instant, window, also_closed)
    while True:
        closing = _at(london_day(instant), closes)
        if left <= closing - instant:
            return instant + left
        left -= closing - instant
        instant = next_opening(closing, window, also_closed)


def is_open(now: datetime, window: TextWindow, also_closed: AbstractSet[date] = NO_DAYS) -> bool:
    """True when the instant lies in the window: opening included, closing excluded."""
    return next_opening(now, window, also_closed) == now


def next_opening(now: datetime, window: TextWindow, also_closed: AbstractSet[date] = NO_DAYS) -> datetime:
    """The first instant from `now` on at which the window is open, in UTC: `now` itself when it is open.

    Raises ValueError for a naive instant, and for a window that never opens.
    """
    if now.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    now = now.astimezone(UTC)
    today = london_day(now)
    for ahead in range(_LONGEST_CLOSURE_DAYS):
        day = today + timedelta(days=ahead)
        if window.working_days_only and not is_working_day(day, also_closed):
            continue
        opening, closing = _at(day, window.opens), _at(day, window.closes)
        if now < closing and opening < closing:
            return max(now, opening)
    raise ValueError("the window never opens: it must open before it closes")


@lru_cache(maxsize=4_096)
def london_day(instant: datetime) -> date:
    """The date in London at an instant."""
    return instant.astimezone(LONDON).date()


def _at(day: date, wall: time) -> datetime:
    """A London wall time as UTC. In the hour that is skipped in March it is the same span after midnight."""
    return datetime.combine(day, wall, LONDON).astimezone(UTC)
