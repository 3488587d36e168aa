"""What may be told by text, in which window, and when a body is fit to leave.

The types below are the whole of what a text can say. `SwabInfection` has two members, so no
finding of HIV, syphilis or hepatitis can be put into any text: those people get
`ExpectCall`, which takes nothing (law 5; H7; FEATURES 48). Words live in `templates/texts/`.

Sources: clinical.md 3.2, 3.5, 9 (H5, H7, H8, H18, H22, H30); sms-and-post.md A3; RULINGS 6, 14.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Self, assert_never

from models.rules.collection import read_collection_code
from models.rules.errors import Code, ServiceError
from models.rules.release import Target
from models.rules.service import LONGEST_TOLD_AS, TextPolicy, TextWindow
from models.rules.vocabulary import SAMPLE_FAILURES, Language, Outcome, Site, Test, Wording


class TextPurpose(StrEnum):
    """Every text there is. A purpose without a template stops the start."""

    ORDER_RECEIVED = "order_received"
    KIT_POSTED = "kit_posted"
    KIT_READY = "kit_ready"
    RETURN_REMINDER = "return_reminder"
    RECEIVED_AT_LAB = "received_at_lab"
    KIT_LAPSED = "kit_lapsed"
    DELAYED = "delayed"
    RETEST_DUE = "retest_due"
    ALL_CLEAR = "all_clear"
    FAILED_SAMPLE = "failed_sample"
    SWAB_POSITIVE = "swab_positive"
    PLEASE_EXPECT_OUR_CALL = "please_expect_our_call"


class TextClass(StrEnum):
    """Which window a text leaves in, and what can be stopped by itself."""

    RESULT = "result"
    ROUTINE = "routine"
    REMINDER = "reminder"
    CODE = "code"
    """A code that proves a number. Its person waits for it, so it has no window and is never owed."""


CLASS_OF: Final[dict[TextPurpose, TextClass]] = {
    TextPurpose.ORDER_RECEIVED: TextClass.ROUTINE,
    TextPurpose.KIT_POSTED: TextClass.ROUTINE,
    TextPurpose.KIT_READY: TextClass.ROUTINE,
    TextPurpose.RETURN_REMINDER: TextClass.REMINDER,
    TextPurpose.RECEIVED_AT_LAB: TextClass.ROUTINE,
    TextPurpose.KIT_LAPSED: TextClass.ROUTINE,
    TextPurpose.DELAYED: TextClass.ROUTINE,
    TextPurpose.RETEST_DUE: TextClass.ROUTINE,
    TextPurpose.ALL_CLEAR: TextClass.RESULT,
    TextPurpose.FAILED_SAMPLE: TextClass.RESULT,
    TextPurpose.SWAB_POSITIVE: TextClass.RESULT,
    TextPurpose.PLEASE_EXPECT_OUR_CALL: TextClass.RESULT,
}
"""Every first contact about an outcome is of one class, so that the hour tells nothing (FEATURES 50; H22)."""


def window_of(purpose: TextPurpose, policy: TextPolicy) -> TextWindow:
    """The hours in which a text of this purpose may leave."""
    match CLASS_OF[purpose]:
        case TextClass.RESULT:
            return policy.result_window
        case TextClass.ROUTINE:
            return policy.routine_window
        case TextClass.REMINDER:
            return policy.reminder_window
        case TextClass.CODE:
            return TextWindow(time.min, time.max, working_days_only=False)


# ── What a text can say ──────────────────────────────────────────────────────────────────────


class SwabInfection(StrEnum):
    """The findings that may be told by text. HIV, syphilis and hepatitis have no member, and never get one."""

    CHLAMYDIA = "chlamydia"
    GONORRHOEA = "gonorrhoea"


class TellableFailure(StrEnum):
    """Why a sample could not be tested, as far as a text may say it. Identity doubts are a person's task."""

    INSUFFICIENT = "insufficient"
    INHIBITORY = "inhibitory"
    HAEMOLYSED = "haemolysed"
    LEAKED = "leaked"
    DAMAGED = "damaged"
    NO_SAMPLE = "no_sample"
    TOO_OLD = "too_old"
    EXPIRED_DEVICE = "expired_device"
    WRONG_CONTAINER = "wrong_container"

    @classmethod
    def of(cls, outcome: Outcome) -> "TellableFailure":
        """The reason for a failed outcome. Raises ServiceError(BAD_INPUT) for any other outcome."""
        if outcome not in SAMPLE_FAILURES:
            raise ServiceError(Code.BAD_INPUT, "This outcome is not a failed sample: a person must decide.")
        return cls(outcome.value)


@dataclass(frozen=True, slots=True)
class FailedTest:
    """One requested test that could not be done, and why."""

    test: Test
    site: Site
    why: TellableFailure

    def __post_init__(self) -> None:
        _only(TellableFailure, [self.why])


@dataclass(frozen=True, slots=True)
class OrderReceived:
    """The order was accepted and a kit will come."""

    purpose: ClassVar[TextPurpose] = TextPurpose.ORDER_RECEIVED


@dataclass(frozen=True, slots=True)
class KitPosted:
    """The kit is in the post. `due_back_on` is the last day by which to post it back."""

    purpose: ClassVar[TextPurpose] = TextPurpose.KIT_POSTED
    due_back_on: date


class PlaceName(str):
    """What texts call a counter: the council's own words, proved to say nothing of health (ruling 14)."""

    __slots__ = ()

    def __new__(cls, words: str) -> Self:
        """Raises ServiceError(BAD_INPUT) for words that could not stand in any text."""
        if not is_neutral(words) or len(words) > LONGEST_TOLD_AS:
            raise ServiceError(Code.BAD_INPUT, "This is no name of a place that a text may carry.")
        return super().__new__(cls, words)


class CollectionCode(str):
    """A code that fetches a parcel: six characters whose last one checks the others."""

    __slots__ = ()

    def __new__(cls, code: str) -> Self:
        """Raises ServiceError(BAD_INPUT) for anything else."""
        if read_collection_code(code) != code:
            raise ServiceError(Code.BAD_INPUT, "This is no code of a parcel.")
        return super().__new__(cls, code)


@dataclass(frozen=True, slots=True)
class KitReady:
    """The parcel waits at a counter until the end of a day; its code fetches it."""

    purpose: ClassVar[TextPurpose] = TextPurpose.KIT_READY
    where: PlaceName
    code: CollectionCode
    until_on: date

    def __post_init__(self) -> None:
        _only(PlaceName, [self.where])
        _only(CollectionCode, [self.code])


@dataclass(frozen=True, slots=True)
class ReturnReminder:
    """The kit has not come back yet. `first` speaks of its coming, `last` says that no further reminder follows."""

    purpose: ClassVar[TextPurpose] = TextPurpose.RETURN_REMINDER
    due_back_on: date
    last: bool
    first: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedAtLab:
    """The laboratory has the kit."""

    purpose: ClassVar[TextPurpose] = TextPurpose.RECEIVED_AT_LAB


@dataclass(frozen=True, slots=True)
class KitLapsed:
    """The kit did not come back in time."""

    purpose: ClassVar[TextPurpose] = TextPurpose.KIT_LAPSED


@dataclass(frozen=True, slots=True)
class Delayed:
    """It takes longer, whatever the reason. `by_on` is the day by which we get in touch at the latest."""

    purpose: ClassVar[TextPurpose] = TextPurpose.DELAYED
    by_on: date


@dataclass(frozen=True, slots=True)
class RetestDue:
    """It is time to order again. It takes nothing: months later a number may be somebody else's."""

    purpose: ClassVar[TextPurpose] = TextPurpose.RETEST_DUE


@dataclass(frozen=True, slots=True)
class AllClear:
    """Every requested test is negative. `tested` is exactly the requested set.

    `retest_on`: from this day a risk shortly before the sample would show; None when no window is open.
    """

    purpose: ClassVar[TextPurpose] = TextPurpose.ALL_CLEAR
    tested: tuple[Target, ...]
    retest_on: date | None

    def __post_init__(self) -> None:
        _distinct(self.tested)


@dataclass(frozen=True, slots=True)
class FailedSample:
    """Some requested tests could not be done; all others are negative. Together exactly the requested set (H8)."""

    purpose: ClassVar[TextPurpose] = TextPurpose.FAILED_SAMPLE
    failed: tuple[FailedTest, ...]
    negative: tuple[Target, ...]
    retest_on: date | None

    def __post_init__(self) -> None:
        _only(FailedTest, self.failed)
        _distinct([(each.test, each.site) for each in self.failed])
        _distinct([*((each.test, each.site) for each in self.failed), *self.negative])


@dataclass(frozen=True, slots=True)
class SwabPositive:
    """Chlamydia, gonorrhoea or both were found. `so_far`: other tests have no result, or could not be done."""

    purpose: ClassVar[TextPurpose] = TextPurpose.SWAB_POSITIVE
    found: frozenset[SwabInfection]
    so_far: bool

    def __post_init__(self) -> None:
        _only(SwabInfection, self.found)
        if not self.found:
            raise ServiceError(Code.BAD_INPUT, "A positive text must say what was found.")


@dataclass(frozen=True, slots=True)
class ExpectCall:
    """We will call. It takes nothing, so it can tell nothing (ruling 14)."""

    purpose: ClassVar[TextPurpose] = TextPurpose.PLEASE_EXPECT_OUR_CALL


TextValues = (
    OrderReceived
    | KitPosted
    | KitReady
    | ReturnReminder
    | ReceivedAtLab
    | KitLapsed
    | Delayed
    | RetestDue
    | AllClear
    | FailedSample
    | SwabPositive
    | ExpectCall
)


_TAKES_NOTHING: Final[Mapping[TextPurpose, Callable[..., TextValues]]] = {
    kind.purpose: kind for kind in (OrderReceived, ReceivedAtLab, KitLapsed, RetestDue, ExpectCall)
}


def _only(kind: type, members: Iterable[object]) -> None:
    """Refuses at run time what the type checker refuses before: equal words are not equal meanings."""
    if any(type(member) is not kind for member in members):
        raise ServiceError(Code.BAD_INPUT, f"Only a {kind.__name__} may stand here: no text can tell anything else.")


def _distinct(targets: Iterable[Target]) -> None:
    listed = list(targets)
    if not listed or len(set(listed)) < len(listed):
        raise ServiceError(Code.BAD_INPUT, "A result text must list each requested test once, and at least one.")


def write_values(values: TextValues) -> str:
    """The values as canonical JSON, for the encrypted column of the owed text. Holds nothing that names a person."""
    match values:
        case OrderReceived() | ReceivedAtLab() | KitLapsed() | RetestDue() | ExpectCall():
            plain: dict[str, object] = {}
        case Delayed():
            plain = {"by_on": _iso(values.by_on)}
        case KitPosted():
            plain = {"due_back_on": _iso(values.due_back_on)}
        case KitReady():
            plain = {"where": values.where, "code": values.code, "until_on": _iso(values.until_on)}
        case ReturnReminder():
            plain = {"due_back_on": _iso(values.due_back_on), "last": values.last, "first": values.first}
        case AllClear():
            plain = {"tested": sorted(values.tested), "retest_on": _iso(values.retest_on)}
        case FailedSample():
            plain = {
                "failed": sorted([each.test, each.site, each.why] for each in values.failed),
                "negative": sorted(values.negative),
                "retest_on": _iso(values.retest_on),
            }
        case SwabPositive():
            plain = {"found": sorted(values.found), "so_far": values.so_far}
        case _:
            assert_never(values)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def read_values(purpose: TextPurpose, written: str) -> TextValues:
    """The values that `write_values` wrote. Raises ServiceError(BAD_INPUT) for anything else."""
    with suppress(ValueError, TypeError, KeyError):
        plain = json.loads(written)
        if purpose in _TAKES_NOTHING:
            return _TAKES_NOTHING[purpose](**plain)
        match purpose:
            case TextPurpose.DELAYED:
                return Delayed(date.fromisoformat(plain["by_on"]))
            case TextPurpose.KIT_POSTED:
                return KitPosted(date.fromisoformat(plain["due_back_on"]))
            case TextPurpose.KIT_READY:
                until_on = date.fromisoformat(plain["until_on"])
                return KitReady(PlaceName(plain["where"]), CollectionCode(plain["code"]), until_on)
            case TextPurpose.RETURN_REMINDER:
                first = _flag(plain.get("first", False))  # rows from before it had a stage of its own
                return ReturnReminder(date.fromisoformat(plain["due_back_on"]), _flag(plain["last"]), first)
            case TextPurpose.ALL_CLEAR:
                return AllClear(_targets(plain["tested"]), _day(plain["retest_on"]))
            case TextPurpose.FAILED_SAMPLE:
                failed = tuple(FailedTest(Test(t), Site(s), TellableFailure(why)) for t, s, why in plain["failed"])
                return FailedSample(failed, _targets(plain["negative"]), _day(plain["retest_on"]))
            case TextPurpose.SWAB_POSITIVE:
                return SwabPositive(frozenset(map(SwabInfection, plain["found"])), _flag(plain["so_far"]))
    # The stored words are not quoted: they are part of somebody's result.
    raise ServiceError(Code.BAD_INPUT, "The stored values of a text can't be read for its purpose.")


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _day(written: str | None) -> date | None:
    return None if written is None else date.fromisoformat(written)


def _flag(written: object) -> bool:
    if not isinstance(written, bool):
        raise TypeError("not a boolean")
    return written


def _targets(pairs: Iterable[tuple[str, str]]) -> tuple[Target, ...]:
    return tuple((Test(test), Site(site)) for test, site in pairs)


RETEST_UNDER_AGE_YEARS: Final = 25
"""Under-25s with chlamydia are asked to test again about three months after treatment (NCSP)."""


def retest_due_at(
    found: Iterable[tuple[Test, Outcome]], *, age_years: int, treated_at: datetime, after_days: int
) -> datetime | None:
    """When a treated person is asked to order again; None when nobody asks. `after_days` 0: nobody ever."""
    has_chlamydia = (Test.CHLAMYDIA, Outcome.POSITIVE) in set(found)
    if not has_chlamydia or age_years >= RETEST_UNDER_AGE_YEARS or after_days == 0:
        return None
    return treated_at + timedelta(days=after_days)


def retest_from(
    tested: Iterable[Target], *, sampled_on: date, last_risk_on: date | None, window_days: Mapping[Test, int] | None
) -> date | None:
    """The first day on which every tested infection from the last risk would show, or None when it shows already.

    A negative taken sooner than `window_days` after a risk does not count (clinical.md 3.2, per service; H18;
    FEATURES 61). An unknown last risk counts as one on the day of the sample: the cautious reading.

    Raises ServiceError(SETTINGS) when the service has no window for a tested infection.
    """
    risk_on = last_risk_on or sampled_on
    try:
        shows_on = [risk_on + timedelta(days=(window_days or {})[test]) for test, _ in tested]
    except KeyError:
        raise ServiceError(Code.SETTINGS, "The service needs release.window_days for every test it orders.") from None
    latest = max(shows_on, default=risk_on)
    return latest if latest > sampled_on else None


# ── How long a body is ───────────────────────────────────────────────────────────────────────

GSM_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED: Final = frozenset("^{}\\[~]|€\f")
"""3GPP TS 23.038 section 6.2.1: one septet each, and two (an escape and a character)."""

WELSH_LETTERS: Final = frozenset("âêîôûŵŷÂÊÎÔÛŴŶáéíóúẃýÁÉÍÓÚẂÝàèìòùẁỳÀÈÌÒÙẀỲäëïöüẅÿÄËÏÖÜẄŸ")
"""Letters that Welsh may carry beyond GSM-7. They turn the text into UCS-2: 70 and 67 instead of 160 and 153."""


GSM_ALONE: Final = 160
GSM_JOINED: Final = 153
"""Septets that a text may have alone, and that each part has where several are joined (3GPP TS 23.040)."""


def segments(body: str) -> int:
    """How many parts a text is billed and joined as. An escape or surrogate pair is never split. Empty: 0."""
    if GSM_BASIC.issuperset(body):
        return -(-len(body) // (GSM_ALONE if len(body) <= GSM_ALONE else GSM_JOINED))
    if all(c in GSM_BASIC or c in GSM_EXTENDED for c in body):
        return _parts([2 if c in GSM_EXTENDED else 1 for c in body], alone=GSM_ALONE, joined=GSM_JOINED)
    return _parts([len(c.encode("utf-16-le")) // 2 for c in body], alone=70, joined=67)


def _parts(sizes: list[int], *, alone: int, joined: int) -> int:
    if sum(sizes) <= alone:
        return 1 if sizes else 0
    parts, used = 1, 0
    for size in sizes:
        if used + size > joined:
            parts, used = parts + 1, 0
        used += size
    return parts


# ── Whether a body may leave ─────────────────────────────────────────────────────────────────

NEUTRAL_CHARACTERS: Final = 40
"""About what a lock screen shows: nothing revealing begins within it (ruling 14; H13)."""


class WordingFault(StrEnum):
    """Why a rendered body may not leave."""

    EMPTY = "empty"
    UNRENDERED = "unrendered"
    CONTROL_CHARACTER = "control_character"
    CHARACTER_NOT_ALLOWED = "character_not_allowed"
    TOO_LONG = "too_long"
    FOREIGN_LINK = "foreign_link"
    REVEALING_START = "revealing_start"
    REVEALING_DISCREET = "revealing_discreet"
    REACTIVE = "reactive"


class BadWording(ServiceError):  # noqa: N818 - said as one says it: refused for bad wording
    """A body that may not leave. The message never quotes it."""

    def __init__(self, fault: WordingFault, message: str) -> None:
        super().__init__(Code.TEMPLATE, message)
        self.fault = fault


_REVEALING: Final = re.compile(
    r"\b(?:"
    # English
    r"chlamydia|gonorrh\w*|syphilis|hiv|aids|hepatitis|herpes|trichomon\w*|mycoplasma|stis?|stds?"
    r"|sex\w*|genit\w*|vagina\w*|penis|rectal|rectum|anal|throat|urine|blood|bloods|swabs?|samples?"
    r"|tests?|tested|testing|retest\w*|results?|positives?|negatives?|found|clear|infect\w*|screening"
    r"|clinics?|clinical|clinicians?|hospitals?|nhs|health|doctors?|nurses?|symptoms?|treat\w*|partners?"
    r"|labs?|laborator\w*|kits?|diagnos\w*|medic\w*|condoms?|contracept\w*|pregnan\w*"
    # Welsh, with its mutations
    r"|[cg]h?lamydia|ngonorea|gonorea|onorea|siffilis|rhyw\w*|ryw\w*|h?aint|h?eint\w*"
    r"|prawf|brawf|phrawf|(?:p|b|ph)rof(?:i|ion|wyd|wch|odd)|(?:c|g|ch)anlyniad\w*|[pb]ositif|negyddol|[cg]lir"
    r"|(?:c|g|ch)anfu\w*|(?:c|g|ch)anfod|(?:c|g|ch)linig\w*|ysbyty|iechyd|gig|[mf]eddyg\w*|nyrs\w*"
    r"|swabiau|sampl|samplau|g?waed|wrin|g?wddf|g?wain|rectwm|(?:c|g|ch)enhedl\w*|(?:t|d|th)riniaeth\w*"
    r"|bartner\w*|symptomau|labordy|labordai"
    r")\b",
    re.IGNORECASE,
)
_REACTIVE: Final = re.compile(r"reactive|adweithi", re.IGNORECASE)
_LINK: Final = re.compile(r"(?:https?://)?(?:[a-z0-9-]+\.)+[a-z]{2,}\b(?:[/?#]\S*)?", re.IGNORECASE)
_UNRENDERED: Final = re.compile(r"[{}]|\bNone\b|\bUndefined\b| {2}|[:,] ?[.,;]")


def check_body(body: str, *, language: Language, wording: Wording, max_segments: int, web: str) -> None:
    """Passes a body that may leave. `web` is the service's own address: links elsewhere are refused.

    Raises BadWording with the fault. Names need no check here: no value of any text can carry one.
    """
    if not body.strip():
        raise BadWording(WordingFault.EMPTY, "The text is empty.")
    if _UNRENDERED.search(body) or body != body.strip():
        raise BadWording(WordingFault.UNRENDERED, "The text has a placeholder left over or an empty one.")
    if not body.isprintable() and any(unicodedata.category(c).startswith("C") for c in body):
        raise BadWording(WordingFault.CONTROL_CHARACTER, "The text has a line break or an invisible character.")
    allowed = GSM_BASIC | GSM_EXTENDED | (WELSH_LETTERS if language is Language.WELSH else frozenset())
    if not allowed.issuperset(body):
        raise BadWording(WordingFault.CHARACTER_NOT_ALLOWED, "The text has a character outside its language's set.")
    if segments(body) > max_segments:
        raise BadWording(WordingFault.TOO_LONG, f"The text is longer than {max_segments} segments.")
    own = host_of(web)
    if any(host != own and not host.endswith("." + own) for host in map(host_of, _LINK.findall(body))):
        raise BadWording(WordingFault.FOREIGN_LINK, "The text links to another domain than the service's own.")
    if _REACTIVE.search(body):
        raise BadWording(WordingFault.REACTIVE, "The text speaks of a reactive result, which is never texted.")
    revealing = _REVEALING.search(body)
    if revealing and revealing.start() < NEUTRAL_CHARACTERS:
        raise BadWording(WordingFault.REVEALING_START, "The first 40 characters must say nothing of tests or health.")
    if revealing and wording is Wording.DISCREET:
        raise BadWording(WordingFault.REVEALING_DISCREET, "A discreet text may not speak of tests or health at all.")


def is_neutral(words: str) -> bool:
    """Whether a name that texts carry can stand in any of them: the council's own words, checked at start."""
    speaks = _REVEALING.search(words) or _REACTIVE.search(words) or _LINK.search(words) or _UNRENDERED.search(words)
    return bool(words.strip()) and not speaks and words == words.strip() and GSM_BASIC.issuperset(words)


def host_of(link: str) -> str:
    """The host of an address with or without its scheme, in lower case."""
    return re.sub(r"^https?://", "", link.strip().lower()).split("/")[0].split("?")[0].split("#")[0].split(":")[0]
