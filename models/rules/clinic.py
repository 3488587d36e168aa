"""Clinic cases: what kinds there are, who owns them, when they are due, and how they may end.

Sources: clinical.md 1.1 (targets), 3.5 (what needs a person), 9 (H4, H7, H14); RULINGS 6; FEATURES 62-67.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from models.rules.errors import Code, ServiceError
from models.rules.release import Reason, ReleaseDecision
from models.rules.service import ClinicPolicy
from models.rules.vocabulary import IDENTITY_FAILURES, REACTIONS, SAMPLE_FAILURES, Outcome, Test
from models.rules.working_days import add_working_hours


class CaseKind(StrEnum):
    """What a case is about: one queue each, most urgent first."""

    SAFEGUARDING = "safeguarding"
    CORRECTION = "correction"
    IDENTITY = "identity"
    REACTIVE = "reactive"
    POSITIVE = "positive"
    RESULT_REVIEW = "result_review"
    ORDER_REVIEW = "order_review"
    UNDELIVERED_TEXT = "undelivered_text"
    LAB_ROW = "lab_row"
    FAILED_SAMPLE = "failed_sample"
    RESULTS_OVERDUE = "results_overdue"
    PARCEL = "parcel"


class Urgency(StrEnum):
    """How soon, in words as well as in the due time."""

    URGENT = "urgent"
    SOON = "soon"
    ROUTINE = "routine"


class AttemptResult(StrEnum):
    """What one try came to."""

    SPOKE = "spoke"
    NO_ANSWER = "no_answer"
    VOICEMAIL = "voicemail"
    WRONG_PERSON = "wrong_person"
    NUMBER_DEAD = "number_dead"
    TEXT = "text"
    LETTER = "letter"
    NOTE = "note"


class CaseOutcome(StrEnum):
    """How a case may end. None of them is 'nothing'."""

    TOLD_AND_BOOKED = "told_and_booked"
    TREATED = "treated"
    CONFIRMED_POSITIVE = "confirmed_positive"
    CONFIRMED_NEGATIVE = "confirmed_negative"
    CONFIRMATION_DECLINED = "confirmation_declined"
    REFERRED = "referred"
    TOLD_NO_ACTION = "told_no_action"
    NEW_KIT_SENT = "new_kit_sent"
    RELEASED_AFTER_REVIEW = "released_after_review"
    SAFEGUARDING_REFERRED = "safeguarding_referred"
    ORDER_ACCEPTED = "order_accepted"
    ORDER_REFUSED = "order_refused"
    RESOLVED_WITH_LAB = "resolved_with_lab"
    REACHED_ANOTHER_WAY = "reached_another_way"
    NO_FURTHER_ACTION = "no_further_action"


class Confirmation(StrEnum):
    """What the sample from the arm said of one reactive screen, or that the person declined one."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    DECLINED = "declined"


RESULT_KINDS: Final = frozenset(
    {
        CaseKind.CORRECTION,
        CaseKind.IDENTITY,
        CaseKind.REACTIVE,
        CaseKind.POSITIVE,
        CaseKind.RESULT_REVIEW,
        CaseKind.FAILED_SAMPLE,
        CaseKind.RESULTS_OVERDUE,
    }
)
"""Kinds that a kit's one results case may have; it takes the most urgent and never falls back (ruling 6)."""

_RANK: Final[Mapping[CaseKind, int]] = {kind: rank for rank, kind in enumerate(CaseKind)}

URGENCY: Final[Mapping[CaseKind, Urgency]] = {
    CaseKind.SAFEGUARDING: Urgency.URGENT,
    CaseKind.CORRECTION: Urgency.URGENT,
    CaseKind.IDENTITY: Urgency.URGENT,
    CaseKind.REACTIVE: Urgency.URGENT,
    CaseKind.POSITIVE: Urgency.SOON,
    CaseKind.RESULT_REVIEW: Urgency.SOON,
    CaseKind.ORDER_REVIEW: Urgency.SOON,
    CaseKind.UNDELIVERED_TEXT: Urgency.SOON,
    CaseKind.LAB_ROW: Urgency.SOON,
    CaseKind.FAILED_SAMPLE: Urgency.ROUTINE,
    CaseKind.RESULTS_OVERDUE: Urgency.ROUTINE,
    CaseKind.PARCEL: Urgency.ROUTINE,
}

OWNER: Final[Mapping[CaseKind, str]] = {
    CaseKind.SAFEGUARDING: "safeguarding_lead",
    CaseKind.CORRECTION: "clinician",
    CaseKind.IDENTITY: "clinician",
    CaseKind.REACTIVE: "health_adviser",
    CaseKind.POSITIVE: "health_adviser",
    CaseKind.RESULT_REVIEW: "clinician",
    CaseKind.ORDER_REVIEW: "clinician",
    CaseKind.UNDELIVERED_TEXT: "health_adviser",
    CaseKind.LAB_ROW: "lab_liaison",
    CaseKind.FAILED_SAMPLE: "health_adviser",
    CaseKind.RESULTS_OVERDUE: "lab_liaison",
    CaseKind.PARCEL: "packer",
}
"""The role whose queue a new case stands in: no case is ever without an owner (law 4)."""


def more_urgent(one: CaseKind, other: CaseKind) -> CaseKind:
    """The more urgent of two kinds."""
    return min(one, other, key=_RANK.__getitem__)


def kind_for(decision: ReleaseDecision, outcomes: AbstractSet[Outcome]) -> CaseKind:
    """Which queue a decision's case belongs in: by why a person is needed, worst first."""
    reasons = set(decision.reasons)
    if Reason.UNDER_AGE in reasons:
        return CaseKind.SAFEGUARDING
    if reasons & {Reason.CORRECTED_AFTER_TOLD, Reason.CORRECTED, Reason.WITHDRAWN, Reason.FROZEN}:
        return CaseKind.CORRECTION
    if Reason.IDENTITY_DOUBT in reasons or outcomes & IDENTITY_FAILURES:
        return CaseKind.IDENTITY
    if outcomes & REACTIONS:
        return CaseKind.REACTIVE
    if outcomes & {Outcome.POSITIVE, Outcome.EQUIVOCAL}:
        return CaseKind.POSITIVE
    if reasons & {
        Reason.COMMENT_TO_READ,
        Reason.ROW_IN_QUARANTINE,
        Reason.IMPOSSIBLE_OUTCOME,
        Reason.NOT_REQUESTED_RESULT,
    }:
        return CaseKind.RESULT_REVIEW
    if outcomes & SAMPLE_FAILURES:
        return CaseKind.FAILED_SAMPLE
    if Reason.HOLD_EXPIRED in reasons:
        return CaseKind.RESULTS_OVERDUE
    return CaseKind.RESULT_REVIEW


def due_at(kind: CaseKind, now: datetime, policy: ClinicPolicy) -> datetime:
    """When a new case of a kind must have been taken up: working hours from now (aware UTC)."""
    hours = (policy.due_working_hours or {})[kind.value]
    return add_working_hours(now, hours, policy.opens, policy.closes)


def next_due_at(result: AttemptResult, now: datetime, due: datetime, policy: ClinicPolicy) -> datetime:
    """The due time after an attempt: later by the ladder when nobody was reached, unchanged otherwise."""
    match result:
        case AttemptResult.NO_ANSWER | AttemptResult.VOICEMAIL | AttemptResult.TEXT | AttemptResult.LETTER:
            return max(due, add_working_hours(now, policy.retry_working_hours, policy.opens, policy.closes))
        case AttemptResult.SPOKE | AttemptResult.WRONG_PERSON | AttemptResult.NUMBER_DEAD | AttemptResult.NOTE:
            return due


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """All that the rule about closing a case may look at."""

    kind: CaseKind
    items: frozenset[tuple[Test, Outcome]]
    """Results that are not negative and still stand: not those that a later version replaced."""
    attempts: Mapping[AttemptResult, int]
    confirmed: Mapping[Test, Confirmation]
    """The confirmatory outcome, or documented refusal, of each reactive test that has one."""
    text_consent: bool
    voicemail_consent: bool
    letter_consent: bool


FLOOR_TEXTS: Final = 3
FLOOR_VOICEMAILS: Final = 2
FLOOR_LETTERS: Final = 1
"""No further action only after >= 3 texts, >= 2 voicemails and >= 1 letter, where allowed (clinical.md 3.5, R20)."""

FLOOR_CALLS: Final = 3
"""Calls in place of texts for a person who may not be texted: a refused channel never lowers the floor to nothing."""

CALLS: Final = frozenset(
    {AttemptResult.NO_ANSWER, AttemptResult.VOICEMAIL, AttemptResult.WRONG_PERSON, AttemptResult.NUMBER_DEAD}
)
"""Attempts by telephone that did not reach the person."""

_CONFIRMING: Final = frozenset(
    {CaseOutcome.CONFIRMED_POSITIVE, CaseOutcome.CONFIRMED_NEGATIVE, CaseOutcome.CONFIRMATION_DECLINED}
)
_TREATING: Final = frozenset({CaseOutcome.TREATED, CaseOutcome.TOLD_AND_BOOKED, CaseOutcome.REFERRED})
"""Ways to end that say a positive person was looked after."""

OUTCOMES_FOR: Final[Mapping[CaseKind, frozenset[CaseOutcome]]] = {
    CaseKind.SAFEGUARDING: frozenset(
        {CaseOutcome.SAFEGUARDING_REFERRED, CaseOutcome.TOLD_NO_ACTION, CaseOutcome.REFERRED}
    ),
    CaseKind.CORRECTION: frozenset(CaseOutcome)
    - {CaseOutcome.RELEASED_AFTER_REVIEW, CaseOutcome.ORDER_ACCEPTED, CaseOutcome.ORDER_REFUSED},
    CaseKind.IDENTITY: frozenset({CaseOutcome.RESOLVED_WITH_LAB, CaseOutcome.NEW_KIT_SENT, CaseOutcome.REFERRED}),
    CaseKind.REACTIVE: _CONFIRMING | _TREATING,
    CaseKind.POSITIVE: _TREATING | {CaseOutcome.NEW_KIT_SENT, CaseOutcome.NO_FURTHER_ACTION},
    CaseKind.RESULT_REVIEW: frozenset(
        {
            CaseOutcome.RELEASED_AFTER_REVIEW,
            CaseOutcome.TOLD_AND_BOOKED,
            CaseOutcome.TOLD_NO_ACTION,
            CaseOutcome.NEW_KIT_SENT,
            CaseOutcome.RESOLVED_WITH_LAB,
            CaseOutcome.REFERRED,
        }
    ),
    CaseKind.ORDER_REVIEW: frozenset({CaseOutcome.ORDER_ACCEPTED, CaseOutcome.ORDER_REFUSED, CaseOutcome.REFERRED}),
    CaseKind.UNDELIVERED_TEXT: frozenset({CaseOutcome.REACHED_ANOTHER_WAY, CaseOutcome.NO_FURTHER_ACTION}),
    CaseKind.LAB_ROW: frozenset({CaseOutcome.RESOLVED_WITH_LAB}),
    CaseKind.FAILED_SAMPLE: frozenset(
        {CaseOutcome.NEW_KIT_SENT, CaseOutcome.REFERRED, CaseOutcome.TOLD_NO_ACTION, CaseOutcome.NO_FURTHER_ACTION}
    ),
    CaseKind.RESULTS_OVERDUE: frozenset({CaseOutcome.RESOLVED_WITH_LAB, CaseOutcome.NEW_KIT_SENT}),
    CaseKind.PARCEL: frozenset({CaseOutcome.NEW_KIT_SENT, CaseOutcome.TOLD_NO_ACTION, CaseOutcome.REACHED_ANOTHER_WAY}),
}


def check_may_close(case: CaseFacts, outcome: CaseOutcome, *, seconded: bool = False) -> None:
    """Raises ServiceError(NOT_NOW) with a sentence unless the case may end this way.

    A reactive screen stays open until each reacting test has a confirmatory outcome or a documented
    refusal, whatever the outcome chosen (FEATURES 67; H14). No further action needs the floor of
    attempts and a second, senior person (FEATURES 64). A positive is not closed as if it had been
    negative.
    """
    if outcome not in OUTCOMES_FOR[case.kind]:
        raise ServiceError(
            Code.NOT_NOW, f"{_named(case.kind)} can't end as '{_words(outcome)}': choose another outcome."
        )
    if unconfirmed := sorted(_test_words(test) for test in reacting(case.items) - case.confirmed.keys()):
        raise ServiceError(
            Code.NOT_NOW,
            f"This case stays open until a confirmatory outcome or refusal is recorded for: {', '.join(unconfirmed)}.",
        )
    if outcome is CaseOutcome.NO_FURTHER_ACTION:
        _check_floor(case, seconded=seconded)
        return
    if outcome in _CONFIRMING and outcome is not _confirming(case.confirmed):
        raise ServiceError(
            Code.NOT_NOW, f"The confirmatory outcomes recorded here do not say '{_words(outcome)}': look at them again."
        )
    if any(result is Outcome.POSITIVE for _, result in case.items) and outcome not in _TREATING:
        raise ServiceError(
            Code.NOT_NOW, "A positive result is in this case: record that the person was treated, booked or referred."
        )


def reacting(items: AbstractSet[tuple[Test, Outcome]]) -> frozenset[Test]:
    """The tests that wait for a sample from the arm."""
    return frozenset(test for test, result in items if result in REACTIONS)


def _confirming(confirmed: Mapping[Test, Confirmation]) -> CaseOutcome | None:
    """What the confirmations come to, worst first; None while there is none."""
    found = set(confirmed.values())
    if Confirmation.POSITIVE in found:
        return CaseOutcome.CONFIRMED_POSITIVE
    if Confirmation.DECLINED in found:
        return CaseOutcome.CONFIRMATION_DECLINED
    return CaseOutcome.CONFIRMED_NEGATIVE if found else None


def _check_floor(case: CaseFacts, *, seconded: bool) -> None:
    made = {result: case.attempts.get(result, 0) for result in AttemptResult}
    missing = []
    if case.text_consent and made[AttemptResult.TEXT] < FLOOR_TEXTS:
        missing.append(f"{FLOOR_TEXTS} texts")
    if not case.text_consent and sum(made[call] for call in CALLS) < FLOOR_CALLS:
        missing.append(f"{FLOOR_CALLS} calls")
    if case.voicemail_consent and made[AttemptResult.VOICEMAIL] < FLOOR_VOICEMAILS:
        missing.append(f"{FLOOR_VOICEMAILS} voicemails")
    if case.letter_consent and made[AttemptResult.LETTER] < FLOOR_LETTERS:
        missing.append(f"{FLOOR_LETTERS} letter")
    if missing:
        raise ServiceError(Code.NOT_NOW, f"No further action needs at least {', '.join(missing)} first.")
    if not seconded:
        raise ServiceError(Code.NOT_NOW, "No further action needs a second, senior person to agree.")


def _words(word: StrEnum) -> str:
    return word.value.replace("_", " ")


def _test_words(test: Test) -> str:
    return "HIV" if test is Test.HIV else _words(test)


def _named(kind: CaseKind) -> str:
    words = _words(kind)
    return f"{'An' if words[0] in 'aeiou' else 'A'} {words} case"
