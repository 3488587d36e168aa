"""What does a new row change? Compared with the current version of its series only, by the lab's own time.

Source: RULINGS 1; lab-messages.md 2.3, 5 and 6. A row never overwrites: it becomes a version with an
effect, a repeat, or goes to a person.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from models.rules.vocabulary import IDENTITY_FAILURES, SAMPLE_FAILURES, Outcome, ReportStatus


class Change(StrEnum):
    """What a row does to its series."""

    FIRST = "first"
    PROGRESS = "progress"
    """A wait became a final answer, or a comment was added to the same answer."""
    CORRECTION = "correction"
    """What was said is no longer said: a person must know (law 6)."""
    OUT_OF_ORDER = "out_of_order"
    """History only: an older word that a newer one has already replaced."""
    FROZEN = "frozen"
    """A correction, or bad news, whose time is not newer: kept, not current, and a person decides (ruling 1)."""
    REPEAT = "repeat"
    """Says again what is current."""
    CONFLICT = "conflict"
    """Two different final words that time does not order: quarantined."""


class Word(NamedTuple):
    """One reading of one result: what is said, how finally, and when the lab said it (aware UTC, or None)."""

    outcome: Outcome
    status: ReportStatus
    lab_time: datetime | None
    note_review: bool = False
    comment: str = ""
    """What a person must read about it, where `note_review` says so."""
    order_corrected: bool = False
    """The order around it was re-issued as corrected: a difference then counts as a correction."""


_BADNESS: Final[Mapping[Outcome, int]] = {
    Outcome.POSITIVE: 6,
    Outcome.REACTIVE: 6,
    Outcome.LOW_REACTIVE: 5,
    Outcome.WITHDRAWN: 5,
    Outcome.EQUIVOCAL: 4,
    **dict.fromkeys(IDENTITY_FAILURES, 4),
    Outcome.PENDING: 3,
    **dict.fromkeys(SAMPLE_FAILURES, 2),
    Outcome.NOT_REQUESTED: 1,
    Outcome.NEGATIVE: 0,
}
"""Worst first, as clinical.md 3.3 orders a kit."""

_CHANGES_THE_RECORD: Final = frozenset({ReportStatus.CORRECTED, ReportStatus.WITHDRAWN})


def compare(new: Word, current: Word | None) -> Change:
    """What one row does to its series. Every pair of words has exactly one answer, and none is 'ignore'."""
    if current is None:
        return Change.FIRST
    newer = _newer(new.lab_time, current.lab_time)
    if new.outcome is current.outcome:
        return _same_outcome(new, current)
    if new.outcome is Outcome.PENDING:
        # An interim word about something already final: late news is history, new news takes a result back.
        return Change.CORRECTION if newer else Change.OUT_OF_ORDER
    if new.status in _CHANGES_THE_RECORD or new.order_corrected:
        return Change.CORRECTION if newer else Change.FROZEN
    if current.outcome is Outcome.PENDING:
        return Change.PROGRESS
    if newer:
        return Change.CORRECTION
    if new.lab_time is None or current.lab_time is None or new.lab_time == current.lab_time:
        return Change.CONFLICT
    return Change.FROZEN if _BADNESS[new.outcome] > _BADNESS[current.outcome] else Change.OUT_OF_ORDER


def _same_outcome(new: Word, current: Word) -> Change:
    if new.status in _CHANGES_THE_RECORD and current.status is not new.status:
        # The lab says it corrected something, and the outcome is the same: a person reads what changed.
        return Change.CORRECTION
    if new.note_review and (not current.note_review or new.comment != current.comment):
        # A comment that nobody has read yet.
        return Change.PROGRESS
    return Change.REPEAT


def _newer(new: datetime | None, current: datetime | None) -> bool:
    return new is not None and (current is None or new > current)
