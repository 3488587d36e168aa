"""What a row says, apart from whose it is and when: its test, site, status and value.

The decision order is that of lab-messages.md 2.4; statuses are those of 2.3 and 3.2. Everything here
depends on the row's own codes and words alone and is therefore remembered, whole, for equal rows.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules.lab import (
    ABSENT,
    LOCAL,
    PLAIN,
    Coded,
    CombinedCode,
    DetailCode,
    Fault,
    Form,
    IndexBands,
    LabMap,
    RowState,
    SingleCode,
    fold_token,
)
from models.rules.vocabulary import NON_RESULTS, Outcome, Quarantine, ReportStatus, Site, Test

TestEntry = SingleCode | CombinedCode | DetailCode


class Meaning(NamedTuple):
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

HL7_ORDER: Final[Mapping[str, RowState]] = {
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
FHIR_REPORT: Final[Mapping[str, RowState]] = {
    "registered": RowState.PENDING,
    "partial": RowState.PARTIAL,
    "preliminary": RowState.PENDING,
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

_FINAL_STATES: Final = frozenset({RowState.FINAL, RowState.CORRECTED, RowState.NOT_ASKED})

_PLACEHOLDERS: Final = frozenset({"", '""', "see note", "see notes", "see comment", "dnr", "pending", "."})
"""Values that are never a result (lab-messages.md 2.4)."""

_NOT_DONE: Final = frozenset({"not-performed", "not-applicable", "not-asked"})
_SAYS_LITTLE: Final = frozenset(
    spelt
    for code in (
        *(*_NOT_DONE, "unknown", "asked-unknown", "temporarily-unknown", "asked-declined", "masked", "unsupported"),
        *("as-text", "error", "not-permitted"),
    )
    for spelt in (code, code.replace("-", " "), code.replace("asked-", "asked but "))
)
"""FHIR's own codes for why there is no value, and their displays: they say less than the words beside them."""

_NUMERIC_TYPES: Final = frozenset({"SN", "NM"})
_TEXT_TYPES: Final = frozenset({"", "ST", "TX", "FT", "IS", "ID"})
_CODED_TYPES: Final = frozenset({"CE", "CWE", "CNE", "CF"})

_NORMAL_FLAGS: Final = frozenset(
    {
        *("N", "NEG", "ND", "NR", "NORMAL", "NEGATIVE", "NOT DETECTED", "NON-REACTIVE", "NONREACTIVE", "NON REACTIVE"),
        "NORMAL (APPLIES TO NON-NUMERIC RESULTS)",
    }
)
"""Codes of HL7 table 0078 and their own words. Anything else, also behind one of them, speaks against a negative."""
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


def test_of(lab: LabMap, codes: Sequence[Coded]) -> TestEntry | Fault:
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


def site_of(lab: LabMap, described: Sequence[Coded], allowed: frozenset[Site]) -> Site | Fault:
    """The sample's site. Every description must agree; none at all means the only site allowed, if there is one."""
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


def _state_of(row: RowState | None, order: RowState | None, *, order_is_open: bool) -> RowState | Fault:
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
        return _SEVERAL
    near = _nearest(token, (word for system, word in words if system == PLAIN and word))
    return Fault(Quarantine.UNKNOWN_TOKEN, f"The result word or code is not in the lab map for {test}.{near}")


_SEVERAL: Final = Fault(Quarantine.COMBINED_RESULT, "One value tells of several infections and is not in the lab map.")
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
    text: str,
    shown: frozenset[str],
    outcome: Outcome | None,
    words: Mapping[tuple[str, str], Outcome],
    bands: IndexBands | None,
) -> Outcome | Fault | None:
    """A code's own words with a cut-off index behind them ('low reactive (coi 3.2)'), or None if it is not that."""
    found = _INDEX_IN_TEXT.fullmatch(text)
    if outcome is None or bands is None or not found or found[1] not in shown:
        return None
    span = _span(found[2])
    return agree_with_index(outcome, span, words.values(), bands) if span else None


def _shown(lab: LabMap, coded: Coded) -> frozenset[str]:
    """The texts, folded, that are merely the agreed words for a code."""
    system = lab.system(coded.system)
    return lab.displays.get((system, fold_token(coded.code)), frozenset()) if system else frozenset()


def _code(lab: LabMap, test: Test, codings: Sequence[Coded]) -> Outcome | Fault:
    """What a coded value means: every code and every text must be known and say the same."""
    words = lab.outcomes.get(test, {})
    found: set[Outcome] = set()
    fault: Fault | None = None
    is_blank = True
    siblings = frozenset[str]().union(*(_shown(lab, coded) for coded in codings))
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
            # A text of its own, as a CodeableConcept has, may be that of any code beside it.
            shown = lab.displays.get((system, code), frozenset()) if system and code else siblings
            if text in shown:
                continue
            coded = words.get((system or "", code))
            said = _word_with_index(text, shown, coded, words, lab.index_bands.get(test)) or _word(lab, test, text_raw)
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
        found = {lab.cancel_reasons.get(token) for _, token in _telling(lab, raw)}
        return (found.pop() if len(found) == 1 else None) or _EMPTY
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


def agree_with_index(
    outcome: Outcome, span: tuple[float, float], targets: Iterable[Outcome], bands: IndexBands
) -> Outcome | Fault:
    """The outcome, seen beside the index. Where the lab has no word of its own for it, reactive may be low reactive."""
    low, high = span
    low_from, reactive_from = bands
    conflict = Fault(Quarantine.CONFLICTING_VALUES, "The cut-off index and the result word do not agree.")
    if outcome is Outcome.NEGATIVE:
        return outcome if high <= low_from and low < low_from else conflict
    if outcome is Outcome.LOW_REACTIVE:
        return outcome if low >= low_from and high < reactive_from else conflict
    if outcome is Outcome.REACTIVE:
        if low < low_from:
            return conflict
        if high < reactive_from:
            return conflict if Outcome.LOW_REACTIVE in targets else Outcome.LOW_REACTIVE
        return outcome
    # An assay's grey zone may lie on either side of where low reactive begins, and never where reactive does.
    return outcome if outcome is Outcome.EQUIVOCAL and high < reactive_from else conflict


# ── The whole of a row, apart from identity and times ────────────────────────────────────────


def _fhir_states(statuses: str, report: RowState | None) -> tuple[RowState | None, RowState | None]:
    """Row and order, where the row's status is followed, after blanks, by those of the groups it is a member of.

    The most cautious of them counts, and what stands in a corrected report is corrected: FHIR has no exception for
    rows that a correction left as they were (lab-messages.md 3.2).
    """
    states = [_FHIR_ROW.get(status) for status in statuses.split(" ")]
    if None in states:
        return None, report
    careful = (RowState.WITHDRAWN, RowState.CANCELLED, RowState.PENDING, RowState.CORRECTED)
    row = next(state for state in (*careful, RowState.FINAL) if state in states)
    if row is RowState.PENDING and states[0] is RowState.CORRECTED:
        # A correction in what is not final yet: heard in a partial report, else a contradiction, never 'no effect'.
        return RowState.CORRECTED, RowState.CORRECTED if report is RowState.PARTIAL else RowState.PENDING
    if report is RowState.PARTIAL:  # only a correction is heard before the report is whole
        return row, row if row is RowState.CORRECTED else RowState.PENDING
    return RowState.CORRECTED if row is RowState.FINAL and report is RowState.CORRECTED else row, report


def states_of(lab: LabMap, form: Form, row: str, order: str) -> tuple[RowState | None, RowState | None]:
    """What the status codes of row and order mean; None for one that is missing or not known."""
    if form is Form.HL7:
        return _HL7_ROW.get(row.strip()), HL7_ORDER.get(order.strip())
    if form is Form.FHIR:
        return _fhir_states(row, FHIR_REPORT.get(order) if order else RowState.FINAL)
    if lab.csv is not None and not lab.csv.status:
        return RowState.FINAL, RowState.FINAL  # this dialect has no status column: final by contract
    return (lab.csv.statuses.get(fold_token(row)) if lab.csv else None), RowState.FINAL


def _is_risky(lab: LabMap, kind: str, raw: tuple[str, ...], codes: tuple[tuple[Coded, ...], ...]) -> bool:
    """Whether a value that can't be used might be something else than negative."""
    said = {_value(lab, test, kind, raw, codes) for test in lab.outcomes}
    outcomes = {outcome for outcome in said if isinstance(outcome, Outcome)}
    return not outcomes <= NON_RESULTS | {Outcome.NEGATIVE} or not outcomes


@lru_cache(maxsize=65_536)
def meaning_of(  # noqa: PLR0911, PLR0913, PLR0917, C901 - the decision order of lab-messages.md 2.4, in one place, memoised as a whole
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
    order_is_open: bool,  # noqa: FBT001 - a key of the memory, by position
    reasons: tuple[str, ...],
) -> Meaning:
    """The whole meaning of a row from its own codes and words. `reasons`: comments and rejections, if cancelled."""
    entry = test_of(lab, test_codes)
    if isinstance(entry, Fault):
        return Meaning(None, None, None, None, entry, _is_risky(lab, kind, raw, codes))
    row_state, order_state = states_of(lab, form, row_status, order_status)
    state = _state_of(row_state, order_state, order_is_open=order_is_open)
    test = None if isinstance(entry, CombinedCode) else entry.test
    site = site_of(lab, sites, frozenset(Site) if isinstance(entry, DetailCode) else entry.sites)
    if isinstance(state, Fault):
        known = site if isinstance(site, Site) and not isinstance(entry, DetailCode) else None
        return Meaning(test, known, None, None, state, is_risky=True, is_detail=isinstance(entry, DetailCode))
    status = _STATUS.get(state, ReportStatus.FINAL)
    if isinstance(entry, DetailCode):
        is_none = state in _FINAL_STATES and not any(flags) and _is_no_index(lab, entry.test, _Value(kind, raw, codes))
        return _detail(entry, status, raw, is_none=is_none)
    if isinstance(site, Fault):
        return Meaning(test, None, None, status, site, _is_risky(lab, kind, raw, codes))
    corrected = state is RowState.FINAL and order_state is RowState.CORRECTED
    review = order_state is RowState.APPENDED
    if isinstance(entry, CombinedCode):
        return _split(site, status, _parts_of(lab, entry, state, _Value(kind, raw, codes), reasons))
    if state is RowState.PENDING:
        return Meaning(test, site, Outcome.PENDING, status, None, is_risky=False)
    if state is RowState.WITHDRAWN:
        return Meaning(test, site, Outcome.WITHDRAWN, status, None, is_risky=True)
    said = _value(lab, entry.test, kind, raw, codes)
    if state is RowState.NOT_ASKED:
        if said is _EMPTY:
            return Meaning(test, site, Outcome.NOT_REQUESTED, status, None, is_risky=False)
        fault = Fault(Quarantine.UNKNOWN_STATUS, "The row says 'not asked' and yet has a value.")
        return Meaning(test, site, None, status, fault, is_risky=said is not Outcome.NEGATIVE)
    if state is RowState.CANCELLED:
        said = _cancelled(lab, entry.test, _Value(kind, raw, codes), reasons)
    elif isinstance(said, Outcome) and _flags_contradict(flags, said):
        fault = Fault(Quarantine.FLAG_CONFLICT, "The abnormal flag contradicts the value.")
        return Meaning(test, site, None, status, fault, is_risky=True)
    if isinstance(said, Fault):
        is_risky = said.reason is not Quarantine.CANCELLED_NO_REASON or _is_risky(lab, kind, raw, codes)
        return Meaning(test, site, None, status, said, is_risky)
    return Meaning(test, site, said, status, None, said is not Outcome.NEGATIVE, corrected, review)


class _Value(NamedTuple):
    """A row's value as it was sent: its type, its texts, its codes."""

    kind: str
    raw: tuple[str, ...]
    codes: tuple[tuple[Coded, ...], ...]


def _cancelled(lab: LabMap, test: Test, value: _Value, reasons: tuple[str, ...]) -> Outcome | Fault:
    """Why a cancelled test failed, by the lab's list of reasons; a result word is no reason.

    Codes and texts alike must be known and give one reason (lab-messages.md 7). Comments and rejections are asked
    where no value says why.
    """
    words, failures = lab.outcomes.get(test, {}), set(lab.cancel_reasons.values())
    said = _spelt(lab, value.codes) if value.codes else _telling(lab, value.raw, value.kind)
    told = {
        (system, token): None
        if system is None
        else lab.cancel_reasons.get(token)
        or words.get((system, token))
        or (words.get((PLAIN, token)) if system == LOCAL else None)
        for system, token in said
        if token not in _PLACEHOLDERS
    }
    if not told:
        beside = (token for token in map(fold_token, reasons) if token in lab.cancel_reasons)
        told = {(PLAIN, token): lab.cancel_reasons[token] for token in beside}
    given = {outcome for outcome in told.values() if outcome in failures}
    if not given:
        return Fault(Quarantine.CANCELLED_NO_REASON, "The test is cancelled without a reason from the lab's list.")
    if len(given) > 1:
        return Fault(Quarantine.CONFLICTING_VALUES, "The cancelled row gives two different reasons.")
    unknown = {system for (system, _), outcome in told.items() if outcome is None}
    if unknown - {PLAIN} or (unknown and not value.codes):
        return Fault(Quarantine.UNKNOWN_TOKEN, "Beside its reason the cancelled row has a word that is not in the map.")
    if unknown or set(told.values()) != given:
        reason = Quarantine.CODE_DISPLAY_CONFLICT if value.codes else Quarantine.CONFLICTING_VALUES
        return Fault(reason, "The cancelled row gives a reason and something else.")
    return given.pop()


def _telling(lab: LabMap, raw: tuple[str, ...], kind: str = ABSENT) -> list[tuple[str, str]]:
    """A value's words, folded; of a reason for having none those that are more than FHIR's own."""
    tokens = [fold_token(text) for text in raw]
    if kind == ABSENT:
        tokens = [token for token in tokens if token not in _SAYS_LITTLE or token in lab.cancel_reasons]
    return [(PLAIN, token) for token in tokens]


def _spelt(lab: LabMap, codes: tuple[tuple[Coded, ...], ...]) -> list[tuple[str | None, str]]:
    """Every code with its system, and every text that is not merely the agreed words for a code beside it."""
    found: list[tuple[str | None, str]] = []
    for codings in codes:
        shown = frozenset[str]().union(*(_shown(lab, coded) for coded in codings))
        found += [(lab.system(coded.system), fold_token(coded.code)) for coded in codings]
        found += [(PLAIN, text) for coded in codings if (text := fold_token(coded.text)) not in shown]
    return found


def _split(site: Site, status: ReportStatus, parts: Mapping[Test, Outcome] | None) -> Meaning:
    """What a row comes to whose one value tells of several infections."""
    if parts is None:
        return Meaning(None, site, None, status, _SEVERAL, is_risky=True)
    return Meaning(None, site, None, status, None, is_risky=True, parts=tuple(parts.items()))


def _parts_of(
    lab: LabMap, entry: CombinedCode, state: RowState, value: _Value, reasons: tuple[str, ...]
) -> Mapping[Test, Outcome] | None:
    """One value for several infections: split only where the lab map lists the whole value, or none was tested."""
    if state is RowState.PENDING:
        return dict.fromkeys(sorted(entry.tests), Outcome.PENDING)
    if state is RowState.WITHDRAWN:
        return dict.fromkeys(sorted(entry.tests), Outcome.WITHDRAWN)
    if state is RowState.CANCELLED:
        failed = {_cancelled(lab, test, value, reasons) for test in entry.tests}
        reason = failed.pop()
        return dict.fromkeys(sorted(entry.tests), reason) if not failed and isinstance(reason, Outcome) else None
    if state in {RowState.FINAL, RowState.CORRECTED} and len(value.raw) == 1 and not value.codes:
        parts = lab.combined_outcomes.get(fold_token(value.raw[0]))
        return parts if parts is not None and parts.keys() == entry.tests else None
    return None


def _detail(entry: DetailCode, status: ReportStatus, raw: tuple[str, ...], *, is_none: bool) -> Meaning:
    """A row that supports another. `needs_review`: it says something that only a person understands."""
    if is_none or not entry.is_index:
        review = not entry.is_index
        return Meaning(entry.test, None, None, status, None, is_risky=True, is_detail=True, needs_review=review)
    span, fault = _index(raw)
    return Meaning(entry.test, None, None, status, fault, is_risky=True, is_detail=True, cut_off=span)


def _is_no_index(lab: LabMap, test: Test, value: _Value) -> bool:
    """Whether there is none: a blank, FHIR's word for a test not done, or the lab's for one that nobody asked for."""
    if value.codes or value.kind in _CODED_TYPES:
        return False
    said = [fold_token(text) for text in value.raw]
    if value.kind == ABSENT:
        return bool(said) and all(word.replace(" ", "-") in _NOT_DONE for word in said)
    words, blanks = lab.outcomes.get(test, {}), {"", '""', "^"} if value.kind == "SN" else {"", '""'}
    return all(word in blanks or words.get((PLAIN, word)) is Outcome.NOT_REQUESTED for word in said)


def _index(raw: tuple[str, ...]) -> tuple[tuple[float, float] | None, Fault | None]:
    """What a cut-off index allows, or why it can't be read: the screen beside it then waits for a person."""
    if len(set(raw)) > 1:
        return None, Fault(Quarantine.CONFLICTING_VALUES, "The cut-off index beside the result holds several values.")
    span = _span(_joined_number(raw[0])) if raw else None
    if span is None:
        return None, Fault(Quarantine.UNKNOWN_TOKEN, "The cut-off index beside the result is no number that is read.")
    return span, None


def _joined_number(raw: str) -> str:
    """A structured number (comparator^number) or a plain one as text; a range or ratio stays unreadable."""
    return raw.rstrip("^").replace("^", "", 1)
