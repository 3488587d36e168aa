"""Clinic cases: what kinds there are, who owns them, when they are due, and how they may end.

Sources: clinical.md 1.1 (targets), 3.5 (what needs a person), 9 (H4, H7, H14); RULINGS 6; FEATURES 62-67.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final, assert_never

from models.rules.candour import Candour
from models.rules.errors import Code, ServiceError
from models.rules.release import Reason, ReleaseDecision
from models.rules.service import ClinicPolicy
from models.rules.treatment import REMOTE, Treatment
from models.rules.vocabulary import IDENTITY_FAILURES, REACTIONS, SAMPLE_FAILURES, Outcome, Test
from models.rules.working_days import add_working_hours


class NoticeChannel(StrEnum):
    """How a role on duty is told that cases wait, beside the worklist."""

    TEXT = "text"
    MAIL = "mail"


class CaseKind(StrEnum):
    """What a case is about: one queue each, most urgent first."""

    SAFEGUARDING = "safeguarding"
    CORRECTION = "correction"
    IDENTITY = "identity"
    REACTIVE = "reactive"
    POSITIVE = "positive"
    RESULT_REVIEW = "result_review"
    ORDER_REVIEW = "order_review"
    REPLY = "reply"
    """A resident answered a text with something that a person must read."""
    UNDELIVERED_TEXT = "undelivered_text"
    LAB_ROW = "lab_row"
    FAILED_SAMPLE = "failed_sample"
    RESULTS_OVERDUE = "results_overdue"
    PARCEL = "parcel"
    PARTNER_FOLLOW_UP = "partner_follow_up"


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


class IdentityCheck(StrEnum):
    """What the person said of themselves, and the caller ticked, before anything was told."""

    FULL_NAME = "full_name"
    DATE_OF_BIRTH = "date_of_birth"
    POSTCODE = "postcode"


IDENTITY_FLOOR: Final = frozenset({IdentityCheck.FULL_NAME, IdentityCheck.DATE_OF_BIRTH})
"""Who can't say both is told nothing (H1; FEATURES 54)."""


class SnoozeReason(StrEnum):
    """Why a case may rest for a while."""

    ASKED_FOR_ANOTHER_TIME = "asked_for_another_time"
    WAITS_FOR_CLINIC = "waits_for_clinic"
    WAITS_FOR_LAB = "waits_for_lab"
    PERSON_IS_AWAY = "person_is_away"


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
    PARTNERS_FOLLOWED_UP = "partners_followed_up"


class Confirmation(StrEnum):
    """What the sample from the arm said of one reactive screen, or that the person declined one."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    DECLINED = "declined"


class ClinicSays(StrEnum):
    """What a clinic says of somebody who was referred to it."""

    BOOKED = "booked"
    ATTENDED = "attended"
    TREATED = "treated"
    DID_NOT_ATTEND = "did_not_attend"
    CANCELLED = "cancelled"


SEEN: Final = frozenset({ClinicSays.ATTENDED, ClinicSays.TREATED})
"""The person was in the clinic: nobody chases them any more."""


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
    CaseKind.REPLY: Urgency.SOON,
    CaseKind.UNDELIVERED_TEXT: Urgency.SOON,
    CaseKind.LAB_ROW: Urgency.SOON,
    CaseKind.FAILED_SAMPLE: Urgency.ROUTINE,
    CaseKind.RESULTS_OVERDUE: Urgency.ROUTINE,
    CaseKind.PARCEL: Urgency.ROUTINE,
    CaseKind.PARTNER_FOLLOW_UP: Urgency.ROUTINE,
}

OWNER: Final[Mapping[CaseKind, str]] = {
    CaseKind.SAFEGUARDING: "safeguarding_lead",
    CaseKind.CORRECTION: "clinician",
    CaseKind.IDENTITY: "clinician",
    CaseKind.REACTIVE: "health_adviser",
    CaseKind.POSITIVE: "health_adviser",
    CaseKind.RESULT_REVIEW: "clinician",
    CaseKind.ORDER_REVIEW: "clinician",
    CaseKind.REPLY: "health_adviser",
    CaseKind.UNDELIVERED_TEXT: "health_adviser",
    CaseKind.LAB_ROW: "lab_liaison",
    CaseKind.FAILED_SAMPLE: "health_adviser",
    CaseKind.RESULTS_OVERDUE: "lab_liaison",
    CaseKind.PARCEL: "packer",
    CaseKind.PARTNER_FOLLOW_UP: "health_adviser",
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
    """The due time after an attempt: later by the ladder after a try, and after a talk; never sooner.

    A wrong number or a note buys no time: another way must be tried now.
    """
    match result:
        case AttemptResult.NO_ANSWER | AttemptResult.VOICEMAIL | AttemptResult.TEXT | AttemptResult.LETTER:
            hours = policy.retry_working_hours
        case AttemptResult.SPOKE:
            hours = policy.after_spoke_working_hours
        case AttemptResult.WRONG_PERSON | AttemptResult.NUMBER_DEAD | AttemptResult.NOTE:
            return due
        case _:
            assert_never(result)
    return max(due, add_working_hours(now, hours, policy.opens, policy.closes))


def check_identity(result: AttemptResult, ticked: AbstractSet[IdentityCheck]) -> None:
    """Raises ServiceError(BAD_INPUT) when somebody is said to have been spoken to who did not say who they are."""
    if result is AttemptResult.SPOKE and not ticked >= IDENTITY_FLOOR:
        raise ServiceError(
            Code.BAD_INPUT, "Tick the full name and the date of birth that the person said: else it was not them."
        )


def check_snooze(until: datetime, *, now: datetime, snoozed_before: int, policy: ClinicPolicy) -> None:
    """Raises ServiceError(NOT_NOW) for a rest that is over already, too long, or one too many."""
    latest = add_working_hours(now, policy.snooze_working_hours, policy.opens, policy.closes)
    if not now < until <= latest:
        raise ServiceError(
            Code.NOT_NOW,
            f"A case may rest for up to {policy.snooze_working_hours} working hours from now: choose less.",
        )
    if snoozed_before >= policy.snoozes:
        raise ServiceError(Code.NOT_NOW, f"This case has rested {snoozed_before} times since its news: take it up now.")


def is_stale(*, touched: datetime, due: datetime, now: datetime, policy: ClinicPolicy) -> bool:
    """Whether a case is due and whoever holds it has done nothing for so many working hours: then it is anyone's."""
    return due <= now and add_working_hours(touched, policy.claim_working_hours, policy.opens, policy.closes) <= now


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """All that the rule about closing a case may look at."""

    kind: CaseKind
    items: frozenset[tuple[Test, Outcome]]
    """Results that are not negative and still stand: not those that a later version replaced."""
    attempts: Mapping[AttemptResult, int]
    """Since the newest of those results came: tries before it were about something else."""
    confirmed: Mapping[Test, Confirmation]
    """The confirmatory outcome, or documented refusal, of each reactive test that has one."""
    text_consent: bool
    voicemail_consent: bool
    letter_consent: bool
    texts_left: int = 0
    """Texts about these results that the provider took. A text that is owed or failed told nobody."""
    number_usable: bool = True
    """False when the number was found wrong or dead since it was proved: no text and no voicemail goes there."""
    candour: Candour = Candour.NOT_NEEDED
    """Whether its person was told what changed since, and how far openness about that has come."""
    clinic_says: ClinicSays | None = None
    """The last word of a clinic that they were referred to since those results came."""
    days_since_news: int = 0
    """Whole London days since the newest of those results came."""

    @property
    def may_text(self) -> bool:
        """Whether a text may go to this person at this number."""
        return self.text_consent and self.number_usable

    @property
    def may_leave_voicemail(self) -> bool:
        """Whether a voicemail may be left at this number."""
        return self.voicemail_consent and self.number_usable


FLOOR_TEXTS: Final = 3
FLOOR_VOICEMAILS: Final = 2
FLOOR_LETTERS: Final = 1
"""No further action only after >= 3 texts, >= 2 voicemails and >= 1 letter, where allowed (clinical.md 3.5, R20)."""

FLOOR_CALLS: Final = 3
"""Calls in place of texts for a person who may not be texted: a refused channel never lowers the floor to nothing.

A reactive takes as many calls beside its texts: clinical.md 3.5 has a clinician telephone.
"""

FLOOR_REACTIVE_DAYS: Final = 28
"""Days for which somebody with a reactive screen is looked for at least. Ours [D]: none is published; to be signed."""

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
    - {
        CaseOutcome.RELEASED_AFTER_REVIEW,
        CaseOutcome.ORDER_ACCEPTED,
        CaseOutcome.ORDER_REFUSED,
        CaseOutcome.PARTNERS_FOLLOWED_UP,
    },
    CaseKind.IDENTITY: frozenset({CaseOutcome.RESOLVED_WITH_LAB, CaseOutcome.NEW_KIT_SENT, CaseOutcome.REFERRED}),
    CaseKind.REACTIVE: _CONFIRMING | _TREATING | {CaseOutcome.NO_FURTHER_ACTION},
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
    CaseKind.REPLY: frozenset(
        {
            CaseOutcome.REACHED_ANOTHER_WAY,
            CaseOutcome.TOLD_NO_ACTION,
            CaseOutcome.TOLD_AND_BOOKED,
            CaseOutcome.NEW_KIT_SENT,
            CaseOutcome.REFERRED,
            CaseOutcome.SAFEGUARDING_REFERRED,
        }
    ),
    CaseKind.UNDELIVERED_TEXT: frozenset({CaseOutcome.REACHED_ANOTHER_WAY, CaseOutcome.NO_FURTHER_ACTION}),
    CaseKind.LAB_ROW: frozenset({CaseOutcome.RESOLVED_WITH_LAB}),
    CaseKind.FAILED_SAMPLE: frozenset(
        {CaseOutcome.NEW_KIT_SENT, CaseOutcome.REFERRED, CaseOutcome.TOLD_NO_ACTION, CaseOutcome.NO_FURTHER_ACTION}
    ),
    CaseKind.RESULTS_OVERDUE: frozenset({CaseOutcome.RESOLVED_WITH_LAB, CaseOutcome.NEW_KIT_SENT}),
    CaseKind.PARCEL: frozenset({CaseOutcome.NEW_KIT_SENT, CaseOutcome.TOLD_NO_ACTION, CaseOutcome.REACHED_ANOTHER_WAY}),
    CaseKind.PARTNER_FOLLOW_UP: frozenset({CaseOutcome.PARTNERS_FOLLOWED_UP}),
}


def check_may_close(case: CaseFacts, outcome: CaseOutcome, *, seconded: bool = False) -> None:
    """Raises ServiceError(NOT_NOW) with a sentence unless the case may end this way.

    A reactive screen stays open until each reacting test has a confirmatory outcome or a documented
    refusal (FEATURES 67; H14), or until two people agree that its person can't be found. No further
    action needs the floor of attempts and a second, senior person (FEATURES 64; clinical.md 3.5). A
    positive is not closed as if it had been negative.
    """
    if outcome not in OUTCOMES_FOR[case.kind]:
        raise ServiceError(
            Code.NOT_NOW, f"{_named(case.kind)} can't end as '{_words(outcome)}': choose another outcome."
        )
    unconfirmed = sorted(_test_words(test) for test in reacting(case.items) - case.confirmed.keys())
    if outcome is CaseOutcome.NO_FURTHER_ACTION:
        _check_floor(case, reactive=bool(unconfirmed), seconded=seconded)
        return
    _check_candour(case)
    if unconfirmed:
        raise ServiceError(
            Code.NOT_NOW,
            f"This case stays open until a confirmatory outcome or refusal is recorded for: {', '.join(unconfirmed)}.",
        )
    if outcome in _CONFIRMING and outcome is not _confirming(case.confirmed):
        raise ServiceError(
            Code.NOT_NOW, f"The confirmatory outcomes recorded here do not say '{_words(outcome)}': look at them again."
        )
    if any(result is Outcome.POSITIVE for _, result in case.items) and outcome not in _TREATING:
        raise ServiceError(
            Code.NOT_NOW, "A positive result is in this case: record that the person was treated, booked or referred."
        )


def _check_candour(case: CaseFacts) -> None:
    """Whoever was told what turned out wrong is told that, too, and a second person signs it (H3)."""
    if case.candour is Candour.MISSING:
        raise ServiceError(
            Code.NOT_NOW, "They were told a result that has changed: record first what you said to them about that."
        )
    if case.candour is Candour.WRITTEN:
        raise ServiceError(Code.NOT_NOW, "What was said about the changed result needs a second person's signature.")


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


def _check_floor(case: CaseFacts, *, reactive: bool, seconded: bool) -> None:
    missing = missing_of_floor(case, reactive=reactive)
    if missing:
        raise ServiceError(Code.NOT_NOW, f"No further action needs at least {', '.join(missing.values())} first.")
    if reactive and case.days_since_news < FLOOR_REACTIVE_DAYS:
        raise ServiceError(
            Code.NOT_NOW,
            f"Somebody with a reactive screen is looked for at least {FLOOR_REACTIVE_DAYS} days before two people "
            "may end it.",
        )
    if not seconded:
        raise ServiceError(Code.NOT_NOW, "No further action needs a second, senior person to agree.")


def missing_of_floor(case: CaseFacts, *, reactive: bool) -> dict[AttemptResult, str]:
    """What the floor of attempts still lacks, in words, by the kind of attempt that would mend it."""
    made = {result: case.attempts.get(result, 0) for result in AttemptResult}
    calls = sum(made[call] for call in CALLS | {AttemptResult.SPOKE})
    wanted = (
        (AttemptResult.NO_ANSWER, reactive or not case.may_text, calls, FLOOR_CALLS, "calls"),
        (AttemptResult.TEXT, case.may_text, case.texts_left, FLOOR_TEXTS, "texts that left"),
        (
            AttemptResult.VOICEMAIL,
            case.may_leave_voicemail,
            made[AttemptResult.VOICEMAIL],
            FLOOR_VOICEMAILS,
            "voicemails",
        ),
        (AttemptResult.LETTER, case.letter_consent, made[AttemptResult.LETTER], FLOOR_LETTERS, "letter"),
    )
    return {result: f"{floor} {words}" for result, applies, have, floor, words in wanted if applies and have < floor}


# ── What to do next ──────────────────────────────────────────────────────────────────────────


class Step(StrEnum):
    """The recommended next step with a case."""

    AS_THE_KIND_SAYS = "as_the_kind_says"
    RING = "ring"
    TEXT = "text"
    VOICEMAIL = "voicemail"
    LETTER = "letter"
    CONFIRM = "confirm"
    TREAT = "treat"
    END = "end"
    GIVE_UP_BY_TWO = "give_up_by_two"


RUNG_ABOUT: Final = frozenset(
    {CaseKind.REACTIVE, CaseKind.POSITIVE, CaseKind.CORRECTION, CaseKind.UNDELIVERED_TEXT, CaseKind.FAILED_SAMPLE}
)
"""Kinds whose person must be reached."""


def next_step(case: CaseFacts) -> Step:
    """What policy recommends now: ring first, then the other agreed ways, then what the talk left to do."""
    if case.kind not in RUNG_ABOUT:
        return Step.AS_THE_KIND_SAYS
    unconfirmed = reacting(case.items) - case.confirmed.keys()
    if case.attempts.get(AttemptResult.SPOKE, 0) or case.clinic_says in SEEN:
        if unconfirmed:
            return Step.CONFIRM
        positive = any(result is Outcome.POSITIVE for _, result in case.items)
        return Step.TREAT if positive and case.clinic_says is not ClinicSays.TREATED else Step.END
    if not any(case.attempts.get(call, 0) for call in CALLS):
        return Step.RING
    missing = missing_of_floor(case, reactive=bool(unconfirmed))
    for result, step in _BY_ATTEMPT.items():
        if result in missing:
            return step
    if unconfirmed and case.days_since_news < FLOOR_REACTIVE_DAYS:
        return Step.RING
    return Step.GIVE_UP_BY_TWO if CaseOutcome.NO_FURTHER_ACTION in OUTCOMES_FOR[case.kind] else Step.RING


_BY_ATTEMPT: Final[Mapping[AttemptResult, Step]] = {
    AttemptResult.TEXT: Step.TEXT,
    AttemptResult.VOICEMAIL: Step.VOICEMAIL,
    AttemptResult.LETTER: Step.LETTER,
    AttemptResult.NO_ANSWER: Step.RING,
}


# ── What an ending must say ──────────────────────────────────────────────────────────────────

LONGEST_PLACE: Final = 120


@dataclass(frozen=True, slots=True)
class EndingDetails:
    """Where, when and how: what belongs to the outcomes that name something outside."""

    place: str = ""
    """The clinic or service: booked into, referred to, treated at. No name of a person."""
    on: date | None = None
    """The London day: of the appointment, the treatment, the acknowledgement or the referral."""
    treatment: Treatment | None = None


_FUTURE: Final = frozenset({CaseOutcome.TOLD_AND_BOOKED})
_PLACED: Final = frozenset({CaseOutcome.TOLD_AND_BOOKED, CaseOutcome.REFERRED, CaseOutcome.SAFEGUARDING_REFERRED})
_DATED: Final = _PLACED | {CaseOutcome.TREATED}


def check_ending(
    outcome: CaseOutcome, details: EndingDetails, *, today: date, remote_signed: Treatment | None = None
) -> None:
    """Raises ServiceError with one sentence when an ending does not say where, when or how.

    `remote_signed`: the way of remote treatment that a prescriber signed for this very result, if any (H15).
    """
    if len(details.place) > LONGEST_PLACE:
        raise ServiceError(Code.BAD_INPUT, f"A place may have up to {LONGEST_PLACE} characters: shorten it.")
    if outcome in _PLACED and not details.place:
        raise ServiceError(Code.BAD_INPUT, "Say which clinic or service it was.")
    if outcome in _DATED and details.on is None:
        raise ServiceError(Code.BAD_INPUT, "Say on which day it was, or is to be.")
    if details.on is not None and outcome in _DATED and _is_wrong_way(details.on, today, ahead=outcome in _FUTURE):
        raise ServiceError(
            Code.BAD_INPUT,
            "An appointment lies ahead: give its day."
            if outcome in _FUTURE
            else "This has happened already: give the day, today or before.",
        )
    if outcome is CaseOutcome.TREATED and details.treatment is None:
        raise ServiceError(Code.BAD_INPUT, "Say how the person was treated.")
    if outcome is CaseOutcome.TREATED and details.treatment in REMOTE and details.treatment is not remote_signed:
        raise ServiceError(
            Code.NOT_NOW, "Treatment by post or at a pharmacy takes a prescriber's signature for these results first."
        )


def _is_wrong_way(day: date, today: date, *, ahead: bool) -> bool:
    return day < today if ahead else day > today


def _words(word: StrEnum) -> str:
    return word.value.replace("_", " ")


def _test_words(test: Test) -> str:
    return "HIV" if test is Test.HIV else _words(test)


def _named(kind: CaseKind) -> str:
    words = _words(kind)
    return f"{'An' if words[0] in 'aeiou' else 'A'} {words} case"
