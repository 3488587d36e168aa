"""Whether a text may leave now, what its provider's answers mean, and what follows from a failure.

Pure tables over plain values. Unknown codes and statuses fall through to the safe side: nothing is
sent again, nothing counts as delivered, a person looks.

Sources: sms-and-post.md A1 (codes, callbacks, exactly-once-ish); clinical.md 9 (H5, H9, H11, H23); RULINGS 2, 10, 14.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from models.rules.kit import AWAITING_RETURN, CLOSED_TO_TEXTS, KitState
from models.rules.release import ReleaseKind
from models.rules.service import TextWindow
from models.rules.text import CLASS_OF, TextClass, TextPurpose
from models.rules.vocabulary import DeliveryStatus, RefusalKind
from models.rules.working_days import LONDON, add_working_days, london_day, next_opening

# ── Whether it may leave ─────────────────────────────────────────────────────────────────────


class Obstacle(StrEnum):
    """Why an owed text does not leave. Stable: it stands on the row, in the audit and on the case."""

    SUPERSEDED = "superseded"
    KIT_FROZEN = "kit_frozen"
    NO_LONGER_DUE = "no_longer_due"
    KIT_ENDED = "kit_ended"
    OTHER_CONTACT = "other_contact"
    NO_CONSENT = "no_consent"
    NUMBER_NOT_THEIRS = "number_not_theirs"
    NUMBER_FROZEN = "number_frozen"
    NUMBER_NOT_FRESH = "number_not_fresh"
    MAY_HAVE_LEFT = "may_have_left"
    """The database was restored, and this number got a text that it knows nothing of (H29)."""


SAID_ELSEWHERE: Final = frozenset({Obstacle.SUPERSEDED, Obstacle.KIT_FROZEN, Obstacle.NO_LONGER_DUE})
"""Obstacles behind which something newer stands already: the text is cancelled and needs no case of its own."""

CONTENT: Final = frozenset({TextPurpose.ALL_CLEAR, TextPurpose.FAILED_SAMPLE, TextPurpose.SWAB_POSITIVE})
"""Purposes that tell a result. They need a freshly proved number (H5; ruling 14)."""

_TELLING: Final = frozenset({ReleaseKind.ALL_CLEAR, ReleaseKind.FAILED_SAMPLE, ReleaseKind.SWAB_POSITIVE})
_ENDED: Final = CLOSED_TO_TEXTS - {KitState.CLOSED}
"""Ends that are not simply 'told': after them nothing about a result leaves by itself (ruling 10)."""


def is_result(purpose: TextPurpose) -> bool:
    """Whether it is a first contact about an outcome: if it can't reach the person, the clinic must (H23)."""
    return CLASS_OF[purpose] is TextClass.RESULT


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision says and stands on."""

    id: int
    kind: ReleaseKind
    digest: str


def still_stands(purpose: TextPurpose, decided: Decided | None, current: Decided | None) -> bool:
    """Whether the decision behind a result text is still its kit's decision (ruling 2).

    The same answer on the same results, given again for another reason, is still the same decision.
    The neutral text tells nothing and outlives a decision, until one stands that tells by text.
    """
    if decided is None or current is None:
        return False
    if (decided.kind, decided.digest) == (current.kind, current.digest):
        return True
    return purpose is TextPurpose.PLEASE_EXPECT_OUR_CALL and current.kind not in _TELLING


@dataclass(frozen=True, slots=True)
class Leaving:
    """All that is looked at, under the kit's lock, at the moment a text is claimed."""

    purpose: TextPurpose
    stands: bool
    """Its decision is current; a journey text, which has none, stands."""
    kit_state: KitState | None
    kit_frozen: bool
    own_contact: bool
    """The number is the one given for this very order (FEATURES 53)."""
    text_consent: bool
    number_theirs: bool
    """One mobile, one person: the number's holder is this person (H5; FEATURES 6)."""
    number_frozen: bool
    """A bounce, a STOP or a WRONG since it was last proved."""
    proved_at: datetime
    maybe_told: bool = False
    """The number got a text, since the restored backup was taken, that nothing here accounts for."""


def obstacle(text: Leaving, *, now: datetime, proof_max_age_days: int) -> Obstacle | None:
    """The first reason, worst first, why a text may not leave at an instant of service time; None: it may."""
    result = is_result(text.purpose)
    no_return = text.purpose is TextPurpose.RETURN_REMINDER and text.kit_state not in AWAITING_RETURN
    not_lapsed = text.purpose is TextPurpose.KIT_LAPSED and text.kit_state is not KitState.LAPSED
    stale = now - text.proved_at > timedelta(days=proof_max_age_days)
    checks = (
        (Obstacle.SUPERSEDED, not text.stands),
        (Obstacle.KIT_FROZEN, result and text.kit_frozen),
        (Obstacle.NO_LONGER_DUE, no_return or not_lapsed),
        (Obstacle.KIT_ENDED, result and (text.kit_state is None or text.kit_state in _ENDED)),
        (Obstacle.OTHER_CONTACT, not text.own_contact),
        (Obstacle.NO_CONSENT, not text.text_consent),
        (Obstacle.NUMBER_NOT_THEIRS, not text.number_theirs),
        (Obstacle.NUMBER_FROZEN, text.number_frozen),
        (Obstacle.MAY_HAVE_LEFT, text.maybe_told),
        (Obstacle.NUMBER_NOT_FRESH, text.purpose in CONTENT and stale),
    )
    return next((found for found, stops in checks if stops), None)


def hears_by(known_at: datetime, window: TextWindow) -> datetime:
    """By when somebody whose result is known hears of it, or has a time fixed: the end of that working day's window.

    Known after the window, at night or on a day off, it is the next working day's (clinical.md 3.5).
    """
    day = london_day(next_opening(known_at, window))
    return datetime.combine(day, window.closes, LONDON).astimezone(UTC)


# ── What came of one call ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Took:
    """The provider took the text."""

    provider_id: str
    status: DeliveryStatus


@dataclass(frozen=True, slots=True)
class DidNotSend:
    """It certainly did not go. `alarm`: the service's own account is at fault."""

    code: str
    retry_after_seconds: float | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class WillNot:
    """The provider will never take it."""

    code: str
    kind: RefusalKind


@dataclass(frozen=True, slots=True)
class MayHave:
    """It may have gone: it is looked up, and never sent again blindly."""

    code: str


HELD_BACK: Final = DidNotSend("held_back")
"""Claimed, but never called: the provider turned out to be down."""
STOPPED: Final = DidNotSend("stopped")
"""Claimed, but never called: a kill switch was thrown."""
LEASE_OVER: Final = DidNotSend("lease_over")
"""Claimed, but never called: the machine slept through the lease."""
OWN_DOING: Final = frozenset({HELD_BACK.code, STOPPED.code, LEASE_OVER.code})
"""Calls that we did not make: they say nothing of the provider's health."""


TEST_PREFIX: Final = "test-"
"""What the reference of a text to the test number begins with: its receipts are nobody's, and no alarm."""


Answer = Took | DidNotSend | WillNot | MayHave


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the provider says of one message, in a callback, a look-up or a list."""

    provider_id: str
    status: DeliveryStatus
    error_code: str = ""
    created_at: datetime | None = None


class ChoreKind(StrEnum):
    """What the provider is asked, or told, about a text that was sent or may have been."""

    FIND = "find"
    STATUS = "status"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Found:
    """All messages that the provider holds of one text: possibly none."""

    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True)
class Blanked:
    """The provider holds the body no longer."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider answers that it knows no message of this id."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The provider could not be asked now."""


ChoreAnswer = Found | Sighting | Blanked | Unknown | NoAnswer


# ── How far it got ───────────────────────────────────────────────────────────────────────────

_RANK: Final[Mapping[DeliveryStatus, int]] = {
    DeliveryStatus.UNKNOWN: 0,
    DeliveryStatus.IN_FLIGHT: 1,
    DeliveryStatus.WITH_CARRIER: 2,
    DeliveryStatus.FAILED: 3,
    DeliveryStatus.CANCELLED: 3,
    DeliveryStatus.DELIVERED: 4,
}
FINAL: Final = frozenset({DeliveryStatus.FAILED, DeliveryStatus.CANCELLED, DeliveryStatus.DELIVERED})


def merged(known: DeliveryStatus | None, said: DeliveryStatus) -> DeliveryStatus:
    """The further of two statuses: only forward, the final ones stay, delivered beats failed (FEATURES 81).

    Callbacks come late, doubled and out of order; a word we do not know changes nothing.
    """
    return said if known is None or _RANK[said] > _RANK[known] else known


# ── What follows from a failure ──────────────────────────────────────────────────────────────


class Again(StrEnum):
    """When a failed text is tried once more, in service time and inside its window."""

    IN_15_MINUTES = "in_15_minutes"
    IN_1_HOUR = "in_1_hour"
    IN_4_HOURS = "in_4_hours"
    NEXT_WORKING_DAY = "next_working_day"


_WAIT: Final[Mapping[Again, timedelta]] = {
    Again.IN_15_MINUTES: timedelta(minutes=15),
    Again.IN_1_HOUR: timedelta(hours=1),
    Again.IN_4_HOURS: timedelta(hours=4),
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is done about one kind of failure. A failed result text goes to the clinic at once, whatever is tried."""

    again: tuple[Again, ...] = ()
    freezes_number: bool = False
    """No text goes to this number until its person proves it again (FEATURES 54)."""
    alarm: bool = False
    """Somebody who runs the service must look: it is not about one person."""


PERMANENT_AND_ALARM: Final = Remedy(alarm=True)
"""For every code that is not in the table."""

REMEDIES: Final[Mapping[str, Remedy]] = {
    "30001": Remedy(again=(Again.IN_1_HOUR,)),  # the provider's queue overflowed
    "30002": Remedy(alarm=True),  # account suspended
    "30003": Remedy(again=(Again.IN_4_HOURS, Again.NEXT_WORKING_DAY)),  # phone off or out of reach
    "30004": Remedy(freezes_number=True),  # blocked by person, phone or carrier
    "30005": Remedy(freezes_number=True),  # number unknown or no longer in use
    "30006": Remedy(freezes_number=True),  # landline
    "30007": Remedy(alarm=True),  # filtered: the same words must not go again
    "30008": Remedy(again=(Again.IN_15_MINUTES,)),  # unknown
    "temporary-failure": Remedy(again=(Again.IN_4_HOURS, Again.NEXT_WORKING_DAY)),  # GOV.UK Notify: phone off, full
    "permanent-failure": Remedy(freezes_number=True),  # GOV.UK Notify: number unknown, or it blocks us
    "technical-failure": Remedy(alarm=True),  # GOV.UK Notify: between it and its own suppliers
}
"""What a failed status means, by the provider's code (sms-and-post.md A1), or Notify's word, which is all it gives."""

REFUSED: Final[Mapping[RefusalKind, Remedy]] = {
    RefusalKind.BAD_NUMBER: Remedy(freezes_number=True),
    RefusalKind.LANDLINE: Remedy(freezes_number=True),
    RefusalKind.OPTED_OUT: Remedy(freezes_number=True),  # never counts as told (FEATURES 56)
    RefusalKind.CONFIGURATION: Remedy(alarm=True),
    RefusalKind.CONTENT: Remedy(alarm=True),
    RefusalKind.UNKNOWN_CODE: PERMANENT_AND_ALARM,
}
"""Refusals before anything was sent."""


def remedy_for(error_code: str) -> Remedy:
    """What to do about a text that its provider reports as failed."""
    return REMEDIES.get(error_code, PERMANENT_AND_ALARM)


def again_at(remedy: Remedy, failures: int, now: datetime, window: TextWindow) -> datetime | None:
    """When to try again after so many failures, this one included, in service time; None: not any more."""
    if failures > len(remedy.again):
        return None
    when = remedy.again[failures - 1]
    if when is Again.NEXT_WORKING_DAY:
        day = add_working_days(london_day(now), 1)
        return next_opening(datetime.combine(day, window.opens, LONDON), window)
    return next_opening(now + _WAIT[when], window)


# ── Machine time: leases, patience, questions (ruling 12) ────────────────────────────────────

LEASE: Final = timedelta(minutes=2)
"""How long a claimed text may wait for its call and its record; after that it is unsure."""

_FIRST_WAIT: Final = timedelta(seconds=15)
_LONGEST_WAIT: Final = timedelta(minutes=15)


def backoff(tries: int, retry_after_seconds: float | None) -> timedelta:
    """How long to wait after so many calls that sent nothing: doubling, or longer where the provider asks for it."""
    doubled = min(_FIRST_WAIT * (1 << min(tries - 1, 10)), _LONGEST_WAIT)
    return max(doubled, timedelta(seconds=retry_after_seconds or 0))


NOT_FOUND_TWICE: Final = 2
"""A look-up that finds nothing is believed the second time: listings lag behind acceptance."""

ASK_AGAIN: Final = timedelta(minutes=5)
"""After a provider that could not be asked."""
BLANK_AGAIN: Final = timedelta(hours=1)
"""After a provider that did not blank a text's words: it may not do so before it is done with the text."""
BLANK_FOR: Final = timedelta(days=7)
"""How long it is asked to: then somebody who runs the service must look."""

_SILENCES: Final = (timedelta(minutes=30), timedelta(hours=6), timedelta(hours=24))


def ask_after(asked: int) -> timedelta | None:
    """How long after the last question an accepted but silent text is asked about; None: wait for its callback."""
    return _SILENCES[asked] if asked < len(_SILENCES) else None
