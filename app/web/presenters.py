"""How values read on staff pages: London time, plain words, and what to do next with each kind of case."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import phonenumbers

from models.actions.lab_desk import Late
from models.rules.call import Say
from models.rules.clinic import (
    SEEN,
    AttemptResult,
    CaseKind,
    CaseOutcome,
    ClinicSays,
    Confirmation,
    IdentityCheck,
    SnoozeReason,
    Step,
    Urgency,
)
from models.rules.kit import show_kit_code
from models.rules.lab import Unread
from models.rules.parcel import WhySetAside
from models.rules.quarantine import SENTENCES
from models.rules.referral import ReferralFor
from models.rules.service import ReferralClinic
from models.rules.staff import OPENS, Action, Actor, services_where
from models.rules.standards import Milestone, Standard
from models.rules.text import TextClass
from models.rules.treatment import Treatment, TreatmentBar, TreatmentQuestion
from models.rules.vocabulary import Language, Quarantine, Specimen, Test
from models.rules.working_days import LONDON, london_day

_KINDS: Final[Mapping[CaseKind, str]] = {
    CaseKind.SAFEGUARDING: "Safeguarding",
    CaseKind.CORRECTION: "Corrected result",
    CaseKind.IDENTITY: "Identity doubt",
    CaseKind.REACTIVE: "Reactive blood test",
    CaseKind.POSITIVE: "Positive",
    CaseKind.RESULT_REVIEW: "Result to review",
    CaseKind.ORDER_REVIEW: "Order to review",
    CaseKind.REPLY: "Reply, or a call asked for",
    CaseKind.UNDELIVERED_TEXT: "Text not delivered",
    CaseKind.LAB_ROW: "Lab row set aside",
    CaseKind.FAILED_SAMPLE: "Failed sample",
    CaseKind.RESULTS_OVERDUE: "Results overdue",
    CaseKind.PARCEL: "Parcel",
    CaseKind.PARTNER_FOLLOW_UP: "Partners, four weeks on",
}

_NEXT: Final[Mapping[CaseKind, str]] = {
    CaseKind.SAFEGUARDING: "Ring, and speak with the safeguarding lead today. Nothing goes out by itself.",
    CaseKind.CORRECTION: "Compare both versions of the result with what the person was told, and say what changed.",
    CaseKind.IDENTITY: "Don't tell any result. Clear up with the lab whose sample it was; a new kit may be needed.",
    CaseKind.REACTIVE: (
        "Say that a screening test reacted, that it needs a blood test from the arm to know, and is not a diagnosis. "
        "Book that test, and record what it said."
    ),
    CaseKind.POSITIVE: "Arrange treatment, and talk about partners.",
    CaseKind.RESULT_REVIEW: "Read the lab's comment and the results. Release them, or ring.",
    CaseKind.ORDER_REVIEW: "Ring before deciding. Then accept or refuse the order.",
    CaseKind.REPLY: (
        "Read the reply below. Distress: ring now. Somebody else's phone: tell nothing, and find the right number. "
        "Else answer by phone."
    ),
    CaseKind.UNDELIVERED_TEXT: "This person has not been told: check the number, too.",
    CaseKind.LAB_ROW: "Ask the lab what the row means. It was not used.",
    CaseKind.FAILED_SAMPLE: "Offer a new kit or a clinic. After repeated failures offer the clinic first.",
    CaseKind.RESULTS_OVERDUE: "Ask the lab where the missing results are.",
    CaseKind.PARCEL: "Find out where the parcel is, and ask for a better address.",
    CaseKind.PARTNER_FOLLOW_UP: "Ask how the partners stand now, count them again, and end this case.",
}
"""Sources: clinical.md 3.5 (who must be rung, the words for a reactive), R20, R24b, R55."""

_CLASSES: Final[Mapping[TextClass, str]] = {
    TextClass.RESULT: "Results, and the words that ask to expect a call",
    TextClass.ROUTINE: "News of an order or a kit",
    TextClass.REMINDER: "Reminders to post a kit back",
    TextClass.CODE: "Codes that prove a number when somebody orders",
}

_OUTCOMES: Final[Mapping[CaseOutcome, str]] = {
    CaseOutcome.TOLD_AND_BOOKED: "Told and booked into a clinic",
    CaseOutcome.TREATED: "Treated",
    CaseOutcome.CONFIRMED_POSITIVE: "Confirmed positive by a sample from the arm",
    CaseOutcome.CONFIRMED_NEGATIVE: "Confirmed negative by a sample from the arm",
    CaseOutcome.CONFIRMATION_DECLINED: "Told, and declined the confirming test",
    CaseOutcome.REFERRED: "Referred, and the referral was acknowledged",
    CaseOutcome.TOLD_NO_ACTION: "Told; nothing more is needed",
    CaseOutcome.NEW_KIT_SENT: "A new kit was sent",
    CaseOutcome.RELEASED_AFTER_REVIEW: "Released after review",
    CaseOutcome.SAFEGUARDING_REFERRED: "Safeguarding referral made",
    CaseOutcome.ORDER_ACCEPTED: "Order accepted",
    CaseOutcome.ORDER_REFUSED: "Order refused",
    CaseOutcome.RESOLVED_WITH_LAB: "Resolved with the lab",
    CaseOutcome.REACHED_ANOTHER_WAY: "Reached in another way",
    CaseOutcome.PARTNERS_FOLLOWED_UP: "Partners counted again after four weeks",
    CaseOutcome.NO_FURTHER_ACTION: "No further action (needs a second, senior person)",
}

_ATTEMPTS: Final[Mapping[AttemptResult, str]] = {
    AttemptResult.SPOKE: "Spoke to the person",
    AttemptResult.NO_ANSWER: "Rang, no answer",
    AttemptResult.VOICEMAIL: "Left a voicemail that reveals nothing",
    AttemptResult.WRONG_PERSON: "Reached somebody else",
    AttemptResult.NUMBER_DEAD: "The number is dead",
    AttemptResult.TEXT: "Send the text that asks to expect a call",
    AttemptResult.LETTER: "Letter that reveals nothing",
    AttemptResult.NOTE: "Note only",
}

_CONFIRMATIONS: Final[Mapping[Confirmation, str]] = {
    Confirmation.POSITIVE: "Confirmed positive",
    Confirmation.NEGATIVE: "Confirmed negative",
    Confirmation.DECLINED: "Declined the test",
}

_SET_ASIDE: Final[Mapping[WhySetAside, str]] = {
    WhySetAside.DAMAGED: "Damaged, or a label smudged",
    WhySetAside.PIECE_MISSING: "A piece is missing",
    WhySetAside.MIXED_UP: "Pieces of another kit lie with it",
    WhySetAside.OPENED: "It was opened before",
    WhySetAside.OTHER: "Something else",
}

_SPECIMENS: Final[Mapping[Specimen, str]] = {
    Specimen.VULVOVAGINAL_SWAB: "vaginal swab",
    Specimen.FIRST_CATCH_URINE: "urine",
    Specimen.RECTAL_SWAB: "rectal swab",
    Specimen.PHARYNGEAL_SWAB: "throat swab",
    Specimen.CAPILLARY_BLOOD: "blood",
}

_PRACTICE: Final = "usual UK practice for such a result, clinical.md 3.5"
_FLOOR: Final = "what must be tried before no further action, as at Sexual Health London, clinical.md 3.5"

_STEPS: Final[Mapping[Step, tuple[str, str]]] = {
    Step.RING: ("Ring, at a time that is safe for them.", _PRACTICE),
    Step.TEXT: ("Send the text that asks them to expect our call: at least three are needed.", _FLOOR),
    Step.VOICEMAIL: ("Ring, and leave the voicemail that says nothing: at least two are needed.", _FLOOR),
    Step.LETTER: ("Send the letter that says nothing: at least one is needed.", _FLOOR),
    Step.CONFIRM: (
        "You spoke. Book the blood test from the arm, and record here what it said, or that they declined it.",
        "a screen that reacted stays open until it is confirmed, hazard H14",
    ),
    Step.TREAT: (
        "You spoke. See that they are treated, and talk about partners.",
        "BASHH standards, clinical.md 1.1, 1.2",
    ),
    Step.END: ("Nothing is left to do: end the case.", "every item of the case has its answer"),
    Step.GIVE_UP_BY_TWO: (
        "Everything was tried. Propose to end without further action; a second, senior person must agree.",
        f"{_FLOOR}, and two people",
    ),
}
"""What policy recommends, and where that stands."""

_SAYS: Final[Mapping[Say, str]] = {
    Say.OPENING: "Before anything else",
    Say.REACTIVE: "A screening test reacted",
    Say.LOW_REACTIVE: "A screening test reacted weakly",
    Say.OTHER_POSITIVE: "Another infection",
    Say.EQUIVOCAL: "No clear answer",
    Say.FAILED_SAMPLE: "A sample that could not be tested",
    Say.CORRECTED: "A corrected result",
    Say.WHOSE_SAMPLE: "Whose sample it was",
    Say.NOT_TOLD: "A text that did not arrive",
    Say.CLOSING: "Before you ring off",
    Say.VOICEMAIL: "If you reach the voicemail",
}

_IDENTITY: Final[Mapping[IdentityCheck, str]] = {
    IdentityCheck.FULL_NAME: "They said their full name",
    IdentityCheck.DATE_OF_BIRTH: "They said their date of birth",
    IdentityCheck.POSTCODE: "They said their postcode",
}

_RESTS: Final[Mapping[SnoozeReason, str]] = {
    SnoozeReason.ASKED_FOR_ANOTHER_TIME: "They asked for another time",
    SnoozeReason.WAITS_FOR_CLINIC: "Waits for a clinic’s answer",
    SnoozeReason.WAITS_FOR_LAB: "Waits for the laboratory",
    SnoozeReason.PERSON_IS_AWAY: "They are away",
}

_TREATMENTS: Final[Mapping[Treatment, str]] = {
    Treatment.IN_CLINIC: "In a clinic",
    Treatment.BY_POST: "By post",
    Treatment.AT_PHARMACY: "At a pharmacy",
    Treatment.ELSEWHERE: "Elsewhere",
}

_QUESTIONS: Final[Mapping[TreatmentQuestion, str]] = {
    TreatmentQuestion.SYMPTOMS: "Any symptoms: pain, bleeding, discharge, fever?",
    TreatmentQuestion.PREGNANT_OR_BREASTFEEDING: "Pregnant, may be, or breastfeeding?",
    TreatmentQuestion.ALLERGY: "Any allergy to doxycycline or another tetracycline?",
    TreatmentQuestion.OTHER_MEDICINES: "Any other medicines that may not go with it?",
    TreatmentQuestion.LONG_TERM_ILLNESS: "A long-term illness, of liver, kidney, muscle or skin?",
}

_BARS: Final[Mapping[TreatmentBar, str]] = {
    TreatmentBar.RESULTS_NOT_COMPLETE: "not every result is there yet",
    TreatmentBar.RESULT_CHANGED: "a result was changed",
    TreatmentBar.NO_CHLAMYDIA: "no chlamydia was found",
    TreatmentBar.NOT_GENITAL_ALONE: "it was found elsewhere than in a genital sample",
    TreatmentBar.ANOTHER_FINDING: "another result is not negative",
    TreatmentBar.UNDER_16: "they are under 16",
    TreatmentBar.ANSWER_SPEAKS_AGAINST: "an answer speaks against it",
}

_CLINIC_SAYS: Final[Mapping[ClinicSays, str]] = {
    ClinicSays.BOOKED: "Booked",
    ClinicSays.ATTENDED: "Attended",
    ClinicSays.TREATED: "Treated",
    ClinicSays.DID_NOT_ATTEND: "Did not attend",
    ClinicSays.CANCELLED: "The appointment was cancelled",
}

_ASKED: Final[Mapping[ReferralFor, str]] = {
    ReferralFor.CONFIRMATION: "Sample from the arm",
    ReferralFor.TREATMENT: "Treatment",
    ReferralFor.ASSESSMENT: "Assessment",
}

_URGENCIES: Final[Mapping[Urgency, str]] = {
    Urgency.URGENT: "Urgent",
    Urgency.SOON: "Soon",
    Urgency.ROUTINE: "Routine",
}

_TESTS: Final[Mapping[Test, str]] = {
    Test.CHLAMYDIA: "Chlamydia",
    Test.GONORRHOEA: "Gonorrhoea",
    Test.SYPHILIS: "Syphilis",
    Test.HIV: "HIV",
    Test.HEPATITIS_B: "Hepatitis B",
    Test.HEPATITIS_C: "Hepatitis C",
    Test.TRICHOMONAS: "Trichomonas",
    Test.MYCOPLASMA_GENITALIUM: "Mycoplasma genitalium",
}

# By type first: members of different enums are equal where their words are.
_UNREAD: Final[Mapping[Unread, str]] = {
    Unread.UNDER_WAY: "Its name says that it is still being written: ask the laboratory to rename it",
    Unread.NOT_WHOLE: "The control file or marker that belongs to it never came: ask the laboratory for it",
    Unread.ALONE: "A control file or marker without its file: ask the laboratory for the file",
    Unread.MISPLACED: "It lies where no results are looked for: ask the laboratory to send it to the right folder",
    Unread.NOT_TAKEN: "We fail to take it: tell support",
}


_SAID: Final[Mapping[type, Mapping[Any, str]]] = {
    WhySetAside: _SET_ASIDE,
    Specimen: _SPECIMENS,
    CaseKind: _KINDS,
    CaseOutcome: _OUTCOMES,
    AttemptResult: _ATTEMPTS,
    Confirmation: _CONFIRMATIONS,
    Say: _SAYS,
    IdentityCheck: _IDENTITY,
    SnoozeReason: _RESTS,
    Treatment: _TREATMENTS,
    TreatmentQuestion: _QUESTIONS,
    TreatmentBar: _BARS,
    Urgency: _URGENCIES,
    ClinicSays: _CLINIC_SAYS,
    ReferralFor: _ASKED,
    Test: _TESTS,
    Unread: _UNREAD,
}


def say(word: str) -> str:
    """A closed word as staff read it; a code that has no words of its own without its underscores."""
    said = _SAID.get(type(word), {}).get(word)
    return said or str(word).replace("_", " ").replace(".", ": ").capitalize()


def options(words: Iterable[str]) -> list[tuple[str, str]]:
    """Closed words as the choices of a form: the value that is sent, and how it reads."""
    return [(str(word), say(word)) for word in words]


_PARCELS: Final[Mapping[str, str]] = {
    "lost": "Tell the person that another kit goes, and send it: the first is void from then on.",
    "not_received": "Ask the person who else opens their post, then send another kit. The first is void then.",
    "arrived_opened": "It must not be used. Ask whether somebody else may know, and if it is safe to send another.",
    "incomplete": "Send another kit. What came must not be used.",
    "returned_to_sender": "Ask the person for a better address, or a counter, and send another kit.",
    "refused_by_lab": "Ask the laboratory why it turned the parcel back. The person may need another kit.",
    "stuck": "Ask Royal Mail where it is. Nothing for a week more: send another kit.",
    "silent_outbound": "Ask the person whether it came. If not, send another kit.",
    "unknown_scan": "Look at the courier's own page: it said a word that we do not know.",
    "postage_refused": "Correct the address at the courier's, or buy the postage by hand, and pack the kit.",
    "postage_to_cancel": "Cancel this postage at the courier's: its parcel never leaves. Destroy the label.",
    "batch_held": "Destroy the batch's paper and void it: its kits are printed again.",
    "lot_recalled": "Stop the kit if it is here. If it left, ask the person not to use it, and send another.",
    "not_at_counter": "Ask the counter whether it came. Nothing there: tell the person, and send another kit.",
    "not_back_from_counter": "Ask the counter to send it back, unopened.",
    "code_not_texted": "Ring, and tell the person where their kit waits and its code.",
}
"""What to do about a parcel, by what happened to it."""


def leaflet_words(language: Language, *, large: bool) -> str:
    """Which leaflet belongs in a box, for whoever packs it."""
    return f"{'Welsh' if language is Language.WELSH else 'English'}{', LARGE PRINT' if large else ''}"


def next_step(kind: CaseKind, why: str = "") -> str:
    """What a case of a kind is for; of a parcel, by what happened to it."""
    if kind is CaseKind.PARCEL and why.startswith("set_aside"):
        return "Take it from the bench. Mend it and pack it, or destroy it and print it anew."
    return _PARCELS.get(why, _NEXT[kind]) if kind is CaseKind.PARCEL else _NEXT[kind]


def step_words(step: Step) -> str:
    """What policy recommends now; nothing where the kind says it all."""
    return _STEPS[step][0] if step in _STEPS else ""


def step_source(step: Step) -> str:
    """Where a recommended step stands written."""
    return _STEPS[step][1] if step in _STEPS else ""


def moment(at: datetime) -> str:
    """An instant in London: 24 November 2026, 14:05."""
    return f"{at.astimezone(LONDON):%-d %B %Y, %H:%M}"


def day(on: date) -> str:
    """A date as staff read it: 24 November 2026."""
    return f"{on:%-d %B %Y}"


def due(at: datetime, now: datetime) -> str:
    """How a due time stands to now, in words as well as in figures."""
    if at <= now:
        return f"Overdue by {_span(now - at)}"
    days = (london_day(at) - london_day(now)).days
    clock = f"{at.astimezone(LONDON):%H:%M}"
    match days:
        case 0:
            return f"Due today, {clock}"
        case 1:
            return f"Due tomorrow, {clock}"
        case _:
            return f"Due {at.astimezone(LONDON):%A %-d %B}, {clock}"


def _span(length: timedelta) -> str:
    for unit, seconds in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(length.total_seconds()) // seconds
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def person(actor: str, me: str = "") -> str:
    """Who acted, without a name: we keep none. A flow of ours is kitpost itself."""
    if actor == me:
        return "You"
    kind, _, which = actor.partition(":")
    if actor == "resident":
        return "The resident, by text"
    called = {"staff": "Colleague", "packer": "Packer", "channel": "Ordering channel"}.get(kind)
    return f"{called} {which}" if called else "kitpost"


def number(mobile: str) -> str:
    """A mobile as it is dialled by eye: +44 7700 900105."""
    return phonenumbers.format_number(phonenumbers.parse(mobile), phonenumbers.PhoneNumberFormat.INTERNATIONAL)


def yes_no(value: bool) -> str:  # noqa: FBT001 - a template's filter takes what stands before it
    """A consent in a word."""
    return "Yes" if value else "No"


def answer(value: object) -> str:
    """One answer of an order as staff read it."""
    if isinstance(value, bool):
        return yes_no(value)
    if isinstance(value, list):
        return ", ".join(answer(each) for each in value) or "None"
    return say(str(value)) if value not in (None, "") else "Not answered"


_LATE: Final[Mapping[Late, str]] = {
    Late.NO_RESULT: "At the laboratory, and not all results are final",
    Late.NOT_BOOKED_IN: "Posted back, and not booked in",
    Late.NOT_ACKNOWLEDGED: "Its request was never acknowledged",
    Late.REQUEST_REFUSED: "The laboratory refused its request",
    Late.REQUEST_IN_DOUBT: "Whether its request arrived is not known: ask the laboratory",
}


_FIELDS: Final[Mapping[str, str]] = {
    "test_codes": "Test",
    "sub_id": "Sub-id",
    "value_type": "Type of value",
    "value_raw": "Value",
    "value_codes": "Value, coded",
    "flags_raw": "Flags",
    "row_status_raw": "Status of the row",
    "report_status_raw": "Status of the order",
    "tested_raw": "Tested",
    "sampled_raw": "Sampled",
    "collected_raw": "Collected",
    "received_raw": "Received",
    "authorised_raw": "Authorised",
    "panel_codes": "Panel",
    "kit_refs": "Kit ids",
    "tube_refs": "Tube ids",
    "sites_raw": "Specimen",
    "parent_ref": "Follows",
    "reject_raw": "Why rejected",
    "revision_raw": "Revision",
    "dob": "Date of birth",
    "nhs_number": "NHS number",
}
"""Fields of a laboratory's row; the others read well as they are."""


def field(name: str) -> str:
    """A field of a laboratory's row in words."""
    return _FIELDS.get(name) or say(name)


def late_words(what: Late) -> str:
    """What a laboratory owes a word about."""
    return _LATE[what]


def for_lab(reason: Quarantine) -> str:
    """What the laboratory is told about a quarantine word."""
    return SENTENCES[reason].lab


def for_clinician(reason: Quarantine) -> str:
    """What a quarantine word means for the person and the clinic."""
    return SENTENCES[reason].clinician


def hours(length: float) -> str:
    """So many hours, as people say them."""
    if length < 1:
        return f"{round(length * 60)} minutes"
    return f"{length:.1f} hours" if length < 48 else f"{length / 24:.1f} days"  # noqa: PLR2004 - two days


def looks_after_labs(actor: Actor) -> bool:
    """Whether the lab desk is this person's."""
    return bool(services_where(actor, Action.LIAISE_WITH_LABS))


def may_stop_texts(actor: Actor) -> bool:
    """Whether the switches of sending are this person's anywhere."""
    return bool(services_where(actor, Action.STOP_TEXTS))


def reads_messages(actor: Actor) -> bool:
    """Whether the messages, which may say what a result was, are this person's anywhere."""
    return bool(services_where(actor, Action.READ_RESULTS))


def may_pack(actor: Actor) -> bool:
    """Whether the packing bench is this person's."""
    return bool(services_where(actor, Action.PACK_KITS))


def sees_logistics(actor: Actor) -> bool:
    """Whether the page of kits, stock and post is this person's."""
    return bool(services_where(actor, Action.SEE_LOGISTICS))


def clinic_name(clinics: Sequence[ReferralClinic], clinic_id: str) -> str:
    """What a clinic is called; its id where it is in the council's file no more."""
    return next((each.name for each in clinics if each.id == clinic_id), clinic_id)


def named(clinics: Sequence[ReferralClinic]) -> list[tuple[str, str]]:
    """Clinics as the choices of a form."""
    return [(each.id, each.name) for each in clinics]


def has_worklist(actor: Actor) -> bool:
    """Whether cases of any kind are this person's to see."""
    return any(services_where(actor, action) for action in {*OPENS.values(), Action.OVERSEE_CASES})


def looks_up_kits(actor: Actor) -> bool:
    """Whether kits are looked up on a page of their own: by those who have no worklist to do it from."""
    return not has_worklist(actor) and bool(services_where(actor, Action.SEE_TIMELINE))


def stands_at_counter(actor: Actor) -> bool:
    """Whether parcels are handed over by this person."""
    return bool(services_where(actor, Action.HAND_OVER_PARCELS))


def sees_board(actor: Actor) -> bool:
    """Whether the board of queues and times is this person's."""
    return bool(services_where(actor, Action.SEE_BOARD))


_REACHED: Final[Mapping[Milestone, str]] = {
    Milestone.TRIED: "First try",
    Milestone.SPOKEN: "Spoken to",
    Milestone.TREATED: "Treated",
}


def standard_words(standard: Standard) -> str:
    """One standard in plain words."""
    days = f"{standard.within_days} {'working day' if standard.working_days else 'day'}"
    return f"{_REACHED[standard.milestone]} within {days}{'' if standard.within_days == 1 else 's'}"


def standard_heading(kind: CaseKind) -> str:
    """Over the times of one kind of result. A reactive screen is no diagnosis, and is not called one."""
    return "From a reactive screen to the person" if kind is CaseKind.REACTIVE else "From a positive to the person"


def text_class(each: TextClass) -> str:
    """A class of texts in plain words."""
    return _CLASSES[each]


WORDS: Final[Mapping[str, object]] = {
    "say": say,
    "options": options,
    "next_step": next_step,
    "step_words": step_words,
    "step_source": step_source,
    "moment": moment,
    "due": due,
    "person": person,
    "number": number,
    "yes_no": yes_no,
    "answer": answer,
    "kit": show_kit_code,
    "field": field,
    "late_words": late_words,
    "for_lab": for_lab,
    "for_clinician": for_clinician,
    "hours": hours,
    "looks_after_labs": looks_after_labs,
    "may_stop_texts": may_stop_texts,
    "reads_messages": reads_messages,
    "may_pack": may_pack,
    "sees_logistics": sees_logistics,
    "sees_board": sees_board,
    "clinic_name": clinic_name,
    "named": named,
    "seen_words": SEEN,
    "has_worklist": has_worklist,
    "looks_up_kits": looks_up_kits,
    "stands_at_counter": stands_at_counter,
    "day": day,
    "standard_words": standard_words,
    "standard_heading": standard_heading,
    "text_class": text_class,
}
"""What templates may call."""
