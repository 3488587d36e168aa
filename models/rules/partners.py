"""Partner notification: five stages, counted by type of partner, and no partner's name.

Sources: clinical.md 1.2 (R48: elicited, contactable, notified, tested, treated, by partner type; R1, R2: reported
and verified within four weeks of the first talk); FEATURES 71; H25.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from models.rules.errors import Code, ServiceError
from models.rules.working_days import london_day

FOLLOW_UP_AFTER: Final = timedelta(weeks=4)
"""From the first talk about partners to the count that surveillance asks for (clinical.md 1.2, R1, R2)."""

MOST: Final = 999
"""The dictionary's field takes three digits (clinical.md 4.2, item 34)."""


class PartnerType(StrEnum):
    """What a partner is to the person (R48)."""

    ESTABLISHED = "established"
    NEW = "new"
    OCCASIONAL = "occasional"
    ONE_OFF = "one_off"
    SEX_WORKER = "sex_worker"


@dataclass(frozen=True, slots=True)
class PartnerCounts:
    """How many partners of one type came how far. No one of them is named."""

    elicited: int
    contactable: int
    notified: int
    tested: int
    """Tested, as the person reports."""
    verified: int
    """Of those tested, how many a care professional confirmed."""
    treated: int


def check_partners(counts: PartnerCounts) -> None:
    """Raises ServiceError(BAD_INPUT) for figures in which a later stage holds more people than it can."""
    stages = (counts.elicited, counts.contactable, counts.notified)
    if not all(0 <= number <= MOST for number in (*stages, counts.tested, counts.verified, counts.treated)):
        raise ServiceError(Code.BAD_INPUT, f"Give whole numbers from 0 to {MOST}.")
    if not counts.elicited >= counts.contactable >= counts.notified:
        raise ServiceError(Code.BAD_INPUT, "Nobody is told who can't be reached: check the first three numbers.")
    if counts.notified < max(counts.tested, counts.treated) or counts.tested < counts.verified:
        raise ServiceError(
            Code.BAD_INPUT, "Only who was told is tested or treated, and only who was tested is verified."
        )


def standing_since(counted: Iterable[tuple[datetime, PartnerCounts]]) -> dict[str, date]:
    """The day in London since which each stage's number stands; a stage that nobody reached has none.

    `counted` are one type's counts, earliest first.
    """
    since: dict[str, date] = {}
    before: dict[str, int] = {}
    for at, counts in counted:
        now = asdict(counts)
        since |= {stage: london_day(at) for stage, number in now.items() if number != before.get(stage)}
        before = now
    return {stage: day for stage, day in since.items() if before[stage]}


def follow_up_at(first_talk_at: datetime) -> datetime:
    """When the partners are counted again: four weeks after the first talk."""
    return first_talk_at + FOLLOW_UP_AFTER
