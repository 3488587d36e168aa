"""Handing a case over to a clinic's own record, and what the clinic says of it since.

A referral never ends a case: a person does, with an outcome (law 4). What the clinic says only moves when somebody
must look again, so that nobody chases a person who has been seen, and nobody forgets one who did not come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from models.rules.clinic import ClinicSays
from models.rules.service import ClinicPolicy
from models.rules.vocabulary import Outcome, ReportStatus, Site, Test
from models.rules.working_days import add_working_hours

LONGEST_MESSAGE: Final = 1000
"""Of what a referral says in somebody's own words."""


class ReferralFor(StrEnum):
    """What a clinic is asked to do."""

    CONFIRMATION = "confirmation"
    """The sample from the arm that a reactive screen needs (H14)."""
    TREATMENT = "treatment"
    ASSESSMENT = "assessment"


class BellState(StrEnum):
    """Whether a clinic's system was told that a referral waits. The telling says nothing of whom or what."""

    NONE = "none"
    """This clinic asks for its referrals, or gets them on paper."""
    OWED = "owed"
    RINGING = "ringing"
    RUNG = "rung"
    GIVEN_UP = "given_up"
    """It refused, or did not answer for a day: a person rings."""


MOST_RINGS: Final = 12
_FIRST_PATIENCE: Final = timedelta(minutes=1)
_LONGEST_PATIENCE: Final = timedelta(hours=4)


def patience(rings: int) -> timedelta:
    """How long to wait before the next ring, after so many that came to nothing: twelve of them take about a day."""
    longer: int = 2 ** (rings - 1)
    return min(_FIRST_PATIENCE * longer, _LONGEST_PATIENCE)


def due_after_referral(now: datetime, due: datetime, policy: ClinicPolicy) -> datetime:
    """When somebody looks whether the clinic has taken it up: never sooner than the case was due."""
    return max(due, add_working_hours(now, policy.retry_working_hours, policy.opens, policy.closes))


def due_after_word(
    says: ClinicSays, happened_at: datetime, *, now: datetime, due: datetime, policy: ClinicPolicy
) -> datetime:
    """When somebody looks again after a clinic's word.

    Seen: after as long as after a talk. Booked: once the appointment is over, and never later than a case may rest
    at all. Did not come, or cancelled: at once.
    """
    match says:
        case ClinicSays.ATTENDED | ClinicSays.TREATED:
            return max(due, add_working_hours(now, policy.after_spoke_working_hours, policy.opens, policy.closes))
        case ClinicSays.BOOKED:
            over = add_working_hours(max(happened_at, now), policy.retry_working_hours, policy.opens, policy.closes)
            latest = add_working_hours(now, policy.snooze_working_hours, policy.opens, policy.closes)
            return max(due, min(over, latest))
        case ClinicSays.DID_NOT_ATTEND | ClinicSays.CANCELLED:
            return min(due, now)


@dataclass(frozen=True, slots=True)
class ClinicWord:
    """One thing that a clinic says of a referral. `born_on` is whom it says it of: it must be the person referred."""

    referral: str
    says: ClinicSays
    happened_at: datetime
    born_on: date

    def __repr__(self) -> str:
        return f"ClinicWord(referral={self.referral!r}, says={self.says!r})"


@dataclass(frozen=True, slots=True)
class HandedResult:
    """One current result, as the laboratory gave it."""

    test: Test
    site: Site
    outcome: Outcome
    status: ReportStatus
    accession: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Handover:
    """All that a clinic is given about one case. Its repr names nobody."""

    ref: str
    """The referral's, or the case's where it was only exported."""
    asked: ReferralFor | None
    message: str
    made_at: datetime
    service: str
    phone: str
    clinic: str
    clinic_lines: Sequence[str]
    given_name: str
    family_name: str
    born_on: date
    mobile: str
    address_lines: Sequence[str]
    postcode: str
    language: str
    kit_code: str
    lab: str
    results: Sequence[HandedResult]
    pending: Sequence[tuple[Test, Site]]
    told: Sequence[tuple[str, datetime]]
    """What for, and when: texts that left and talks."""
    agreed_to: Sequence[str]
    """Ways in which the person agreed to be reached."""
    safe_times: str

    def __repr__(self) -> str:
        return f"Handover(ref={self.ref!r})"
