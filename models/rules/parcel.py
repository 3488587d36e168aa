"""Parcels: how courier events merge, when reminders are due, when a kit has gone quiet.

Events come late, doubled and out of order. A parcel's status moves forward by rank only, so the
same events in any order end in the same status (FEATURES 81).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from models.rules.service import ReturnPolicy, TextWindow
from models.rules.vocabulary import ScanKind
from models.rules.working_days import LONDON, add_working_days, next_opening

SCAN_RANK: Final[Mapping[ScanKind, int]] = {
    ScanKind.UNKNOWN: 0,
    ScanKind.LABELLED: 1,
    ScanKind.IN_NETWORK: 2,
    ScanKind.ATTEMPTED: 3,
    ScanKind.OUT_FOR_DELIVERY: 4,
    ScanKind.RETURNING: 5,
    ScanKind.DELIVERED: 6,
    ScanKind.RETURNED_TO_SENDER: 7,
}
"""UNKNOWN is kept in the courier's words and moves nothing; the two ends outrank the way there."""

MOVED: Final = frozenset(ScanKind) - {ScanKind.UNKNOWN, ScanKind.LABELLED}
"""The parcel was really handed over: the first one stops reminders (FEATURES 27)."""


def merge(status: ScanKind, event: ScanKind) -> ScanKind:
    """The parcel's status after one more event, whatever order they came in."""
    return event if SCAN_RANK[event] > SCAN_RANK[status] else status


def probably_delivered_at(dispatched_at: datetime, policy: ReturnPolicy) -> datetime:
    """When the kit is likely in the resident's hands: 09:00 London, so many working days after dispatch."""
    day = add_working_days(dispatched_at.astimezone(LONDON).date(), policy.probable_delivery_working_days)
    return datetime(day.year, day.month, day.day, 9, tzinfo=LONDON)


@dataclass(frozen=True, slots=True)
class Reminder:
    """One reminder: which, and when its window first opens (aware UTC)."""

    occurrence: int
    due_at: datetime
    last: bool


def reminders(
    dispatched_at: datetime, *, lapses_at: datetime, policy: ReturnPolicy, window: TextWindow
) -> list[Reminder]:
    """Every reminder of a kit that does not come back, none before probable delivery, none after it lapses."""
    start = probably_delivered_at(dispatched_at, policy)
    due = [next_opening(start + timedelta(days=days), window) for days in policy.reminder_days]
    kept = [at for at in due if at < lapses_at]
    return [Reminder(number, at, last=number == len(kept)) for number, at in enumerate(kept, start=1)]


class ReturnVerdict(StrEnum):
    """What a look at an unreturned kit says."""

    WAIT = "wait"
    LAPSE = "lapse"
    STUCK = "stuck"


def judge_return(
    *,
    now: datetime,
    lapses_at: datetime,
    posted_back_at: datetime | None,
    last_scan_at: datetime | None,
    policy: ReturnPolicy,
) -> ReturnVerdict:
    """Whether a kit still may come, has lapsed unused, or is stuck in the post and needs a person."""
    if posted_back_at is not None:
        silent_since = last_scan_at or posted_back_at
        return (
            ReturnVerdict.STUCK if now - silent_since > timedelta(days=policy.no_movement_days) else ReturnVerdict.WAIT
        )
    return ReturnVerdict.LAPSE if now >= lapses_at else ReturnVerdict.WAIT
