"""What a lab's row means: a finding, a detail of one, or a quarantine. Nothing else, and never a default.

Pure: a message and the lab's map go in, one answer for each row comes out. What needs the order, the
stored versions or today's date (is the kit ours, is the date of birth right, was this asked for) is
decided later, over these values. Source of the decision order: lab-messages.md 2.3, 2.4, 3.2, 3.3.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules import lab_time
from models.rules.beside import Beside, Stray, Support, hear
from models.rules.kit import normalise_kit_code, normalise_tube_code
from models.rules.lab import (
    ASIDE,
    ORDER_ONLY,
    SPOILT,
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
from models.rules.lab_meaning import HL7_ORDER, Meaning, meaning_of, site_of, states_of, test_of
from models.rules.person import fold_name
from models.rules.reading import Detail, Finding, Quarantined, Reading, numbers_in
from models.rules.vocabulary import Quarantine, ReportStatus, Site, Test

# ── Whose it is ──────────────────────────────────────────────────────────────────────────────

_KIT_LENGTH: Final = 10
_SHOWN_TUBE_LENGTH: Final = 14


class _Person(NamedTuple):
    """What a row says of its person."""

    dob: date | None
    family_name: str | None


class _Identity(NamedTuple):
    """What the row says of kit, tube and person. With a fault, the codes are only what could be read."""

    kit_code: str | None
    tube_code: str | None
    dob: date | None
    family_name: str | None
    fault: Fault | None
    named: tuple[str, ...] = ()
    """Every kit that the row names, by its code or by a tube."""


@lru_cache(maxsize=16_384)
def _read_id(text: str) -> str | None:
    """A kit or tube id, or None. Ids are opaque: keeping them in memory tells nothing."""
    if len(text) == _SHOWN_TUBE_LENGTH and text[-2] == "-" and text[-1] in "123456789":
        kit = _read_id(text[:-2])  # the tubes of one kit: its check character is computed once
        return kit + text[-1] if kit and len(kit) == _KIT_LENGTH else None
    return normalise_tube_code(text) or normalise_kit_code(text)


def _person(lab: LabMap, form: Form, row: LabRow) -> _Person:
    dob = lab_time.read_day(row.dob, lab.csv.dob_format if form is Form.CSV and lab.csv else form)
    return _Person(dob, fold_name(row.family_name) or None)


def _identity(lab: LabMap, row: LabRow, person: _Person) -> _Identity:
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
    if fault is None and person.dob is None:
        sentence = "The date of birth is missing, or is no full date as it was agreed."
        fault = Fault(Quarantine.IDENTITY_MISSING, sentence)
    everything = kits | kits_of_tubes
    kit = next(iter(everything)) if len(everything) == 1 else None
    tube = next(iter(tubes)) if len(tubes) == 1 else None
    return _Identity(kit, tube, person.dob, person.family_name, fault, tuple(sorted(everything)))


def _disagreement(lab: LabMap, row: LabRow, kits: set[str], tubes: set[str]) -> Fault | None:
    """What is wrong among the ids of one row, each of which is well spelt."""
    if not row.has_person:
        return Fault(Quarantine.IDENTITY_MISSING, "The result stands before or without a patient.")
    if not kits and not tubes:
        return Fault(Quarantine.IDENTITY_MISSING, "No kit id and no tube id is given.")
    if len(kits) > 1:
        return Fault(Quarantine.IDENTITY_CONFLICT, "The row names two different kits.")
    if len(tubes) > 1 or ({tube[:_KIT_LENGTH] for tube in tubes} - kits and kits):
        return Fault(Quarantine.TUBE_MISMATCH, "The tube id is not of the kit that the row names.")
    if lab.tube_required and not tubes:
        return Fault(Quarantine.IDENTITY_MISSING, "No tube id is given, and this lab sends one with every row.")
    return None


# ── When ─────────────────────────────────────────────────────────────────────────────────────


class RowTimes(NamedTuple):
    """A row's clocks, as precise as they were sent, and what is impossible among them."""

    collected: lab_time.LabTime | None
    collected_from: date | None
    """The earliest day on which it can have been collected, where only a month or a year was sent."""
    received: lab_time.LabTime | None
    authorised: lab_time.LabTime | None
    tested: lab_time.LabTime | None
    fault: Fault | None


@lru_cache(maxsize=8_192)
def _times(  # noqa: PLR0917 - the four clocks and what bounds them; memoised, so plain values
    lab: LabMap, form: Form, collected_raw: str, received_raw: str, authorised_raw: str, tested_raw: str, sent_raw: str
) -> RowTimes:
    """The row's clocks, and what is impossible among them without knowing today's date."""
    day = lab.csv.date_format if form is Form.CSV and lab.csv else form
    clock = lab.csv.time_format if form is Form.CSV and lab.csv else form
    receipt = (lab.csv.received_format if form is Form.CSV and lab.csv else "") or clock
    fault: Fault | None = None
    read: list[lab_time.LabTime | None] = []
    for what, raw, spelling in (
        ("collected", collected_raw, day),
        ("received", received_raw, receipt),
        ("authorised", authorised_raw, clock),
        ("tested", tested_raw, clock),
        ("sent", sent_raw, clock),
    ):
        text = "" if raw == '""' else raw.strip()
        found = lab_time.read_time(text, spelling, lab.zone) if text else None
        if text and found is None and lab_time.first_day(text, spelling) is None:
            fault = fault or Fault(Quarantine.DATE_IMPLAUSIBLE, f"The time '{what}' is not a date that can be read.")
        read.append(found)
    collected, received, authorised, tested, sent = read
    collected_from = collected.on if collected else lab_time.first_day(collected_raw.strip(), day)
    if fault is None:
        fault = _impossible(collected, collected_from, received, tested, authorised, sent)
    return RowTimes(collected, collected_from, received, authorised, tested, fault)


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


def _is_after(collected: lab_time.LabTime | None, received: lab_time.LabTime | None) -> bool:
    """By their clocks, where both have one. One of the two may be told to the minute only."""
    if collected is None or received is None or not (collected.has_clock and received.has_clock):
        return False
    return collected.at >= received.at + timedelta(minutes=1)


def _impossible(
    collected: lab_time.LabTime | None,
    collected_from: date | None,
    received: lab_time.LabTime | None,
    tested: lab_time.LabTime | None,
    authorised: lab_time.LabTime | None,
    sent: lab_time.LabTime | None,
) -> Fault | None:
    """Times in the wrong order: by the day, as the clocks of a lab's systems differ, but for the sample's own two.

    The time of the test orders versions: one far ahead would freeze every later word.
    """
    if _is_after(collected, received) or (collected_from and received and collected_from > received.on):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The sample was received before it was collected.")
    told = sent or authorised
    if told and any(earlier > told.on for earlier in (collected_from, received and received.on) if earlier):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The sample was collected or received after the result was sent.")
    if sent and any(word.on > sent.on for word in (tested, authorised) if word):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The result was tested or authorised after it was sent.")
    if received and any(word.on < received.on for word in (tested, authorised) if word):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The result was tested or authorised before the sample was received.")
    if collected_from and any(word.on < collected_from for word in (tested, authorised) if word):
        return Fault(Quarantine.DATE_IMPLAUSIBLE, "The result was tested or authorised before the sample was taken.")
    return None


def _too_old(lab: LabMap, site: Site | None, times: RowTimes) -> Fault | None:
    """What the assay's limit for this sample says; without a time of receipt, the time of the test stands for it."""
    limit = lab.max_sample_age_days.get(site) if site else None
    arrived = times.received or times.tested or times.authorised
    if limit is None or times.collected_from is None or arrived is None:
        return None
    if (arrived.on - times.collected_from).days <= limit:
        return None
    was = "was" if times.collected else "may have been"
    return Fault(Quarantine.TOO_OLD, f"The sample {was} older than {limit} days when it was received.")


# ── Comments ─────────────────────────────────────────────────────────────────────────────────


def _is_reviewed(lab: LabMap, note: str) -> bool:
    """Whether a note is blank or on the reviewed list, as a whole or line by line."""
    if note.strip() in {"", '""'} or fold_token(note) in lab.boiler_plate:
        return True
    return all(fold_token(line) in lab.boiler_plate for line in note.split("\n") if line.strip())


def _comment(lab: LabMap, notes: tuple[str, ...]) -> tuple[bool, bool, str]:
    """(held for review, urgent, text). Each note, or all of them as one text, must be on the reviewed list."""
    comment = "\n".join(note for note in notes if note.strip() and note.strip() != '""')
    if not comment:
        return False, False, ""
    folded = fold_token(comment)
    held = folded not in lab.boiler_plate and not all(_is_reviewed(lab, note) for note in notes)
    return held, held and any(word in folded for word in lab.urgent_words), comment


# ── The message ──────────────────────────────────────────────────────────────────────────────

_PARTIAL: Final = frozenset(code for code, state in HL7_ORDER.items() if state is RowState.PARTIAL)


def _open_orders(lab: LabMap, message: LabMessage) -> frozenset[int]:
    """The orders of an HL7 message with a row that is not final: they may be called partial."""
    if message.form is not Form.HL7 or not any(row.report_status_raw in _PARTIAL for row in message.rows):
        return frozenset()
    return frozenset(
        row.order_no
        for row in message.rows
        if row.value_type != ORDER_ONLY
        and states_of(lab, message.form, row.row_status_raw, row.report_status_raw)[0] is RowState.PENDING
    )


_MOST_PARENTS: Final = 20
"""Orders that one result may answer: more are no panel's heads."""


class _Answer(NamedTuple):
    """What a result answers for the order that it names as its parent."""

    test: Test
    site: Site
    tubes: frozenset[str]


def _heads(lab: LabMap, message: LabMessage) -> frozenset[str]:
    """Keys of the orders without results that are mere heads of a panel: results name them as their parent.

    A head that says anything of its own (a note, a reason to reject, another person, kit or tube), asks for one test
    alone, or for one that none of those results answers at its site, is no mere head: it waits, or is for a person.
    """
    orders = [row for row in message.rows if row.value_type == ORDER_ONLY]
    numbers = frozenset(head.accession for head in orders)
    answers: dict[object, set[_Answer]] = defaultdict(set)
    for row in message.rows if orders else ():
        parents = numbers & numbers_in(row.parent_ref) if row.parent_ref else ()
        if not 0 < len(parents) <= _MOST_PARENTS or row.value_type in {ORDER_ONLY, ASIDE} or row.fault:
            continue
        entry, (kits, tubes) = test_of(lab, row.test_codes), _ids_of(row)
        site = None if isinstance(entry, Fault | DetailCode) else site_of(lab, row.sites_raw, entry.sites)
        if isinstance(site, Site):
            told = {_Answer(test, site, tubes) for test in _tests_of(lab, row)}
            for number in parents:
                answers[number, kits, row.dob, row.family_name] |= told
    return frozenset(head.row_key for head in orders if _is_answered(lab, head, answers))


def _ids_of(row: LabRow) -> tuple[frozenset[str], frozenset[str]]:
    """(kits, tubes) that a row names itself; what is misspelt stands among the kits as it is."""
    codes = [_read_id(text) or text for text in row.kit_refs + row.tube_refs]
    return frozenset(code[:_KIT_LENGTH] for code in codes), frozenset(c for c in codes if len(c) > _KIT_LENGTH)


def _tests_of(lab: LabMap, row: LabRow) -> frozenset[Test]:
    """The infections that a row's code is about; none for an index, or a code that is not known."""
    entry = test_of(lab, row.test_codes)
    if isinstance(entry, SingleCode):
        return frozenset({entry.test})
    return entry.tests if isinstance(entry, CombinedCode) else frozenset()


def _is_answered(lab: LabMap, head: LabRow, answers: Mapping[object, set[_Answer]]) -> bool:
    is_single = isinstance(test_of(lab, head.test_codes), SingleCode)  # of one test it is the result that is missing
    if is_single or not head.accession or head.fault or head.notes or head.order_notes or head.reject_raw:
        return False
    kits, tubes = _ids_of(head)
    answered = {
        answer.test
        for answer in answers.get((head.accession, kits, head.dob, head.family_name), ())
        if (not tubes or not answer.tubes or tubes & answer.tubes)
        and site_of(lab, head.sites_raw, frozenset({answer.site})) is answer.site
    }
    return bool(answered) and _tests_of(lab, head) <= answered


_NO_RESULT: Final = Meaning(None, None, None, None, None, is_risky=False, is_detail=True)
_DOCUMENT: Final = _NO_RESULT._replace(is_risky=True)


def _row_meaning(
    lab: LabMap, message: LabMessage, row: LabRow, open_orders: frozenset[int], heads: frozenset[str]
) -> Meaning:
    status = row.row_status_raw
    if row.value_type == ASIDE:
        return _NO_RESULT
    if _is_document(lab, row):
        return _DOCUMENT
    if row.value_type == ORDER_ONLY:
        order = states_of(lab, message.form, "", row.report_status_raw)[1]
        if order is RowState.FINAL and row.row_key in heads:
            return _NO_RESULT
        if order in {RowState.PENDING, RowState.PARTIAL}:
            if isinstance(test_of(lab, row.test_codes), Fault):
                return _NO_RESULT
            status = "I" if message.form is Form.HL7 else "registered"
        else:
            status = row.report_status_raw
    notes = row.notes + row.order_notes + row.reject_raw if row.notes or row.order_notes or row.reject_raw else ()
    return meaning_of(
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


def _is_document(lab: LabMap, row: LabRow) -> bool:
    """Whether a row is a document (OBX-2 ED or RP) under a code that is none of a test: stored, never read."""
    if row.value_type not in {"ED", "RP"} or row.row_status_raw != "F":
        return False
    entry = test_of(lab, row.test_codes)
    return isinstance(entry, Fault) and entry.reason is Quarantine.UNKNOWN_TEST


def interpret(message: LabMessage, lab: LabMap) -> list[Reading]:
    """What every row of a message means: one answer a row (several only where the map splits a combined value).

    Pure. Never raises on any content of a row; never gives an outcome that the lab map does not hold.
    """
    readings: list[Reading] = []
    beside = Beside([], [], set())
    open_orders, heads = _open_orders(lab, message), _heads(lab, message)
    message_fault = message.fault or _not_live(message)
    # Kept for the next row and no longer: rows of one order share them, and no name stays in memory.
    person_key: tuple[object, ...] | None = None
    identity_key: tuple[object, ...] | None = None
    person = _Person(None, None)
    identity = _Identity(None, None, None, None, None)
    for row in message.rows:
        if (row.dob, row.family_name) != person_key:
            person_key = (row.dob, row.family_name)
            person, identity_key = _person(lab, message.form, row), None
        if (row.kit_refs, row.tube_refs, row.has_person) != identity_key:
            identity_key = (row.kit_refs, row.tube_refs, row.has_person)
            identity = _identity(lab, row, person)
        meaning = _row_meaning(lab, message, row, open_orders, heads)
        times = times_of(message, row, lab)
        fault = message_fault or row.fault
        if not meaning.is_detail:
            fault = fault or identity.fault or meaning.fault or times.fault or _too_old(lab, meaning.site, times)
            if row.revision_raw and _revision(row.revision_raw) is None:
                fault = fault or Fault(Quarantine.MALFORMED, "The revision is not a whole number.")
            if row.value_type == ORDER_ONLY and meaning.parts:
                beside.panels.add(row.row_key)
        elif _speaks(meaning):
            fault = fault or identity.fault or (meaning.fault if meaning.status is None else None)
            if fault is None:
                kept = _quarantine(message, row, identity, meaning, times, _UNHEARD)
                beside.supports.append(_support(lab, row, identity, meaning, times, kept, at=len(readings)))
            else:
                beside.strays.append(Stray(frozenset(identity.named), identity.dob))
        if fault is not None:
            readings.append(_quarantine(message, row, identity, meaning, times, fault))
        elif meaning.is_detail:
            readings.append(Detail(row.position, row.row_key))
        else:
            readings += _findings(lab, message, row, identity, meaning, times)
    hear(lab, message.form, readings, beside)
    return readings


def _speaks(meaning: Meaning) -> bool:
    """Whether a row that is no result says something of one: an index, or a document."""
    return meaning.test is not None or meaning is _DOCUMENT


def _findings(
    lab: LabMap, message: LabMessage, row: LabRow, identity: _Identity, meaning: Meaning, times: RowTimes
) -> list[Reading]:
    """The findings of a row without a fault: one, or one for each part of a combined value."""
    assert meaning.site is not None, "a meaning without a fault has a site"
    assert meaning.status is not None, "a meaning without a fault has a status"
    assert identity.kit_code is not None, "an identity without a fault has a kit"
    assert identity.dob is not None, "an identity without a fault has a date of birth"
    review, urgent, comment = False, False, ""
    if row.notes or row.order_notes or row.person_notes:
        review, urgent, comment = _comment(lab, row.notes + row.order_notes + row.person_notes)
    if meaning.needs_review or _says_more(lab, row.reject_raw, meaning.status):
        review = True
    collected, _, received, authorised, tested, _ = times
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


def _says_more(lab: LabMap, rejected: tuple[str, ...], status: ReportStatus | None) -> bool:
    """Whether reasons to reject a specimen say more than that its test failed."""
    if not rejected:
        return False
    known = lab.cancel_reasons.keys() | SPOILT
    return status is not ReportStatus.CANCELLED or any(fold_token(word) not in known for word in rejected)


_LONGEST_REVISION: Final = 18
"""Digits: what a bigint holds, such as a time of change without marks."""


def _revision(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_REVISION else None


_UNHEARD: Final = Fault(Quarantine.CONFLICTING_VALUES, "")
"""In the place of why an index or a document is kept, if it is."""


def _support(
    lab: LabMap, row: LabRow, identity: _Identity, meaning: Meaning, times: RowTimes, kept: Quarantined, *, at: int
) -> Support:
    """An index or a document, with what a person must read about it."""
    review, urgent, comment = _comment(lab, row.notes + row.order_notes + row.person_notes)
    review = review or _says_more(lab, row.reject_raw, meaning.status)
    stamp = times.tested or times.authorised
    assert identity.dob is not None, "an identity without a fault has a date of birth"
    return Support(
        at,
        kept,
        identity.dob,
        identity.family_name,
        meaning,
        (stamp.at if stamp else None, _revision(row.revision_raw)),
        "\n".join(filter(None, [comment, *row.reject_raw])) if review else "",
        urgent,
    )


def _not_live(message: LabMessage) -> Fault | None:
    if message.form is Form.HL7 and message.processing_id.split("^", 1)[0].strip() != "P":
        return Fault(Quarantine.TEST_MESSAGE, "The message is not marked as live (MSH-11 is not P).")
    if message.form is Form.FHIR and message.processing_id:
        return Fault(Quarantine.TEST_MESSAGE, "The message is marked as test data.")
    return None


def _quarantine(
    message: LabMessage, row: LabRow, identity: _Identity, meaning: Meaning, times: RowTimes, fault: Fault
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
        identity.named,
    )
