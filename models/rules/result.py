"""What a lab's row means: a finding, a detail of one, or a quarantine. Nothing else, and never a default.

Pure: a message and the lab's map go in, one answer for each row comes out. What needs the order, the
stored versions or today's date (is the kit ours, is the date of birth right, was this asked for) is
decided later, over these values. Source of the decision order: lab-messages.md 2.3, 2.4, 3.2, 3.3.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules import lab_time
from models.rules.kit import normalise_kit_code, normalise_tube_code
from models.rules.lab import (
    LOCAL,
    PLAIN,
    Coded,
    CombinedCode,
    DetailCode,
    Fault,
    Form,
    LabMap,
    LabMessage,
    LabRow,
    RowState,
    SingleCode,
    fold_token,
)
from models.rules.person import fold_name
from models.rules.vocabulary import NON_RESULTS, Outcome, Quarantine, ReportStatus, Site, Test


class Finding(NamedTuple):
    """One result that was understood. Not yet matched with a kit of ours.

    `kit_code` has ten characters, `tube_code` eleven, no hyphens. Times are aware UTC; a day without
    a clock time stands for its start in the lab's zone. `lab_time` orders versions (lab-messages.md 5).
    `order_corrected`: the order says corrected but this row says final; compare it with what is stored.
    `note_review`: a comment that is not on the reviewed list holds it for a person (ruling 8).
    """

    position: int
    row_key: str
    message_id: str
    accession: str
    kit_code: str
    tube_code: str | None
    dob: date
    family_name: str | None
    nhs_number: str | None
    test: Test
    site: Site
    sub_id: str
    outcome: Outcome
    status: ReportStatus
    order_corrected: bool
    lab_time: datetime | None
    time_doubtful: bool
    revision: int | None
    collected_at: datetime | None
    received_at: datetime | None
    authorised_at: datetime | None
    note_review: bool
    urgent_note: bool
    comment: str
    parent_ref: str


class Quarantined(NamedTuple):
    """One row kept for a person. `detail` tells the lab what to mend and holds nothing personal.

    `may_be_non_negative`: a clinician sees it the same day (lab-messages.md 7).
    """

    position: int
    row_key: str
    message_id: str
    accession: str
    kit_code: str | None
    tube_code: str | None
    test: Test | None
    site: Site | None
    status: ReportStatus | None
    collected_at: datetime | None
    authorised_at: datetime | None
    reason: Quarantine
    detail: str
    may_be_non_negative: bool


class Detail(NamedTuple):
    """A row that supports another (a cut-off index) or an order without rows yet: accounted for, no result."""

    position: int
    row_key: str


Reading = Finding | Quarantined | Detail

TestEntry = SingleCode | CombinedCode | DetailCode


# ── What a row says, apart from whose it is ──────────────────────────────────────────────────


class _Meaning(NamedTuple):
    """What test, site, status and value of a row come to."""

    test: Test | None
    site: Site | None
    outcome: Outcome | None
    status: ReportStatus | None
    fault: Fault | None
    is_risky: bool
    order_corrected: bool = False
    needs_review: bool = False
    is_detail: bool = False
    cut_off: tuple[float, float] | None = None
    parts: tuple[tuple[Test, Outcome], ...] = ()


_HL7_ROW: Final[Mapping[str, RowState]] = {
    "F": RowState.FINAL,
    "P": RowState.PENDING,
    "R": RowState.PENDING,
    "S": RowState.PENDING,
    "I": RowState.PENDING,
    "O": RowState.PENDING,
    "C": RowState.CORRECTED,
    "D": RowState.WITHDRAWN,
    "W": RowState.WITHDRAWN,
    "X": RowState.CANCELLED,
    "N": RowState.NOT_ASKED,
    "U": RowState.REVIEW,
    "A": RowState.REVIEW,
    "B": RowState.REVIEW,
    "V": RowState.REVIEW,
}
"""HL7 table 0085, OBX-11."""

_HL7_ORDER: Final[Mapping[str, RowState]] = {
    "F": RowState.FINAL,
    "C": RowState.CORRECTED,
    "P": RowState.PARTIAL,
    "A": RowState.PARTIAL,
    "R": RowState.PENDING,
    "S": RowState.PENDING,
    "I": RowState.PENDING,
    "O": RowState.PENDING,
    "M": RowState.PENDING,
    "N": RowState.PENDING,
    "X": RowState.CANCELLED,
}
"""HL7 table 0123, OBR-25. Y and Z (no such order, no such patient) are left out: not understood."""

_FHIR_ROW: Final[Mapping[str, RowState]] = {
    "registered": RowState.PENDING,
    "preliminary": RowState.PENDING,
    "final": RowState.FINAL,
    "amended": RowState.CORRECTED,
    "corrected": RowState.CORRECTED,
    "cancelled": RowState.CANCELLED,
    "entered-in-error": RowState.WITHDRAWN,
}
_FHIR_REPORT: Final[Mapping[str, RowState]] = {
    "registered": RowState.PENDING,
    "partial": RowState.PARTIAL,
    "preliminary": RowState.PARTIAL,
    "final": RowState.FINAL,
    "amended": RowState.CORRECTED,
    "corrected": RowState.CORRECTED,
    "appended": RowState.APPENDED,
    "cancelled": RowState.CANCELLED,
    "entered-in-error": RowState.WITHDRAWN,
}

_STATUS: Final[Mapping[RowState, ReportStatus]] = {
    RowState.FINAL: ReportStatus.FINAL,
    RowState.PENDING: ReportStatus.PRELIMINARY,
    RowState.CORRECTED: ReportStatus.CORRECTED,
    RowState.CANCELLED: ReportStatus.CANCELLED,
    RowState.WITHDRAWN: ReportStatus.WITHDRAWN,
    RowState.NOT_ASKED: ReportStatus.FINAL,
}

_PLACEHOLDERS: Final = frozenset({"", '""', "see note", "see notes", "see comment", "dnr", "pending", "."})
"""Values that are never a result (lab-messages.md 2.4)."""

ORDER_ONLY: Final = "ORDER"
"""`value_type` of the row that a reader yields for an order without results."""

ASIDE: Final = "ASIDE"
"""`value_type` of a row that is no result by its place: the head of a group, an answer to a question at order."""

ABSENT: Final = "ABSENT"
"""`value_type` of a row whose value is a reason for having none."""

_NUMERIC_TYPES: Final = frozenset({"SN", "NM"})
_TEXT_TYPES: Final = frozenset({"", "ST", "TX", "FT", "IS", "ID"})
_CODED_TYPES: Final = frozenset({"CE", "CWE", "CNE", "CF"})

_NORMAL_FLAGS: Final = frozenset({"N", "NEG", "ND", "NR"})
_FOUND: Final = frozenset({Outcome.POSITIVE, Outcome.REACTIVE, Outcome.LOW_REACTIVE, Outcome.EQUIVOCAL})

_ORGANISMS: Final[Mapping[Test, tuple[str, ...]]] = {
    Test.CHLAMYDIA: ("chlamydia", "c. trachomatis", "c.trachomatis", "c trachomatis"),
    Test.GONORRHOEA: ("gonorrh", "n. gonorr", "n.gonorr", "neisseria"),
    Test.SYPHILIS: ("syphilis", "treponema", "t. pallidum", "t.pallidum"),
    Test.HIV: ("hiv", "human immunodeficiency"),
    Test.HEPATITIS_B: ("hepatitis b", "hbsag", "hbv"),
    Test.HEPATITIS_C: ("hepatitis c", "hcv"),
    Test.TRICHOMONAS: ("trichomonas", "t. vaginalis"),
    Test.MYCOPLASMA_GENITALIUM: ("mycoplasma", "m. genitalium"),
}
"""Names by which a text is caught talking of another infection. They can only refuse, never give a result."""

_SITE_WORDS: Final[Mapping[Site, tuple[str, ...]]] = {
    Site.URINE: ("urine",),
    Site.VAGINAL: ("vagin", "vulvo"),
    Site.RECTAL: ("rectal", "rectum", "anal swab"),
    Site.PHARYNGEAL: ("pharyn", "throat"),
    Site.BLOOD: ("blood", "serum", "plasma"),
}
"""Names by which a specimen's text is caught contradicting its code. They can only refuse."""

_LOW_REACTIVE_FROM: Final = 1.0
_REACTIVE_FROM: Final = 10.0
"""Cut-off index (a ratio, no unit): below 1 negative, 1 to below 10 low reactive. Source: lab-messages.md 2.4."""

_NUMBER: Final = re.compile(r"(<=|>=|<|>|=)?\s?(\d{1,6}(?:\.\d{1,4})?)", re.ASCII)
_INDEX_IN_TEXT: Final = re.compile(r"(.+?) \(coi ([<>]?=? ?\d{1,6}(?:\.\d{1,4})?)\)", re.ASCII)
_INFINITE: Final = math.inf


_CT_AND_GC: Final = re.compile(r"\b(?:CT\W.*\bGC|GC\W.*\bCT)\b", re.ASCII | re.IGNORECASE)


def _named(text: str, words: Mapping[Test, tuple[str, ...]] | Mapping[Site, tuple[str, ...]]) -> set[Test] | set[Site]:
    folded = fold_token(text)
    return {key for key, names in words.items() if any(name in folded for name in names)}  # type: ignore[return-value]


def _nearest(token: str, known: Iterable[str]) -> str:
    """The known words most like this one, for a person to choose from; never applied."""
    close = difflib.get_close_matches(fold_token(token)[:64], sorted(set(known)), n=2, cutoff=0.5)
    return f" Nearest known: {', '.join(close)}." if close else ""


def _test_of(lab: LabMap, codes: Sequence[Coded]) -> TestEntry | Fault:
    """What the row's code and its alternates stand for; every one that is known must agree."""
    found: list[TestEntry] = []
    for coded in codes:
        system = lab.system(coded.system)
        if not coded.code or system is None:
            continue
        key = (system, fold_token(coded.code))
        entry = lab.tests.get(key) or lab.combined.get(key) or lab.details.get(key)
        if entry and entry not in found:
            found.append(entry)
    if not found:
        known = (code for _, code in lab.tests)
        near = _nearest(codes[0].code, known) if codes else ""
        return Fault(Quarantine.UNKNOWN_TEST, f"The test code is not in the map of {lab.lab}.{near}")
    entry = found[0]
    if len(found) > 1:
        narrower = _narrowest(found)
        if narrower is None:
            return Fault(Quarantine.CODE_DISPLAY_CONFLICT, "The test code and its alternate name different tests.")
        entry = narrower
    mine = entry.tests if isinstance(entry, CombinedCode) else {entry.test}
    for coded in codes:
        named = _named(coded.text, _ORGANISMS)
        if named and not named & mine:
            return Fault(Quarantine.CODE_DISPLAY_CONFLICT, "The test's code and its text name different infections.")
    return entry


def _narrowest(found: Sequence[TestEntry]) -> TestEntry | None:
    """Of codes for one test, the one with the fewest sites, if its sites are among the others'."""
    plain = [entry for entry in found if not isinstance(entry, CombinedCode | DetailCode)]
    if len(plain) < len(found) or len({entry.test for entry in plain}) > 1:
        return None
    best = min(plain, key=lambda entry: len(entry.sites))
    return best if all(best.sites <= entry.sites for entry in plain) else None


def _site_of(lab: LabMap, described: Sequence[Coded], allowed: frozenset[Site]) -> Site | Fault:
    """The sample's site. Every description must agree; none at all means the test's only site, if it has one."""
    found: set[Site] = set()
    for coded in described:
        system = lab.system(coded.system)
        code, text = fold_token(coded.code), fold_token(coded.text)
        by_code = lab.specimens.get((system, code)) if system and code else None
        if by_code is None and system == LOCAL and code:
            by_code = lab.specimens.get((PLAIN, code))
        by_text = lab.specimens.get((PLAIN, text)) if text else None
        says_nothing = (not code or code in lab.unspecified) and (not text or text in lab.unspecified)
        if says_nothing:
            continue
        if by_code is None and (code and code not in lab.unspecified):
            near = _nearest(code, (known for _, known in lab.specimens))
            return Fault(Quarantine.SITE_UNKNOWN, f"The specimen code is not in the map of {lab.lab}.{near}")
        if by_code is None and by_text is None:
            return Fault(Quarantine.SITE_UNKNOWN, f"The specimen's words are not in the map of {lab.lab}.")
        found |= {site for site in (by_code, by_text) if site is not None}
        named = _named(coded.text, _SITE_WORDS)
        if by_code is not None and by_text is None and named and by_code not in named:
            return Fault(Quarantine.SPECIMEN_CONFLICT, "The specimen's code and its text name different sites.")
    if len(found) > 1:
        return Fault(Quarantine.SPECIMEN_CONFLICT, "The row names two different specimen sites.")
    if not found:
        if len(allowed) == 1:
            return next(iter(allowed))
        return Fault(Quarantine.SITE_UNKNOWN, "No specimen site is given, and this test is done on several.")
    site = found.pop()
    if site not in allowed:
        return Fault(Quarantine.SPECIMEN_CONFLICT, "This test is not done on the specimen that the row names.")
    return site


# ── Status ───────────────────────────────────────────────────────────────────────────────────


def _state_of(  # noqa: PLR0911 - one return for each line of the table in lab-messages.md 2.3
    row: RowState | None, order: RowState | None, *, order_is_open: bool
) -> RowState | Fault:
    """The more cautious of row and order. `order_is_open`: another row of the same order is not final.

    A final row stands in a partial order only when another row explains why the order is partial;
    where every row says final and the order does not, the order is believed.
    """
    if row is None or order is None:
        which = "row" if row is None else "order"
        return Fault(Quarantine.UNKNOWN_STATUS, f"The {which}'s status is missing or not understood.")
    if row is RowState.REVIEW:
        return Fault(
            Quarantine.STATUS_REVIEW, "The row's status changes an earlier report; a person must compare them."
        )
    if RowState.WITHDRAWN in {row, order}:
        return RowState.WITHDRAWN
    waits = order is RowState.PENDING or (order is RowState.PARTIAL and not order_is_open)
    if row is RowState.CORRECTED and (waits or order is RowState.CANCELLED):
        return Fault(Quarantine.UNKNOWN_STATUS, "The row is corrected, but its order is not final: they contradict.")
    if order is RowState.CANCELLED:
        return RowState.CANCELLED
    if row is RowState.NOT_ASKED:
        return RowState.NOT_ASKED
    return RowState.PENDING if waits else row


# ── Value ────────────────────────────────────────────────────────────────────────────────────


def _unknown(test: Test, token: str, words: Mapping[tuple[str, str], Outcome]) -> Fault:
    if len(_named(token, _ORGANISMS)) > 1 or _CT_AND_GC.search(token):
        return Fault(Quarantine.COMBINED_RESULT, "One value tells of several infections and is not in the lab map.")
    near = _nearest(token, (word for system, word in words if system == PLAIN and word))
    return Fault(Quarantine.UNKNOWN_TOKEN, f"The result word or code is not in the lab map for {test}.{near}")


_EMPTY = Fault(Quarantine.EMPTY_VALUE, "The row is reported but has no result value.")


def _word(lab: LabMap, test: Test, text: str) -> Outcome | Fault:
    """What a plain value means: the whole of it, exactly."""
    words = lab.outcomes.get(test, {})
    token = fold_token(text)
    if outcome := words.get((PLAIN, token)):
        return outcome
    if token in _PLACEHOLDERS:
        return _EMPTY
    return _unknown(test, text, words)


def _word_with_index(
    text: str, shown: frozenset[str], outcome: Outcome | None, words: Mapping[tuple[str, str], Outcome]
) -> Outcome | Fault | None:
    """A code's own words with a cut-off index behind them ('low reactive (coi 3.2)'), or None if it is not that."""
    found = _INDEX_IN_TEXT.fullmatch(text)
    if outcome is None or not found or found[1] not in shown:
        return None
    span = _span(found[2])
    return _agree_with_index(outcome, span, words.values()) if span else None


def _code(lab: LabMap, test: Test, codings: Sequence[Coded]) -> Outcome | Fault:  # noqa: C901 - one branch a rule
    """What a coded value means: every code and every text must be known and say the same."""
    words = lab.outcomes.get(test, {})
    found: set[Outcome] = set()
    fault: Fault | None = None
    is_blank = True
    for system_raw, code_raw, text_raw in codings:
        code, text = fold_token(code_raw), fold_token(text_raw)
        system = lab.system(system_raw)
        if code and code not in _PLACEHOLDERS:
            is_blank = False
            outcome = words.get((system, code)) if system else None
            if outcome is None and system == LOCAL:
                outcome = words.get((PLAIN, code))  # some labs put words where the code belongs
            if outcome is None:
                fault = fault or _unknown(test, text_raw or code_raw, words)
            else:
                found.add(outcome)
        if text and text not in _PLACEHOLDERS:
            is_blank = False
            shown = lab.displays.get((system, code), frozenset()) if system else frozenset()
            if text in shown:
                continue
            said = _word_with_index(text, shown, words.get((system or "", code)), words) or _word(lab, test, text_raw)
            if isinstance(said, Fault):
                conflict = Fault(Quarantine.CODE_DISPLAY_CONFLICT, "The result's text does not agree with its code.")
                fault = fault or (conflict if found else said)
            else:
                found.add(said)
    if is_blank:
        return _EMPTY
    if len(found) > 1:
        return Fault(Quarantine.CODE_DISPLAY_CONFLICT, "The result's code and its text say different things.")
    return fault or found.pop()


def _value(
    lab: LabMap, test: Test, kind: str, raw: tuple[str, ...], codes: tuple[tuple[Coded, ...], ...]
) -> Outcome | Fault:
    """What the row's value means, over all its repetitions."""
    if kind == ABSENT:
        found = {lab.cancel_reasons[token] for token in map(fold_token, raw) if token in lab.cancel_reasons}
        return found.pop() if len(found) == 1 else _EMPTY
    if kind in _NUMERIC_TYPES:
        return Fault(Quarantine.UNKNOWN_TOKEN, f"A number is not a result of {test} without a rule in the lab map.")
    if kind not in _TEXT_TYPES and kind not in _CODED_TYPES:
        return Fault(Quarantine.UNKNOWN_TOKEN, "Values of this data type are not read.")
    read = [_code(lab, test, codings) for codings in codes] if codes else [_word(lab, test, text) for text in raw]
    if not read:
        return _word(lab, test, "")
    if len(set(read)) > 1:
        return Fault(Quarantine.CONFLICTING_VALUES, "The row holds several values that do not say the same.")
    return read[0]


def _flags_contradict(flags: Sequence[str], outcome: Outcome) -> bool:
    """Whether an abnormal flag speaks against the value. A flag never makes a result."""
    said = {flag.strip().upper() for flag in flags} - {"", '""'}
    if outcome is Outcome.NEGATIVE:
        return not said <= _NORMAL_FLAGS
    if outcome in _FOUND:
        return bool(said & _NORMAL_FLAGS)
    return "POS" in said


# ── Cut-off index ────────────────────────────────────────────────────────────────────────────


def _span(text: str) -> tuple[float, float] | None:
    """The values that a number with a comparator allows, or None where it is no number: >42.7 is 42.7 and up."""
    found = _NUMBER.fullmatch(text.strip())
    if not found:
        return None
    number = float(found[2])
    match found[1]:
        case "<":
            return 0.0, number
        case "<=":
            return 0.0, math.nextafter(number, _INFINITE)
        case ">" | ">=":
            return number, _INFINITE
        case _:
            return number, number


def _agree_with_index(outcome: Outcome, span: tuple[float, float], targets: Iterable[Outcome]) -> Outcome | Fault:
    """The outcome, seen beside the index. Where the lab has no word of its own for it, reactive may be low reactive."""
    low, high = span
    conflict = Fault(Quarantine.CONFLICTING_VALUES, "The cut-off index and the result word do not agree.")
    if outcome is Outcome.NEGATIVE:
        return outcome if high <= _LOW_REACTIVE_FROM and low < _LOW_REACTIVE_FROM else conflict
    if outcome is Outcome.LOW_REACTIVE:
        return outcome if low >= _LOW_REACTIVE_FROM and high < _REACTIVE_FROM else conflict
    if outcome is Outcome.REACTIVE:
        if low < _LOW_REACTIVE_FROM:
            return conflict
        if high < _REACTIVE_FROM:
            return conflict if Outcome.LOW_REACTIVE in targets else Outcome.LOW_REACTIVE
        return outcome
    return outcome if outcome is Outcome.EQUIVOCAL else conflict


# ── The whole of a row, apart from identity and times ────────────────────────────────────────


def _states_of(lab: LabMap, form: Form, row: str, order: str) -> tuple[RowState | None, RowState | None]:
    if form is Form.HL7:
        return _HL7_ROW.get(row.strip()), _HL7_ORDER.get(order.strip())
    if form is Form.FHIR:
        return _FHIR_ROW.get(row), _FHIR_REPORT.get(order) if order else RowState.FINAL
    if lab.csv is not None and not lab.csv.status:
        return RowState.FINAL, RowState.FINAL  # this dialect has no status column: final by contract
    return (lab.csv.statuses.get(fold_token(row)) if lab.csv else None), RowState.FINAL


def _is_risky(lab: LabMap, kind: str, raw: tuple[str, ...], codes: tuple[tuple[Coded, ...], ...]) -> bool:
    """Whether a value that can't be used might be something else than negative."""
    said = {_value(lab, test, kind, raw, codes) for test in lab.outcomes}
    outcomes = {outcome for outcome in said if isinstance(outcome, Outcome)}
    return not outcomes <= NON_RESULTS | {Outcome.NEGATIVE} or not outcomes


@lru_cache(maxsize=65_536)
def _meaning(  # noqa: PLR0911, PLR0913, PLR0917, C901 - the decision order of lab-messages.md 2.4, in one place, memoised as a whole
    lab: LabMap,
    form: Form,
    test_codes: tuple[Coded, ...],
    kind: str,
    raw: tuple[str, ...],
    codes: tuple[tuple[Coded, ...], ...],
    flags: tuple[str, ...],
    row_status: str,
    order_status: str,
    sites: tuple[Coded, ...],
    order_is_open: bool,
    reasons: tuple[str, ...],
) -> _Meaning:
    entry = _test_of(lab, test_codes)
    if isinstance(entry, Fault):
        return _Meaning(None, None, None, None, entry, _is_risky(lab, kind, raw, codes))
    row_state, order_state = _states_of(lab, form, row_status, order_status)
    state = _state_of(row_state, order_state, order_is_open=order_is_open)
    test = None if isinstance(entry, CombinedCode) else entry.test
    if isinstance(state, Fault):
        return _Meaning(test, None, None, None, state, is_risky=True)
    status = _STATUS.get(state, ReportStatus.FINAL)
    if isinstance(entry, DetailCode):
        span = _span(_joined_number(raw)) if entry.is_index and len(raw) == 1 else None
        return _Meaning(test, None, None, status, None, is_risky=True, is_detail=True, cut_off=span)
    site = _site_of(lab, sites, entry.sites)
    if isinstance(site, Fault):
        return _Meaning(test, None, None, status, site, _is_risky(lab, kind, raw, codes))
    corrected = state is RowState.FINAL and order_state is RowState.CORRECTED
    review = order_state is RowState.APPENDED
    if isinstance(entry, CombinedCode):
        return _combined(lab, entry, site, state, raw, codes, status)
    if state is RowState.PENDING:
        return _Meaning(test, site, Outcome.PENDING, status, None, is_risky=False)
    if state is RowState.WITHDRAWN:
        return _Meaning(test, site, Outcome.WITHDRAWN, status, None, is_risky=True)
    said = _value(lab, entry.test, kind, raw, codes)
    if state is RowState.NOT_ASKED:
        if said is _EMPTY:
            return _Meaning(test, site, Outcome.NOT_REQUESTED, status, None, is_risky=False)
        fault = Fault(Quarantine.UNKNOWN_STATUS, "The row says 'not asked' and yet has a value.")
        return _Meaning(test, site, None, status, fault, is_risky=said is not Outcome.NEGATIVE)
    if state is RowState.CANCELLED:
        said = _cancelled(lab, raw, codes, said, reasons)
    elif isinstance(said, Outcome) and _flags_contradict(flags, said):
        fault = Fault(Quarantine.FLAG_CONFLICT, "The abnormal flag contradicts the value.")
        return _Meaning(test, site, None, status, fault, is_risky=True)
    if isinstance(said, Fault):
        is_risky = said.reason is not Quarantine.CANCELLED_NO_REASON or _is_risky(lab, kind, raw, codes)
        return _Meaning(test, site, None, status, said, is_risky)
    return _Meaning(test, site, said, status, None, said is not Outcome.NEGATIVE, corrected, review)


def _cancelled(
    lab: LabMap,
    raw: tuple[str, ...],
    codes: tuple[tuple[Coded, ...], ...],
    said: Outcome | Fault,
    reasons: tuple[str, ...],
) -> Outcome | Fault:
    """Why a cancelled test failed, by the lab's list of reasons; a result word is no reason."""
    texts = [text for codings in codes for _, code, text in codings for text in (code, text)] if codes else list(raw)
    tokens = {fold_token(text) for text in texts} - _PLACEHOLDERS
    found = {lab.cancel_reasons[token] for token in tokens if token in lab.cancel_reasons}
    if isinstance(said, Outcome) and said in set(lab.cancel_reasons.values()):
        found.add(said)
    if not tokens:
        found = {lab.cancel_reasons[token] for token in map(fold_token, reasons) if token in lab.cancel_reasons}
    if len(found) == 1:
        return found.pop()
    if found:
        return Fault(Quarantine.CONFLICTING_VALUES, "The cancelled row gives two different reasons.")
    return Fault(Quarantine.CANCELLED_NO_REASON, "The test is cancelled without a reason from the lab's list.")


def _combined(
    lab: LabMap,
    entry: CombinedCode,
    site: Site,
    state: RowState,
    raw: tuple[str, ...],
    codes: tuple[tuple[Coded, ...], ...],
    status: ReportStatus,
) -> _Meaning:
    """One value for several infections: split only where the lab map lists the whole value."""
    parts: Mapping[Test, Outcome] | None = None
    if state is RowState.PENDING:
        parts = dict.fromkeys(sorted(entry.tests), Outcome.PENDING)
    elif state is RowState.WITHDRAWN:
        parts = dict.fromkeys(sorted(entry.tests), Outcome.WITHDRAWN)
    elif state in {RowState.FINAL, RowState.CORRECTED} and len(raw) == 1 and not codes:
        parts = lab.combined_outcomes.get(fold_token(raw[0]))
    if parts is None or parts.keys() != entry.tests:
        fault = Fault(Quarantine.COMBINED_RESULT, "One value tells of several infections and is not in the lab map.")
        return _Meaning(None, site, None, status, fault, is_risky=True)
    return _Meaning(None, site, None, status, None, is_risky=True, parts=tuple(parts.items()))


def _joined_number(raw: tuple[str, ...]) -> str:
    """A structured number (comparator^number) or a plain one as text; a range or ratio stays unreadable."""
    return raw[0].rstrip("^").replace("^", "", 1)


# ── Whose it is ──────────────────────────────────────────────────────────────────────────────

_KIT_LENGTH: Final = 10
_SHOWN_TUBE_LENGTH: Final = 14


class _Identity(NamedTuple):
    """What the row says of kit, tube and person. With a fault, the codes are only what could be read."""

    kit_code: str | None
    tube_code: str | None
    dob: date | None
    family_name: str | None
    fault: Fault | None


@lru_cache(maxsize=16_384)
def _read_id(text: str) -> str | None:
    """A kit or tube id, or None. Ids are opaque: keeping them in memory tells nothing."""
    if len(text) == _SHOWN_TUBE_LENGTH and text[-2] == "-" and text[-1] in "123456789":
        kit = _read_id(text[:-2])  # the tubes of one kit: its check character is computed once
        return kit + text[-1] if kit and len(kit) == _KIT_LENGTH else None
    return normalise_tube_code(text) or normalise_kit_code(text)


def _identity(lab: LabMap, form: Form, row: LabRow) -> _Identity:
    """Kit id, tube id, full date of birth: all that is stated must be right and agree (ruling 9)."""
    kits: set[str] = set()
    kits_of_tubes: set[str] = set()
    tubes: set[str] = set()
    fault: Fault | None = None
    for text in row.kit_refs + row.tube_refs:
        code = _read_id(text)
        if code is None:
            fault = Fault(Quarantine.BAD_KIT_ID, "A kit or tube id is misspelt: its check character does not fit.")
        elif len(code) > _KIT_LENGTH:
            tubes.add(code)
            kits_of_tubes.add(code[:_KIT_LENGTH])
        else:
            kits.add(code)
    if fault is None:
        fault = _disagreement(lab, row, kits, tubes)
    dob = lab_time.read_day(row.dob, lab.csv.dob_format if form is Form.CSV and lab.csv else form)
    if fault is None and dob is None:
        fault = Fault(Quarantine.IDENTITY_MISSING, "The date of birth is missing or not a full date.")
    everything = kits | kits_of_tubes
    kit = next(iter(everything)) if len(everything) == 1 else None
    tube = next(iter(tubes)) if len(tubes) == 1 else None
    return _Identity(kit, tube, dob, fold_name(row.family_name) or None, fault)


def _disagreement(lab: LabMap, row: LabRow, kits: set[str], tubes: set[str]) -> Fault | None:
    """What is wrong among the ids of one row, each of which is well spelt."""
    if not row.has_person:
        return Fault(Quarantine.IDENTITY_MISSING, "The result stands before or without a patient.")
    if not kits and not tubes:
        return Fault(Quarantine.IDENTITY_MISSING, "No kit id and no tube id is given.")
    if len(kits) > 1:
        return Fault(Quarantine.IDENTITY_CONFLICT, "The row names two different kits.")
    if len(tubes) > 1 or {tube[:_KIT_LENGTH] for tube in tubes} - kits and kits:
        return Fault(Quarantine.TUBE_MISMATCH, "The tube id is not of the kit that the row names.")
    if lab.tube_required and not tubes:
        return Fault(Quarantine.IDENTITY_MISSING, "No tube id is given, and this lab sends one with every row.")
    return None


# ── When ─────────────────────────────────────────────────────────────────────────────────────


class RowTimes(NamedTuple):
    """A row's clocks, as precise as they were sent, and what is impossible among them."""

    collected: lab_time.LabTime | None
    received: lab_time.LabTime | None
    authorised: lab_time.LabTime | None
    tested: lab_time.LabTime | None
    fault: Fault | None


_YEAR_OR_MONTH: Final = re.compile(r"\d{4}(-?\d\d)?", re.ASCII)


@lru_cache(maxsize=8_192)
def _times(  # noqa: PLR0913, PLR0917 - the four clocks and what bounds them; memoised, so plain values
    lab: LabMap, form: Form, collected_raw: str, received_raw: str, authorised_raw: str, tested_raw: str, sent_raw: str
) -> RowTimes:
    """The row's clocks, and what is impossible among them without knowing today's date."""
    day = lab.csv.date_format if form is Form.CSV and lab.csv else form
    clock = lab.csv.time_format if form is Form.CSV and lab.csv else form
    fault: Fault | None = None
    read: list[lab_time.LabTime | None] = []
    for what, raw, spelling in (
        ("collected", collected_raw, day),
        ("received", received_raw, clock),
        ("authorised", authorised_raw, clock),
        ("tested", tested_raw, clock),
        ("sent", sent_raw, clock),
    ):
        text = "" if raw == '""' else raw.strip()
        found = lab_time.read_time(text, spelling, lab.zone) if text else None
        if text and found is None and not _YEAR_OR_MONTH.fullmatch(text):
            fault = fault or Fault(Quarantine.DATE_IMPLAUSIBLE, f"The time '{what}' is not a date that can be read.")
        read.append(found)
    collected, received, authorised, tested, sent = read
    if fault is None:
        fault = _impossible(lab, collected, received, sent or authorised)
    return RowTimes(collected, received, authorised, tested, fault)


def times_of(message: LabMessage, row: LabRow, lab: LabMap) -> RowTimes:
    """When the sample was collected and received, and the result tested and authorised."""
    return _times(
        lab,
        message.form,
        row.sampled_raw or row.collected_raw,
        row.received_raw,
        row.authorised_raw,
        row.tested_raw,
        message.sent_raw,
    )


def _impossible(
    lab: LabMap,
    collected: lab_time.LabTime | None,
    received: lab_time.LabTime | None,
    told: lab_time.LabTime | None,
) -> Fault | None:
    if collected and received and collected.on > received.on:
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The sample was received before it was collected.")
    if told and any(earlier.on > told.on for earlier in (collected, received) if earlier):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The sample was collected or received after the result was sent.")
    if collected and received and lab.max_sample_age_days is not None:
        if (received.on - collected.on).days > lab.max_sample_age_days:
            return Fault(Quarantine.TOO_OLD, "The sample was older on receipt than the assay allows.")
    return None


# ── Comments ─────────────────────────────────────────────────────────────────────────────────


def _comment(lab: LabMap, notes: tuple[str, ...]) -> tuple[bool, bool, str]:
    """(held for review, urgent, text). Each note, or all of them as one text, must be on the reviewed list."""
    comment = "\n".join(note for note in notes if note.strip() and note.strip() != '""')
    if not comment:
        return False, False, ""
    folded = fold_token(comment)
    held = folded not in lab.boiler_plate and any(
        fold_token(note) not in lab.boiler_plate for note in notes if note.strip() and note.strip() != '""'
    )
    return held, held and any(word in folded for word in lab.urgent_words), comment


# ── The message ──────────────────────────────────────────────────────────────────────────────

_PARTIAL_CODES: Final[Mapping[Form, frozenset[str]]] = {
    Form.HL7: frozenset(code for code, state in _HL7_ORDER.items() if state is RowState.PARTIAL),
    Form.FHIR: frozenset(code for code, state in _FHIR_REPORT.items() if state is RowState.PARTIAL),
    Form.CSV: frozenset(),
}


def _open_orders(lab: LabMap, message: LabMessage) -> frozenset[int]:
    """The orders of a message with a row that is not final: they may be called partial."""
    partial = _PARTIAL_CODES[message.form]
    if not any(row.report_status_raw in partial for row in message.rows):
        return frozenset()
    return frozenset(
        row.order_no
        for row in message.rows
        if row.value_type != ORDER_ONLY
        and _states_of(lab, message.form, row.row_status_raw, row.report_status_raw)[0] is RowState.PENDING
    )


def _row_meaning(lab: LabMap, message: LabMessage, row: LabRow, open_orders: frozenset[int]) -> _Meaning:
    status = row.row_status_raw
    if row.value_type == ASIDE:
        return _Meaning(None, None, None, None, None, is_risky=False, is_detail=True)
    if row.value_type == ORDER_ONLY:
        order = _states_of(lab, message.form, "", row.report_status_raw)[1]
        if order in {RowState.PENDING, RowState.PARTIAL}:
            if isinstance(_test_of(lab, row.test_codes), Fault):
                return _Meaning(None, None, None, None, None, is_risky=False, is_detail=True)
            status = "I" if message.form is Form.HL7 else "registered"
        else:
            status = row.report_status_raw
    notes = row.notes + row.order_notes + row.reject_raw if row.notes or row.order_notes or row.reject_raw else ()
    return _meaning(
        lab,
        message.form,
        row.test_codes,
        "" if row.value_type == ORDER_ONLY else row.value_type,
        row.value_raw,
        row.value_codes,
        row.flags_raw,
        status,
        row.report_status_raw,
        row.sites_raw,
        row.order_no in open_orders,
        notes,
    )


def interpret(message: LabMessage, lab: LabMap) -> list[Reading]:
    """What every row of a message means: one answer a row (several only where the map splits a combined value).

    Pure. Never raises on any content of a row; never gives an outcome that the lab map does not hold.
    """
    readings: list[Reading] = []
    details: list[tuple[int, _Meaning, str | None, bool]] = []
    open_orders = _open_orders(lab, message)
    message_fault = message.fault or _not_live(message)
    identity_key: tuple[object, ...] | None = None
    identity = _Identity(None, None, None, None, None)
    for row in message.rows:
        key = (row.kit_refs, row.tube_refs, row.dob, row.family_name, row.has_person)
        if key != identity_key:
            identity, identity_key = _identity(lab, message.form, row), key
        meaning = _row_meaning(lab, message, row, open_orders)
        times = times_of(message, row, lab)
        fault = message_fault or row.fault
        if meaning.is_detail:
            if fault is None:
                details.append((len(readings), meaning, identity.kit_code, _comment(lab, row.notes)[0]))
                readings.append(Detail(row.position, row.row_key))
                continue
        else:
            fault = fault or identity.fault or meaning.fault or times.fault
        if fault is not None:
            readings.append(_quarantine(message, row, identity, meaning, times, fault))
        else:
            readings += _findings(lab, message, row, identity, meaning, times)
    if details:
        _apply_details(lab, message, readings, details)
    if len(readings) > 1:
        _refuse_contradictions(message, readings)
    return readings


def _findings(
    lab: LabMap, message: LabMessage, row: LabRow, identity: _Identity, meaning: _Meaning, times: RowTimes
) -> list[Reading]:
    """The findings of a row without a fault: one, or one for each part of a combined value."""
    assert meaning.site is not None, "a meaning without a fault has a site"
    assert meaning.status is not None, "a meaning without a fault has a status"
    assert identity.kit_code is not None, "an identity without a fault has a kit"
    assert identity.dob is not None, "an identity without a fault has a date of birth"
    review, urgent, comment = False, False, ""
    if row.notes or row.order_notes or row.person_notes:
        review, urgent, comment = _comment(lab, row.notes + row.order_notes + row.person_notes)
    if meaning.needs_review or (row.reject_raw and meaning.status is not ReportStatus.CANCELLED):
        review = True
    collected, received, authorised, tested, _ = times
    stamp = tested or authorised
    found: list[Reading] = []
    for test, outcome in meaning.parts or ((meaning.test, meaning.outcome),):
        assert test is not None, "a meaning without a fault has a test"
        assert outcome is not None, "a meaning without a fault has an outcome"
        found.append(
            Finding(
                row.position,
                row.row_key,
                message.message_id,
                row.accession,
                identity.kit_code,
                identity.tube_code,
                identity.dob,
                identity.family_name,
                row.nhs_number or None,
                test,
                meaning.site,
                row.sub_id,
                outcome,
                meaning.status,
                meaning.order_corrected,
                stamp.at if stamp else None,
                stamp.is_doubtful if stamp else False,
                _revision(row.revision_raw),
                collected.at if collected else None,
                received.at if received else None,
                authorised.at if authorised else None,
                review,
                urgent,
                comment,
                row.parent_ref,
            )
        )
    return found


def _revision(text: str) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004


def _not_live(message: LabMessage) -> Fault | None:
    if message.form is Form.HL7 and message.processing_id.split("^", 1)[0].strip() != "P":
        return Fault(Quarantine.TEST_MESSAGE, "The message is not marked as live (MSH-11 is not P).")
    if message.form is Form.FHIR and message.processing_id:
        return Fault(Quarantine.TEST_MESSAGE, "The message is marked as test data.")
    return None


def _quarantine(
    message: LabMessage, row: LabRow, identity: _Identity, meaning: _Meaning, times: RowTimes, fault: Fault
) -> Quarantined:
    return Quarantined(
        row.position,
        row.row_key,
        message.message_id,
        row.accession,
        identity.kit_code,
        identity.tube_code,
        meaning.test,
        meaning.site,
        meaning.status,
        times.collected.at if times.collected else None,
        times.authorised.at if times.authorised else None,
        fault.reason,
        fault.detail,
        meaning.is_risky,
    )


def _hold(finding: Finding, reason: Quarantine, detail: str) -> Quarantined:
    """A finding taken back because of another row."""
    return Quarantined(
        finding.position,
        finding.row_key,
        finding.message_id,
        finding.accession,
        finding.kit_code,
        finding.tube_code,
        finding.test,
        finding.site,
        finding.status,
        finding.collected_at,
        finding.authorised_at,
        reason,
        detail,
        may_be_non_negative=True,
    )


_DONE: Final = frozenset({ReportStatus.FINAL, ReportStatus.CORRECTED})


def _apply_details(
    lab: LabMap,
    message: LabMessage,
    readings: list[Reading],
    details: Sequence[tuple[int, _Meaning, str | None, bool]],
) -> None:
    """Lets each cut-off index speak to the result that it supports; one that supports nothing is kept for a person."""
    for at, meaning, kit_code, review in details:
        if meaning.test is None:
            continue
        mine = [
            (number, found)
            for number, found in enumerate(readings)
            if isinstance(found, Finding) and found.test is meaning.test and found.kit_code == kit_code
        ]
        if not mine:
            if not any(
                isinstance(r, Quarantined) and r.test is meaning.test and r.kit_code == kit_code for r in readings
            ):
                row = message.rows[_row_at(message, readings[at])]
                identity = _Identity(kit_code, None, None, None, None)
                fault = Fault(
                    Quarantine.CONFLICTING_VALUES, "A cut-off index came without the result that it supports."
                )
                clocks = RowTimes(None, None, None, None, None)
                readings[at] = _quarantine(message, row, identity, meaning, clocks, fault)
            continue
        for number, found in mine:
            if found.status not in _DONE:
                continue
            if meaning.cut_off is None or meaning.status not in _DONE or review:
                readings[number] = found = found._replace(note_review=True)
            if meaning.cut_off is not None and meaning.status in _DONE:
                said = _agree_with_index(found.outcome, meaning.cut_off, lab.outcomes.get(found.test, {}).values())
                if isinstance(said, Fault):
                    readings[number] = _hold(found, said.reason, said.detail)
                else:
                    readings[number] = found._replace(outcome=said)


def _row_at(message: LabMessage, reading: Reading) -> int:
    return next(number for number, row in enumerate(message.rows) if row.row_key == reading.row_key)


def _refuse_contradictions(message: LabMessage, readings: list[Reading]) -> None:
    """Two rows of one message for the same test and site, equally final, that differ: a person decides.

    In a table a later revision or report time of the same result supersedes and does not contradict.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, reading in enumerate(readings):
        if isinstance(reading, Detail) or reading.test is None:
            continue
        key: tuple[object, ...] = (reading.kit_code, reading.test, reading.site, reading.status)
        if message.form is Form.CSV:
            revision = reading.revision if isinstance(reading, Finding) else None
            key = (*key, revision, reading.authorised_at)
        groups.setdefault(key, []).append(number)
    if len(groups) == len(readings):
        return
    for numbers in groups.values():
        said = {r.outcome if isinstance(r, Finding) else None for r in (readings[n] for n in numbers)}
        if len(said) > 1:
            for number in numbers:
                reading = readings[number]
                if isinstance(reading, Finding):
                    readings[number] = _hold(
                        reading,
                        Quarantine.CONFLICTING_VALUES,
                        "Two rows give different values for the same test and site.",
                    )
