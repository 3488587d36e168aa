"""Reads the labs' maps: one TOML file a lab, every key typed, unknown keys refused, nothing defaulted to a result.

A new lab is a new file in app/service/labs/ and no code. The file's hash is the map's version, which
every stored row cites.
"""

import hashlib
import re
import tomllib
from codecs import lookup
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar, get_args
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models.rules import lab_time
from models.rules.errors import Code, ServiceError
from models.rules.lab import (
    LOCAL,
    LOINC,
    PLAIN,
    SNOMED,
    CombinedCode,
    CsvDialect,
    DetailCode,
    Envelope,
    Form,
    IndexBands,
    LabMap,
    RowState,
    SingleCode,
    fold_token,
)
from models.rules.vocabulary import BLOOD_TESTS, SWAB_TESTS, Outcome, Site, Test

K = TypeVar("K")
V = TypeVar("V")

FOLDER: Final = Path(__file__).parent / "labs"

_Failed = Literal[
    "insufficient",
    "inhibitory",
    "haemolysed",
    "leaked",
    "damaged",
    "unlabelled",
    "id_mismatch",
    "no_sample",
    "too_old",
    "expired_device",
    "wrong_container",
]
_SwabOutcome = Literal["negative", "positive", "equivocal", "not_requested"] | _Failed
_BloodOutcome = Literal["negative", "reactive", "low_reactive", "equivocal", "not_requested"] | _Failed
"""There is no 'positive' here: the file can't be written so that a blood screen is positive (law 5)."""

_System = Literal["local", "loinc", "snomed"]


_ENCODINGS: Final = ("utf-8", "cp1252", "iso8859-15", "ascii")


def _known_encoding(name: str) -> str:
    try:
        found = lookup(name).name.removesuffix("-sig") if name else ""
    except LookupError:
        found = name
    if found and found not in _ENCODINGS:
        raise ValueError(f"{name!r} is none of {', '.join(_ENCODINGS)} (what calls itself Latin-1 is cp1252)")
    return found


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank: leave it out, or say what it is")
    return text


_Said = Annotated[str, AfterValidator(_not_blank)]


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone")
    return name


class _Strict(BaseModel):
    """Keys of a map. What stands beneath each is what docs/lab-integration.md says of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Sender(_Strict):
    application: _Said
    """MSH-3"""
    facility: str
    """MSH-4"""


class _Test(_Strict):
    code: str
    """your own code"""
    loinc: tuple[str, ...] = ()
    """LOINC codes that say the same"""
    test: Test
    """the infection, in our words"""
    sites: tuple[Site, ...]
    """where the sample may come from; with one site only, a missing specimen means that site"""


class _Combined(_Strict):
    code: str
    """your own code"""
    loinc: tuple[str, ...] = ()
    """LOINC codes that say the same"""
    tests: tuple[Test, ...]
    """the infections that one value speaks of"""
    sites: tuple[Site, ...]
    """where the sample may come from"""


class _Detail(_Strict):
    code: str
    """your own code"""
    test: Test
    """the test that it belongs to"""
    is_index: bool
    """whether the number is a cut-off index, which `index_bands` then reads"""


class _Specimen(_Strict):
    site: Site
    """the site, in our words"""
    codes: tuple[str, ...] = ()
    """your own codes"""
    snomed: tuple[str, ...] = ()
    """SNOMED CT codes"""
    words: tuple[str, ...] = ()
    """texts, whole"""


class _Words(_Strict):
    naat: Mapping[str, _SwabOutcome] = {}
    """of swabs and urine: your word = our outcome; `""` is a blank cell, which means nothing unless agreed"""
    blood: Mapping[str, _BloodOutcome] = {}
    """of blood screens: your word = our outcome, of which `positive` is none"""


class _ResultCode(_Strict):
    system: _System
    """`local`, `loinc` or `snomed`"""
    code: str
    """the code of a result"""
    words: tuple[str, ...]
    """texts that may stand beside it; any other must be one of `words` and say the same"""
    naat: _SwabOutcome | None = None
    """what it means of a swab or urine; left out: it means nothing there"""
    blood: _BloodOutcome | None = None
    """what it means of a blood screen"""


class _Bands(_Strict):
    low_reactive_from: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """the least index that is low reactive; below it is negative"""
    reactive_from: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """the least index that is reactive"""


class _Comments(_Strict):
    boiler_plate: tuple[str, ...]
    """whole comments that a clinician has read and found to change nothing; any other holds the result"""
    urgent_words: tuple[str, ...]
    """words that make a held comment urgent, and decide nothing else"""


class _Csv(_Strict):
    columns: tuple[str, ...]
    """the header: every name, in any order"""
    delimiter: Literal[",", ";", "\t", "|"]
    """what stands between cells"""
    dob_format: str
    """form of the date of birth, as Python's strptime has it (`%d/%m/%Y`)"""
    date_format: str
    """form of the collection date, or `iso8601`, which needs an offset"""
    time_format: str
    """form of the other times, or `iso8601`"""
    received_format: str = ""
    """form of the time of receipt, where it is another one"""
    kit: str = ""
    """column of the kit id; without it, `tube` is needed"""
    tube: str = ""
    """column of the tube id"""
    accession: str = ""
    """column of your accession number"""
    family_name: str = ""
    """column of the surname, which can contradict and never confirms"""
    dob: str
    """column of the date of birth"""
    collected: str = ""
    """column of when the sample was taken"""
    received: str = ""
    """column of when it came to you"""
    authorised: str
    """column of when the result was authorised, which orders its versions"""
    test: str = ""
    """column of the test code, in a table of one result a row"""
    specimen: str = ""
    """column of the specimen"""
    result_code: str = ""
    """column of the result's code, if there is one; code and text must then both be given"""
    result: str = ""
    """column of the result"""
    status: str = ""
    """column of the status; without it every row is final"""
    revision: str = ""
    """column of the revision, a whole number"""
    comment: str = ""
    """column of comments"""
    ignored: tuple[str, ...] = ()
    """columns that are never read, said so because nothing in them changes a result"""
    result_columns: tuple[str, ...] = ()
    """columns of results and indexes in a table of one kit a row, by their codes in `tests`, `combined`, `details`"""
    statuses: Mapping[str, RowState] = {}
    """your status = `final`, `pending`, `corrected`, `appended`, `cancelled`, `withdrawn`, `not_asked` or `review`"""
    head_record: str = ""
    """first cell of a line before the header, whose last cell counts the rows"""
    tail_record: str = ""
    """first cell of the last line, whose last cell counts the rows"""
    control_file: bool = False
    """you write `NAME.ctl` with `rows=` and `sha256=`, last"""
    done_marker: bool = False
    """you write `NAME.done`, empty, last"""


class _File(_Strict):
    lab: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_-]{1,39}$")]
    """your name with us: capitals, digits, `_` and `-`"""
    reviewed_by: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """which clinician read the words, specimens and comments; nobody yet: the map is not used"""
    forms: tuple[Form, ...]
    """what you send: `hl7`, `fhir`, `csv`"""
    senders: tuple[_Sender, ...] = ()
    """HL7: who a message says it is from"""
    fhir_systems: tuple[str, ...] = ()
    """FHIR: what your own identifier and code systems begin with"""
    code_systems: Mapping[_System, tuple[str, ...]]
    """how you spell a code system, under `local`, `loinc` and `snomed`; any other is unknown"""
    tests: tuple[_Test, ...]
    """each test code"""
    combined: tuple[_Combined, ...] = ()
    """test codes of one value for several infections"""
    details: tuple[_Detail, ...] = ()
    """codes of rows that only support another, and are no result"""
    specimens: tuple[_Specimen, ...] = ()
    """each specimen"""
    unspecified: tuple[str, ...] = ("Unspecified", "Not specified", "Unknown", "UNSP", "Swab")
    """specimen words that say nothing of the site"""
    words: _Words = _Words()
    """results in words"""
    codes: tuple[_ResultCode, ...] = ()
    """results in codes"""
    combined_words: Mapping[str, Mapping[Test, Outcome]] = {}
    """whole values of `combined` tests: your word = { infection = outcome, … }; nothing else splits them"""
    cancel_reasons: Mapping[str, _Failed] = {}
    """why a cancelled test failed: your word or code = our outcome"""
    comments: _Comments
    """what may stand beside a result"""
    envelope: Envelope = Envelope.REQUIRED
    """HL7: whether several messages in a file must be counted by FHS/BHS and BTS/FTS: `required`, `optional`"""
    encoding: Annotated[str, AfterValidator(_known_encoding)]
    """of tables, and of HL7 without MSH-18: `utf-8`, `cp1252`, `iso8859-15` or `ascii`"""
    fallback_encoding: Annotated[str, AfterValidator(_known_encoding)] = ""
    """what is read where the bytes are not that; flagged each time"""
    zone: Annotated[str, AfterValidator(_known_zone)]
    """time zone of times without an offset"""
    tube_required: bool = False
    """a row without a tube id is held; the contract may ask for it besides"""
    kit_id_types: tuple[str, ...] = ()
    """HL7: PID-3.5 of a kit id"""
    kit_id_authorities: tuple[str, ...] = ()
    """HL7: PID-3.4 of a kit id that has no type"""
    kit_systems: tuple[str, ...] = ()
    """FHIR: identifier systems of kit and tube ids"""
    obx14_is_sampling_time: bool = False
    """HL7: whether OBX-14 is when the sample was taken; else it is when it was tested"""
    reflex_suffixes: tuple[str, ...] = ()
    """what the accession of a reflex test adds to that of the report it follows"""
    index_bands: Mapping[Test, _Bands] = {}
    """how a cut-off index reads, by the assay's instructions, under the test"""
    max_sample_age_days: Mapping[Site, Annotated[int, Field(gt=0)]] = {}
    """how old a sample may be on receipt, by site, by the assay's instructions"""
    max_quarantined_percent: Annotated[int, Field(ge=0, le=100)] = 20
    """a file of which more than this share can't be used is held as a whole"""
    csv: _Csv | None = None
    """your table"""


def map_keys() -> str:
    """Every key of a map as a Markdown table, for docs/lab-integration.md (a test keeps that page current)."""
    return "\n".join(["| key | needed | what it is |", "|---|---|---|", *_key_rows(_File)])


def _key_rows(keys: type[_Strict], under: str = "") -> Iterator[str]:
    for name, field in keys.model_fields.items():
        default = "" if field.is_required() else field.default
        shown = ", ".join(default) if isinstance(default, tuple) else default
        needed = "yes" if field.is_required() else f"no: `{shown}`" if isinstance(shown, str | int) and shown else "no"
        yield f"| `{under}{name}` | {needed} | {field.description} |"
        for inner in _keys_within(field.annotation):
            yield from _key_rows(inner, f"{under}{name}.")


def _keys_within(annotation: object) -> Iterator[type[_Strict]]:
    if isinstance(annotation, type) and issubclass(annotation, _Strict):
        yield annotation
    for part in get_args(annotation):
        yield from _keys_within(part)


def load_lab_maps(folder: Path = FOLDER) -> Mapping[str, LabMap]:
    """Every lab's map by its name. Raises ServiceError(SETTINGS) naming file and key."""
    maps: dict[str, LabMap] = {}
    for path in sorted(folder.glob("*.toml")):
        lab = load_lab_map(path)
        if lab.lab in maps:
            raise ServiceError(Code.SETTINGS, f"{path.name}: lab {lab.lab} already has another file")
        maps[lab.lab] = lab
    if not maps:
        raise ServiceError(Code.SETTINGS, f"{folder.name}: no lab map (*.toml) is there")
    return maps


def load_lab_map(path: Path) -> LabMap:
    """One lab's map. Raises ServiceError(SETTINGS) with one sentence that names the file and the key."""
    content = path.read_bytes()
    try:
        written = _File.model_validate(tomllib.loads(content.decode()))
        lab = _lab_map(written, hashlib.sha256(content).hexdigest()[:16])
        _check(written)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ServiceError(Code.SETTINGS, f"{path.name}: {key}: {first['msg']}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ServiceError(Code.SETTINGS, f"{path.name}: {error}") from error
    return lab


def _lab_map(written: _File, version: str) -> LabMap:
    return LabMap(
        lab=written.lab,
        version=version,
        forms=frozenset(written.forms),
        senders=frozenset((fold_token(s.application), fold_token(s.facility)) for s in written.senders),
        fhir_systems=written.fhir_systems,
        code_systems=_unique((fold_token(s), name) for name, spelled in written.code_systems.items() for s in spelled),
        tests=_unique(
            ((system, fold_token(code)), SingleCode(entry.test, frozenset(entry.sites)))
            for entry in written.tests
            for system, code in _codes(entry.code, entry.loinc)
        ),
        combined=_unique(
            ((system, fold_token(code)), CombinedCode(frozenset(entry.tests), frozenset(entry.sites)))
            for entry in written.combined
            for system, code in _codes(entry.code, entry.loinc)
        ),
        details=_unique(((LOCAL, fold_token(d.code)), DetailCode(d.test, d.is_index)) for d in written.details),
        specimens=_unique(
            ((system, fold_token(word)), entry.site)
            for entry in written.specimens
            for system, words in ((LOCAL, entry.codes), (SNOMED, entry.snomed), (PLAIN, entry.words))
            for word in words
        ),
        unspecified=frozenset(map(fold_token, written.unspecified)),
        outcomes=_outcomes(written),
        displays={(c.system, fold_token(c.code)): _displays(c) for c in written.codes},
        combined_outcomes=_unique((fold_token(word), parts) for word, parts in written.combined_words.items()),
        cancel_reasons=_unique((fold_token(word), Outcome(out)) for word, out in written.cancel_reasons.items()),
        boiler_plate=frozenset(map(fold_token, written.comments.boiler_plate)),
        urgent_words=frozenset(map(fold_token, written.comments.urgent_words)),
        envelope=written.envelope,
        encoding=written.encoding,
        fallback_encoding=written.fallback_encoding,
        zone=written.zone,
        tube_required=written.tube_required,
        kit_id_types=frozenset(map(fold_token, written.kit_id_types)),
        kit_id_authorities=frozenset(map(fold_token, written.kit_id_authorities)),
        kit_systems=written.kit_systems,
        obx14_is_sampling_time=written.obx14_is_sampling_time,
        reflex_suffixes=written.reflex_suffixes,
        index_bands={
            test: IndexBands(bands.low_reactive_from, bands.reactive_from)
            for test, bands in written.index_bands.items()
        },
        max_sample_age_days=dict(written.max_sample_age_days),
        max_quarantined_percent=written.max_quarantined_percent,
        csv=_dialect(written.csv),
    )


def _codes(local: str, loinc: Iterable[str]) -> list[tuple[str, str]]:
    return [(LOCAL, local), *((LOINC, code) for code in loinc)]


def _displays(code: _ResultCode) -> frozenset[str]:
    """The words beside a code; SNOMED CT's fully specified name adds what kind of thing it is."""
    kinds = ("", " (qualifier value)", " (finding)") if code.system == SNOMED else ("",)
    return frozenset(fold_token(word + kind) for word in code.words for kind in kinds)


def _outcomes(written: _File) -> dict[Test, dict[tuple[str, str], Outcome]]:
    words: dict[Test, dict[tuple[str, str], Outcome]] = {}
    for tests, plain, kind in (
        (SWAB_TESTS, written.words.naat, "naat"),
        (BLOOD_TESTS, written.words.blood, "blood"),
    ):
        entries = [((PLAIN, fold_token(word)), Outcome(outcome)) for word, outcome in plain.items()]
        for code in written.codes:
            outcome = code.naat if kind == "naat" else code.blood
            if outcome is not None:
                entries.append(((code.system, fold_token(code.code)), Outcome(outcome)))
        words |= {test: _unique(entries) for test in tests}
    return words


def _unique(entries: Iterable[tuple[K, V]]) -> dict[K, V]:
    """A dictionary, or ValueError where one key is given two meanings."""
    found: dict[K, V] = {}
    for key, value in entries:
        if found.setdefault(key, value) != value:
            raise ValueError(f"{key!r} is given two meanings")
    return found


# ── What no map may say ──────────────────────────────────────────────────────────────────────

_FOUND: Final = frozenset(map(fold_token, ("positive", "pos", "reactive", "detected")))
_FOUND_CODES: Final = frozenset({"260373001", "10828004", "11214006"})
"""SNOMED CT: Detected, Positive, Reactive."""
_UNSURE: Final = frozenset(
    f"{how} {what}".strip()
    for how in ("low", "weak", "weakly", "presumptive", "presumptively", "borderline", "indeterminate", "equivocal")
    for what in ("positive", "reactive", "detected", "")
    if what or how in {"borderline", "indeterminate", "equivocal"}
) | {"inconclusive"}
_UNSURE_CODES: Final = frozenset({"419984006", "82334004", "42425007"})
"""SNOMED CT: Inconclusive, Indeterminate, Equivocal."""
_FINDINGS: Final = frozenset({"positive", "reactive", "low_reactive", "equivocal"})


def _check(written: _File) -> None:
    """Raises ValueError, with the key, for what is well formed and can't be meant."""
    _check_forms(written)
    _check_results(written)
    _check_tests(written)
    both = set(map(fold_token, written.comments.boiler_plate)) & set(map(fold_token, written.comments.urgent_words))
    if both:
        raise ValueError(f"comments: {min(both)!r} changes nothing and is urgent")
    if written.csv:
        _check_columns(written.csv)
        _check_table(written, written.csv)


def _check_forms(written: _File) -> None:
    if not written.forms:
        raise ValueError("forms: say what the laboratory sends")
    for form, key, is_given in (
        (Form.CSV, "csv", written.csv is not None),
        (Form.HL7, "senders", bool(written.senders)),
        (Form.FHIR, "fhir_systems", bool(written.fhir_systems)),
    ):
        if form in written.forms and not is_given:
            raise ValueError(f"{key}: '{form}' among forms needs it")


def _check_results(written: _File) -> None:
    """No word for found may mean anything else than a finding."""
    said: list[tuple[str, str, Iterable[str | None]]] = [
        *(("words.naat", word, [outcome]) for word, outcome in written.words.naat.items()),
        *(("words.blood", word, [outcome]) for word, outcome in written.words.blood.items()),
        *(("cancel_reasons", word, [outcome]) for word, outcome in written.cancel_reasons.items()),
        *(("combined_words", word, parts.values()) for word, parts in written.combined_words.items()),
        *(("codes", text, [code.naat, code.blood]) for code in written.codes for text in (code.code, *code.words)),
    ]
    for key, text, outcomes in said:
        wrong = {outcome for outcome in outcomes if outcome} - _FINDINGS
        if "negative" in wrong and (fold_token(text) in _UNSURE or text in _UNSURE_CODES):
            raise ValueError(f"{key}: {text!r} can't be negative")
        if wrong and (fold_token(text) in _FOUND or text in _FOUND_CODES):
            raise ValueError(f"{key}: {text!r} can't be {min(wrong)}")


def _check_tests(written: _File) -> None:
    for entry in written.tests:
        if (entry.test in BLOOD_TESTS) != (Site.BLOOD in entry.sites) or (
            Site.BLOOD in entry.sites and len(set(entry.sites)) > 1
        ):
            raise ValueError(f"tests: {entry.code!r}: a test is done on blood alone, or on anything but blood")
    taken = {fold_token(code) for code in _test_codes(written)}
    for detail in written.details:
        if fold_token(detail.code) in taken:
            raise ValueError(f"details: {detail.code!r} is the code of a test already")
    for suffix in written.reflex_suffixes:
        if not suffix.strip() or suffix.isdigit():
            raise ValueError(
                f"reflex_suffixes: {suffix!r} would join the numbers of two reports that follow each other"
            )


def _test_codes(written: _File) -> list[str]:
    return [*(each.code for each in written.tests), *(each.code for each in written.combined)]


_COLUMN_KEYS: Final = (
    *("kit", "tube", "accession", "family_name", "dob", "collected", "received", "authorised"),
    *("test", "specimen", "result_code", "result", "status", "revision", "comment"),
)


def _check_columns(csv: _Csv) -> None:
    """Every column of the header has one meaning, or is said to have none."""
    named = [(key, getattr(csv, key)) for key in _COLUMN_KEYS]
    named += [("result_columns", column) for column in csv.result_columns]
    named += [("ignored", column) for column in csv.ignored]
    given: dict[str, str] = {}
    for key, column in named:
        if column and column not in csv.columns:
            raise ValueError(f"csv.{key}: {column!r} is not among csv.columns")
        if column and given.setdefault(column, key) != key:
            raise ValueError(f"csv.{key}: {column!r} is csv.{given[column]} already")
    for column in csv.columns:
        if column in csv.ignored:
            continue
        if csv.columns.count(column) > 1:
            raise ValueError(f"csv.columns: {column!r} stands twice")
        if column not in given:
            raise ValueError(f"csv.columns: {column!r} is given to no key: give it to one, or list it in csv.ignored")


def _check_table(written: _File, csv: _Csv) -> None:
    codes = {fold_token(code) for code in (*_test_codes(written), *(each.code for each in written.details))}
    for column in csv.result_columns:
        if csv.result_columns.count(column) > 1:
            raise ValueError(f"csv.result_columns: {column!r} stands twice")
        if fold_token(column) not in codes:
            raise ValueError(f"csv.result_columns: {column!r} is no code of tests, combined or details")
    if csv.result_columns and (csv.test or csv.result or csv.result_code):
        raise ValueError("csv.result_columns: a table has one result a row (test, result), or one kit a row")
    if not all(word.strip() for word in csv.statuses):
        raise ValueError("csv.statuses: a blank status is no word")
    if csv.head_record and not csv.tail_record:
        raise ValueError("csv.tail_record: a counting first line needs a counting last line, which a cut file lacks")
    if written.tube_required and not csv.tube:
        raise ValueError("csv.tube: tube_required needs the column of the tube id")
    for key in ("dob_format", "date_format", "time_format", "received_format"):
        if key != "received_format" or csv.received_format:
            _check_format(f"csv.{key}", getattr(csv, key))


def _check_format(key: str, form: str) -> None:
    """A format must give back the day that it wrote, and its hour if it has a clock at all."""
    if form == lab_time.ISO8601 and key != "csv.dob_format":
        return
    wrote = datetime(2026, 11, 23, 17, 45, tzinfo=UTC)
    try:
        read = lab_time.read_time(wrote.strftime(form), form, "UTC")
    except re.error:  # a directive that stands twice
        read = None
    is_lost = read is None or read.on != wrote.date() or (read.has_clock and read.at.hour != wrote.hour)
    if is_lost or ("%S" in form and "%M" not in form):
        raise ValueError(
            f"{key}: {form!r} does not give back the day and hour that it writes, as Python's strptime reads it"
        )


def _dialect(csv: _Csv | None) -> CsvDialect | None:
    """The table's dialect."""
    if csv is None:
        return None
    if not csv.kit and not csv.tube:
        raise ValueError("csv.kit: name the column of the kit id or of the tube id")
    if not csv.result_columns and not (csv.test and csv.result):
        raise ValueError("csv.result: name the columns of test and result, or result_columns")
    if bool(csv.status) != bool(csv.statuses):
        raise ValueError("csv.statuses: a status column needs its words, and words need the column")
    statuses = _unique((fold_token(word), state) for word, state in csv.statuses.items())
    return CsvDialect(**csv.model_dump(exclude={"ignored"}) | {"statuses": statuses})
