"""What a laboratory sends, as text, and how one laboratory is to be understood, as data.

A reader turns bytes into `LabMessage`s of `LabRow`s without clinical meaning; models/rules/result.py
gives them meaning with the lab's `LabMap`. Both are closed: what is not in the map is quarantined.
`LabRow` is a NamedTuple and not a dataclass because a million of them are built in one file, and a
tuple is built eight times faster. Source of every field: lab-messages.md sections 1 and 2.2.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules.vocabulary import (
    BLOOD_TESTS,
    IDENTITY_FAILURES,
    REACTIONS,
    SAMPLE_FAILURES,
    Outcome,
    Quarantine,
    Site,
    Test,
)


class Form(StrEnum):
    """The shape of a lab's file."""

    HL7 = "hl7"
    FHIR = "fhir"
    CSV = "csv"


class Coded(NamedTuple):
    """A code as sent. All three as they stand in the message, unescaped; any may be ''."""

    system: str
    code: str
    text: str


class Fault(NamedTuple):
    """Something that kept a file, message or row from being read. `detail` is a sentence without personal data."""

    reason: Quarantine
    detail: str


ORDER_ONLY: Final = "ORDER"
"""`value_type` of the row that a reader yields for an order without results."""

ASIDE: Final = "ASIDE"
"""`value_type` of a row that is no result by its place: the head of a group, an answer to a question at order."""

ABSENT: Final = "ABSENT"
"""`value_type` of a row whose value is a reason for having none."""


SPOILT: Final = frozenset({"unsatisfactory", "unavailable"})
"""What FHIR says of a specimen that bears no result, and so of that of every failed test."""

ATTACHED: Final = "The report has an attachment, which is not read."
"""A comment beside every result of a report with a document."""


class LabRow(NamedTuple):
    """One reported result, everything still text; '' where nothing was sent.

    `position` is the line in the file (FHIR: the resource's number), `row_key` is unique in the file.
    `kit_refs` and `tube_refs` hold every id the row states; all must agree. `value_raw` has all
    repetitions; `value_codes` has, for each repetition, its codings, or nothing for plain text.
    `order_no` tells apart the orders (OBR, DiagnosticReport) of one message; 0 is outside any order.
    """

    position: int
    row_key: str
    test_codes: tuple[Coded, ...]
    sub_id: str
    value_type: str
    value_raw: tuple[str, ...]
    value_codes: tuple[tuple[Coded, ...], ...]
    units: str
    flags_raw: tuple[str, ...]
    row_status_raw: str
    tested_raw: str
    sampled_raw: str
    notes: tuple[str, ...]
    fault: Fault | None
    order_no: int
    accession: str
    panel_codes: tuple[Coded, ...]
    kit_refs: tuple[str, ...]
    tube_refs: tuple[str, ...]
    sites_raw: tuple[Coded, ...]
    report_status_raw: str
    collected_raw: str
    received_raw: str
    authorised_raw: str
    order_notes: tuple[str, ...]
    parent_ref: str
    reject_raw: tuple[str, ...]
    revision_raw: str
    has_person: bool
    family_name: str
    dob: str
    nhs_number: str
    person_notes: tuple[str, ...]


class Answer(NamedTuple):
    """What a lab says of one request of ours: MSA-1, and in MSA-2 the control id that we gave it."""

    code: str
    about: str

    @property
    def is_yes(self) -> bool:
        """Whether the lab took the request."""
        return self.code in {"AA", "CA"}

    @property
    def is_no(self) -> bool:
        """Whether the lab refused it, or could not take it."""
        return self.code in {"AE", "CE", "AR", "CR"}


class LabMessage(NamedTuple):
    """One message of one lab. `content_sha256` is over the bytes with line ends made equal.

    `number` counts messages in the file from 0 and is what `skip_messages` skips; `position` is the
    line of the message's first segment or row. A `fault` holds every row of it. One with an `answer` has
    one row that is no result.
    """

    lab: str
    form: Form
    message_id: str
    content_sha256: bytes
    number: int
    position: int
    sent_raw: str
    processing_id: str
    rows: tuple[LabRow, ...]
    fault: Fault | None
    warnings: tuple[str, ...]
    answer: Answer | None = None


class Unread(StrEnum):
    """Why an object lies in the store and is not read."""

    UNDER_WAY = "under_way"
    """Its name says that it is still being written."""
    NOT_WHOLE = "not_whole"
    """No control file or marker of its own came."""
    ALONE = "alone"
    """A control file or marker without its file."""
    MISPLACED = "misplaced"
    """It lies where nobody puts or reads anything: a misspelt folder, say."""
    NOT_TAKEN = "not_taken"
    """It is whole, and every run failed to note it."""


_TABLE_ENDINGS: Final = (".csv", ".tsv")
_UNDER_WAY_ENDINGS: Final = (".part", ".partial", ".filepart", ".tmp")


def is_under_way(name: str) -> bool:
    """Whether a file's name says that it is still being written: it gets its own name once it is whole."""
    return name.startswith(".") or name.casefold().endswith(_UNDER_WAY_ENDINGS)


COMPANIONS: Final = (".ctl", ".done")
"""Endings of files that stand beside a file and say that it is whole."""


def is_companion(name: str) -> bool:
    """Whether a file only speaks of the one beside it."""
    return as_agreed(name).endswith(COMPANIONS)


def as_agreed(name: str) -> str:
    """A name with a companion's ending spelt as it was agreed: a system that writes R.CSV writes R.CSV.CTL too."""
    for ending in COMPANIONS:
        if name[-len(ending) :].lower() == ending:
            return name[: -len(ending)] + ending
    return name


# ── How one lab is understood ────────────────────────────────────────────────────────────────


class Envelope(StrEnum):
    """Whether a file must prove its own completeness."""

    REQUIRED = "required"
    """HL7: several messages need FHS/BHS and BTS/FTS counts; one terminated message stands alone."""
    OPTIONAL = "optional"
    """HL7: messages may follow each other without an envelope; completeness is then unproven."""


class RowState(StrEnum):
    """What a status code of a row or of its order means (lab-messages.md 2.3, 3.2)."""

    FINAL = "final"
    PENDING = "pending"
    PARTIAL = "partial"
    """Of an order only: some of it is not final."""
    CORRECTED = "corrected"
    APPENDED = "appended"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"
    NOT_ASKED = "not_asked"
    REVIEW = "review"


LOCAL: Final = "local"
"""The lab's own code system; also a blank one."""
LOINC: Final = "loinc"
SNOMED: Final = "snomed"

PLAIN: Final = ""
"""The 'system' of plain words in `LabMap.outcomes`."""


class SingleCode(NamedTuple):
    """What a lab's test code stands for. With one site only, a missing specimen means that site."""

    test: Test
    sites: frozenset[Site]


class CombinedCode(NamedTuple):
    """A lab's test code that covers several infections in one value."""

    tests: frozenset[Test]
    sites: frozenset[Site]


class DetailCode(NamedTuple):
    """A row that only supports another: never a result of its own. `is_index`: a cut-off index of its test."""

    test: Test
    is_index: bool


class IndexBands(NamedTuple):
    """How an assay's cut-off index (a ratio, no unit) reads: negative below the first, reactive from the second.

    Between them it is low reactive. An index must agree with the word that it stands beside. The
    numbers are the assay's, so they are the lab map's (lab-messages.md 2.4; clinical.md 3.3).
    """

    low_reactive_from: float
    reactive_from: float


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """One lab's table. `columns` is the exact header; the other fields name columns of it, or are ''.

    With `result_columns` the table is wide: one row a kit and one column a result, the column's name
    being the test code. Formats are strptime's, or 'iso8601' (an offset is then required).
    """

    columns: tuple[str, ...]
    delimiter: str
    dob_format: str
    date_format: str
    time_format: str
    received_format: str = ""
    """Of the time of receipt, where it is not written as the other times are."""
    kit: str = ""
    tube: str = ""
    accession: str = ""
    family_name: str = ""
    dob: str = ""
    collected: str = ""
    received: str = ""
    authorised: str = ""
    test: str = ""
    specimen: str = ""
    result_code: str = ""
    result: str = ""
    status: str = ""
    revision: str = ""
    comment: str = ""
    result_columns: tuple[str, ...] = ()
    statuses: Mapping[str, RowState] = field(default_factory=dict)
    head_record: str = ""
    """First cell of a line before the header whose last cell counts the rows; '' for none."""
    tail_record: str = ""
    """First cell of the last line, whose last cell counts the rows; '' for none."""
    control_file: bool = False
    """The lab writes NAME.ctl with rows= and sha256=, last."""
    done_marker: bool = False
    """The lab writes NAME.done, empty, last."""


@dataclass(frozen=True, slots=True, eq=False)
class LabMap:
    """All that is agreed with one lab. Keys of the mappings are folded by `fold_token`.

    Raises ValueError with one sentence for a map that could make a dangerous result: a blood screen
    that is `positive`, a swab that is `reactive`, a cancellation that is a finding.
    """

    lab: str
    version: str
    forms: frozenset[Form]
    senders: frozenset[tuple[str, str]]
    """(MSH-3, MSH-4), folded."""
    fhir_systems: tuple[str, ...]
    """What the lab's identifier and code systems begin with."""
    code_systems: Mapping[str, str]
    """How the lab spells a system -> LOCAL, LOINC, SNOMED."""
    tests: Mapping[tuple[str, str], SingleCode]
    combined: Mapping[tuple[str, str], CombinedCode]
    details: Mapping[tuple[str, str], DetailCode]
    specimens: Mapping[tuple[str, str], Site]
    """(system, code) -> site; (PLAIN, words) -> site."""
    unspecified: frozenset[str]
    """Specimen words that say nothing of the site."""
    outcomes: Mapping[Test, Mapping[tuple[str, str], Outcome]]
    """(system, code) or (PLAIN, words) -> outcome."""
    displays: Mapping[tuple[str, str], frozenset[str]]
    """Words that may stand beside a code without changing it."""
    combined_outcomes: Mapping[str, Mapping[Test, Outcome]]
    """Whole values that tell of several infections."""
    cancel_reasons: Mapping[str, Outcome]
    boiler_plate: frozenset[str]
    """Comments that a clinician has read and found to change nothing (ruling 8)."""
    urgent_words: frozenset[str]
    """Words in a comment that raise urgency; they decide nothing else (ruling 8)."""
    envelope: Envelope
    encoding: str
    fallback_encoding: str
    zone: str
    tube_required: bool
    """Refuse a row without a tube id at reading. A contract may ask for it besides (ruling 9)."""
    kit_id_types: frozenset[str]
    """PID-3.5 of a kit id."""
    kit_id_authorities: frozenset[str]
    """PID-3.4 of a kit id that has no type."""
    kit_systems: tuple[str, ...]
    """FHIR identifier systems of kit and tube ids."""
    obx14_is_sampling_time: bool
    """True: OBX-14 is when the sample was taken. False: when it was tested (common in v2.3 and 2.4)."""
    reflex_suffixes: tuple[str, ...]
    index_bands: Mapping[Test, IndexBands]
    """The cut-off index of each test that is reported with one."""
    max_sample_age_days: Mapping[Site, int]
    """How old a sample may be on receipt, where the assay has a limit: swabs and blood differ."""
    max_quarantined_percent: int
    """A file of which more than this share can't be used is held as a whole (lab-messages.md 7)."""
    csv: CsvDialect | None

    def __post_init__(self) -> None:
        for test, words in self.outcomes.items():
            for (system, code), outcome in words.items():
                _check_target(test, outcome, f"{system or 'word'} {code!r}")
        for token, parts in self.combined_outcomes.items():
            for test, outcome in parts.items():
                _check_target(test, outcome, f"combined value {token!r}")
        for token, outcome in self.cancel_reasons.items():
            if outcome not in SAMPLE_FAILURES | IDENTITY_FAILURES:
                raise ValueError(f"cancel reason {token!r}: {outcome} is a finding; a cancelled row has none")
        codes: list[tuple[str, frozenset[Site]]] = [(code, entry.sites) for (_, code), entry in self.tests.items()]
        codes += [(code, entry.sites) for (_, code), entry in self.combined.items()]
        for code, sites in codes:
            if not sites:
                raise ValueError(f"test code {code!r}: name the sites it may come from")
        for test in {entry.test for entry in self.details.values() if entry.is_index} - self.index_bands.keys():
            raise ValueError(f"index_bands.{test}: a cut-off index is reported, and nothing says how to read it")
        for test, bands in self.index_bands.items():
            if test not in BLOOD_TESTS or not 0 < bands.low_reactive_from <= bands.reactive_from:
                raise ValueError(f"index_bands.{test}: an index is a blood screen's, and low reactive begins first")

    def companion_of(self, name: str) -> str:
        """The ending of what the lab writes last beside a file to say that it is whole; '' where it writes nothing.

        Until it is there the file may be half there. A lab that sends tables only sends nothing else, whatever
        the name; of one that sends other forms too, tables are known by .csv and .tsv.
        """
        if self.csv is None or not (self.forms == {Form.CSV} or name.casefold().endswith(_TABLE_ENDINGS)):
            return ""
        if self.csv.control_file:
            return ".ctl"
        return ".done" if self.csv.done_marker else ""

    def system(self, spelled: str) -> str | None:
        """Which code system the lab means, or None for one that is not agreed."""
        return self.code_systems.get(fold_token(spelled))


def _check_target(test: Test, outcome: Outcome, where: str) -> None:
    """A result word must be one that this kind of test can have."""
    if test in BLOOD_TESTS and outcome is Outcome.POSITIVE:
        raise ValueError(f"{where}: a blood screen of {test} can be reactive, never positive (law 5)")
    if test not in BLOOD_TESTS and outcome in REACTIONS:
        raise ValueError(f"{where}: {test} is a swab test; it is positive, not {outcome}")
    if outcome in {Outcome.PENDING, Outcome.WITHDRAWN}:
        raise ValueError(f"{where}: {outcome} comes from a status, never from a result word")


@lru_cache(maxsize=16_384)
def fold_token(text: str) -> str:
    """A word as compared: NFC, lower case, no space around, one space inside. Nothing else is forgiven."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
