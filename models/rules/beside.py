"""What the rows of one message say beside each other: indexes, documents, reflex tests, two words for one test.

Pure, over the readings of one message, which are changed in place: a result that another row speaks against is held or
taken back; nothing here makes a result better than its own row does. Sources: lab-messages.md 2.1, 2.4, 7.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

from models.rules.lab import ATTACHED, Fault, Form, LabMap, LabRow
from models.rules.lab_meaning import Meaning, agree_with_index
from models.rules.reading import Detail, Finding, Quarantined, Reading, refused
from models.rules.vocabulary import Outcome, Quarantine, ReportStatus, Test

_MOST_WORDS: Final = 50
"""Results, or indexes, of one test of one kit in one message: each is held against each."""
_DONE: Final = frozenset({ReportStatus.FINAL, ReportStatus.CORRECTED})

_UNREAD: Final = Fault(Quarantine.UNKNOWN_TEST, "A document came without a final result that it stands beside.")
_LONE: Final = Fault(Quarantine.CONFLICTING_VALUES, "A cut-off index came without the result that it supports.")
_ANOTHERS: Final = Fault(
    Quarantine.IDENTITY_CONFLICT, "A cut-off index names another person or tube than the result that it supports."
)
_TOO_MANY: Final = Fault(Quarantine.CONFLICTING_VALUES, "One test has more results or indexes than are compared.")
_CONTRADICTION: Final = Fault(
    Quarantine.CONFLICTING_VALUES, "Two rows give different values for the same test and site."
)
_STRAY: Final = "A row beside this result can't be read, or does not say for certain whose it is."
EARLY_REFLEX: Final = "A reflex test came before its screen was final."
OWN_COMMENTS: Final = frozenset({ATTACHED, EARLY_REFLEX, _STRAY, _ANOTHERS.detail, _TOO_MANY.detail})
"""What we say ourselves beside a finding that a person reads first, with nothing personal in it."""


def why_held(row: LabRow, found: Finding) -> str:
    """Why a person reads a result first, without the words of any comment."""
    said = [line for line in found.comment.split("\n") if line.strip()]
    why = [sentence for sentence in said if sentence in OWN_COMMENTS]
    if len(why) < len(said):
        why.append("A comment is not on the reviewed list.")
    if row.reject_raw:
        why.append("The specimen has a reason to be rejected.")
    if row.report_status_raw == "appended":
        why.append("The report was appended to.")
    return " ".join(["A person reads this result first.", *(why or ["A row beside it is unclear."])])


class Support(NamedTuple):
    """An index or a document: a row that is no result, and speaks to those of its kit."""

    at: int
    """Its place among the readings."""
    kept: Quarantined
    """The row as it is kept for a person where it can't be heard, but for the reason."""
    dob: date
    family_name: str | None
    meaning: Meaning
    """Of an index; a document has none, and no test."""
    told: tuple[datetime | None, int | None]
    """The lab's time and revision, by which it belongs to one of several words about its test."""
    said: str
    """What a person must read about it; '' for nothing."""
    is_urgent: bool

    def refused(self, why: Fault) -> Quarantined:
        """The row, kept for a person."""
        return self.kept._replace(reason=why.reason, detail=why.detail)


class Stray(NamedTuple):
    """An index or a document that can't be heard: it may belong to any result of the kits and the person it names."""

    kits: frozenset[str]
    dob: date | None


class Beside(NamedTuple):
    """What stands beside the results of one message."""

    supports: list[Support]
    strays: list[Stray]
    panels: set[str]
    """Keys of the orders without results that ask for several tests: the head of a panel is no screen."""


def hear(lab: LabMap, form: Form, readings: list[Reading], beside: Beside) -> None:
    """Lets the rows of a message speak to each other."""
    if beside.supports:
        _hear_indexes(lab, readings, [each for each in beside.supports if each.meaning.test is not None])
        _hear_documents(readings, [each for each in beside.supports if each.meaning.test is None])
    if beside.strays:
        _hold_beside_strays(readings, beside.strays)
    if len(readings) > 1:
        _refuse_contradictions(form, readings)
        _hold_early_reflexes(readings, beside.panels)


def held(found: Finding, said: str) -> Finding:
    """A finding that a person reads first, with what there is to read. A comment that needed no reading is left out."""
    if not found.note_review:
        return found._replace(note_review=True, comment=said)
    if f"\n{said}\n" in f"\n{found.comment}\n":
        return found
    known = set(found.comment.split("\n"))
    more = [line for line in said.split("\n") if line not in known]
    return found._replace(comment="\n".join(filter(None, [found.comment, *more])))


# ── Documents, and rows of no certain kit ────────────────────────────────────────────────────


def _hear_documents(readings: list[Reading], documents: Sequence[Support]) -> None:
    """A person reads the results of a kit beside a document first. One that stands beside none is for a person."""
    kits, done = {document.kept.kit_code for document in documents}, set[str | None]()
    for number, found in enumerate(readings if documents else ()):
        if isinstance(found, Finding) and found.kit_code in kits:
            done |= {found.kit_code} if found.status is not ReportStatus.PRELIMINARY else set()
            readings[number] = held(found, ATTACHED)
    for document in documents:
        if document.kept.kit_code not in done:
            readings[document.at] = document.refused(_UNREAD)


def _hold_beside_strays(readings: list[Reading], strays: Sequence[Stray]) -> None:
    """Holds what a row that can't be heard may be about; one that names nobody may be about anybody of the message."""
    kits = frozenset[str]().union(*(stray.kits for stray in strays))
    people = {stray.dob for stray in strays if stray.dob}
    is_anybodys = any(not stray.kits and not stray.dob for stray in strays)
    for number, found in enumerate(readings):
        if isinstance(found, Finding) and (is_anybodys or found.kit_code in kits or found.dob in people):
            readings[number] = held(found, _STRAY)


# ── Cut-off indexes ──────────────────────────────────────────────────────────────────────────


def _hear_indexes(lab: LabMap, readings: list[Reading], indexes: Sequence[Support]) -> None:
    """Lets each cut-off index speak to the result that it supports; one that supports nothing is kept for a person."""
    together: dict[tuple[Test | None, str | None], list[Support]] = defaultdict(list)
    for index in indexes:
        together[index.meaning.test, index.kept.kit_code].append(index)
    about: dict[tuple[Test | None, str | None], list[int]] = defaultdict(list)
    for number, reading in enumerate(readings if together else ()):
        if not isinstance(reading, Detail):
            about[reading.test, reading.kit_code].append(number)
    for key, mine in together.items():
        alike = about[key]
        are_too_many = max(len(alike), len(mine)) > _MOST_WORDS
        doubts: set[str] = set()
        for index in mine:
            doubt = _TOO_MANY if are_too_many else _doubt_about(index, [readings[number] for number in alike])
            if doubt is not None:
                readings[index.at] = index.refused(doubt)
                doubts.add(doubt.detail)
                continue
            for number, found in _supported(readings, alike, index):
                readings[number] = _beside(lab, found, index)
        for number in alike if doubts else ():
            reading = readings[number]
            if isinstance(reading, Finding):
                readings[number] = held(reading, "\n".join(sorted(doubts)))


def _doubt_about(index: Support, alike: Sequence[Reading]) -> Fault | None:
    """Why an index may not be that of the results of its kit and test: all must be of one person and one tube."""
    if not alike:
        return _LONE
    for found in alike:
        if isinstance(found, Finding):
            pairs = ((found.family_name, index.family_name), (found.tube_code, index.kept.tube_code))
            if found.dob != index.dob or any(one != other for one, other in pairs if one and other):
                return _ANOTHERS
    return None


def _supported(readings: Sequence[Reading], alike: Sequence[int], index: Support) -> list[tuple[int, Finding]]:
    """The findings that an index speaks to: every final one, or of several those of its own time, and then status.

    A correction has an index of its own. Whatever time it gives, an index meets a final word where there is one.
    """
    words = [(number, found) for number in alike if isinstance(found := readings[number], Finding)]
    final = [each for each in words if each[1].status in _DONE]
    mine = [each for each in final if (each[1].lab_time, each[1].revision) == index.told] or final
    mine = [each for each in mine if each[1].status is index.meaning.status] or mine
    failed = [each for each in words if each[1].status is ReportStatus.CANCELLED]
    failed = [each for each in failed if (each[1].lab_time, each[1].revision) == index.told] if final else failed
    return [*mine, *failed]


def _beside(lab: LabMap, found: Finding, index: Support) -> Finding | Quarantined:
    """A result that is final or failed, seen beside its index and beside what is said of that."""
    meaning, fault = index.meaning, index.meaning.fault
    if index.said:
        found = held(found, index.said)._replace(urgent_note=found.urgent_note or index.is_urgent)
    if meaning.status not in _DONE:  # a failed test may have an index that failed too
        return found if found.status is ReportStatus.CANCELLED else found._replace(note_review=True)
    if fault is not None and (found.outcome is Outcome.NEGATIVE or fault.reason is Quarantine.CONFLICTING_VALUES):
        return _taken_back(found, fault)
    if meaning.cut_off is None:  # unclear, and no all clear: a person reads both; or none, which says nothing
        return found._replace(note_review=found.note_review or meaning.needs_review or fault is not None)
    targets = lab.outcomes.get(found.test, {}).values()
    said = agree_with_index(found.outcome, meaning.cut_off, targets, lab.index_bands[found.test])
    return _taken_back(found, said) if isinstance(said, Fault) else found._replace(outcome=said)


def _taken_back(found: Finding, why: Fault) -> Quarantined:
    """A finding refused because of another row, which may be the truer one."""
    return refused(found, why.reason, why.detail)._replace(may_be_non_negative=True)


# ── Two words for one test ───────────────────────────────────────────────────────────────────


def _refuse_contradictions(form: Form, readings: list[Reading]) -> None:
    """Two rows of one message for the same test and site, equally final, that differ: a person decides.

    In a table a later revision or report time of the same result supersedes and does not contradict.
    """
    # By far most messages: every row of another test or site. Enum members are told apart by identity, which is quick.
    apart = {(id(r.test), id(r.site)) for r in readings if not isinstance(r, Detail) and r.test is not None}
    if len(apart) == len(readings):
        return
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, reading in enumerate(readings):
        if isinstance(reading, Detail) or reading.test is None:
            continue
        key: tuple[object, ...] = (reading.kit_code, reading.test, reading.site, reading.status)
        if form is Form.CSV:
            revision = reading.revision if isinstance(reading, Finding) else None
            key = (*key, revision, reading.authorised_at)
        groups.setdefault(key, []).append(number)
    for numbers in groups.values():
        said = {r.outcome if isinstance(r, Finding) else None for r in (readings[n] for n in numbers)}
        for number in numbers if len(said) > 1 else ():
            reading = readings[number]
            if isinstance(reading, Finding):
                readings[number] = _taken_back(reading, _CONTRADICTION)


def _hold_early_reflexes(readings: list[Reading], panels: Collection[str]) -> None:
    """A reflex while its screen is not final yet: what the screen comes to, a person decides (lab-messages.md 2.1).

    However it names its screen, or does not. An interim row of the very same report and the head of a panel are none.
    """
    screens: dict[tuple[object, ...], set[tuple[str, str]]] = defaultdict(set)
    for found in readings:
        if isinstance(found, Finding) and found.outcome is Outcome.PENDING and found.row_key not in panels:
            screens[found.kit_code, found.test, found.site].add((found.accession, found.parent_ref))
    for number, found in enumerate(readings if screens else ()):
        if not isinstance(found, Finding) or found.outcome is Outcome.PENDING:
            continue
        waiting = screens.get((found.kit_code, found.test, found.site), set())
        if waiting - {(found.accession, found.parent_ref)}:
            readings[number] = held(found, EARLY_REFLEX)
