"""Reads the labs' maps: one TOML file a lab, every key typed, unknown keys refused, nothing defaulted to a result.

A new lab is a new file in app/service/labs/ and no code. The file's hash is the map's version, which
every stored row cites.
"""

import hashlib
import tomllib
from codecs import lookup
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

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


def _known_encoding(name: str) -> str:
    try:
        return lookup(name).name if name else ""
    except LookupError:
        raise ValueError(f"{name!r} is no encoding") from None


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Sender(_Strict):
    application: str
    facility: str


class _Test(_Strict):
    code: str
    loinc: tuple[str, ...] = ()
    test: Test
    sites: tuple[Site, ...]


class _Combined(_Strict):
    code: str
    loinc: tuple[str, ...] = ()
    tests: tuple[Test, ...]
    sites: tuple[Site, ...]


class _Detail(_Strict):
    code: str
    test: Test
    is_index: bool


class _Specimen(_Strict):
    site: Site
    codes: tuple[str, ...] = ()
    snomed: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class _Words(_Strict):
    naat: Mapping[str, _SwabOutcome] = {}
    blood: Mapping[str, _BloodOutcome] = {}


class _ResultCode(_Strict):
    system: _System
    code: str
    words: tuple[str, ...]
    naat: _SwabOutcome | None = None
    blood: _BloodOutcome | None = None


class _Bands(_Strict):
    low_reactive_from: float
    reactive_from: float


class _Comments(_Strict):
    boiler_plate: tuple[str, ...]
    urgent_words: tuple[str, ...]


class _Csv(_Strict):
    columns: tuple[str, ...]
    delimiter: Literal[",", ";", "\t", "|"]
    dob_format: str
    date_format: str
    time_format: str
    kit: str = ""
    tube: str = ""
    accession: str = ""
    family_name: str = ""
    dob: str
    collected: str = ""
    received: str = ""
    authorised: str
    test: str = ""
    specimen: str = ""
    result_code: str = ""
    result: str = ""
    status: str = ""
    revision: str = ""
    comment: str = ""
    result_columns: tuple[str, ...] = ()
    statuses: Mapping[str, RowState] = {}
    head_record: str = ""
    tail_record: str = ""
    control_file: bool = False
    done_marker: bool = False


class _File(_Strict):
    lab: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_-]{1,39}$")]
    reviewed_by: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """Which clinician read the words, specimens and comments. Nobody yet: the map is not used."""
    forms: tuple[Form, ...]
    senders: tuple[_Sender, ...] = ()
    fhir_systems: tuple[str, ...] = ()
    code_systems: Mapping[_System, tuple[str, ...]]
    tests: tuple[_Test, ...]
    combined: tuple[_Combined, ...] = ()
    details: tuple[_Detail, ...] = ()
    specimens: tuple[_Specimen, ...] = ()
    unspecified: tuple[str, ...] = ("Unspecified", "Not specified", "Unknown", "UNSP", "Swab")
    words: _Words = _Words()
    codes: tuple[_ResultCode, ...] = ()
    combined_words: Mapping[str, Mapping[Test, Outcome]] = {}
    cancel_reasons: Mapping[str, _Failed] = {}
    comments: _Comments
    envelope: Envelope = Envelope.REQUIRED
    encoding: Annotated[str, AfterValidator(_known_encoding)]
    fallback_encoding: Annotated[str, AfterValidator(_known_encoding)] = ""
    zone: Annotated[str, AfterValidator(_known_zone)]
    tube_required: bool = False
    kit_id_types: tuple[str, ...] = ()
    kit_id_authorities: tuple[str, ...] = ()
    kit_systems: tuple[str, ...] = ()
    obx14_is_sampling_time: bool = False
    reflex_suffixes: tuple[str, ...] = ()
    index_bands: Mapping[Test, _Bands] = {}
    max_sample_age_days: Mapping[Site, Annotated[int, Field(gt=0)]] = {}
    max_quarantined_percent: Annotated[int, Field(ge=0, le=100)] = 20
    csv: _Csv | None = None


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
        return _lab_map(written, hashlib.sha256(content).hexdigest()[:16])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ServiceError(Code.SETTINGS, f"{path.name}: {key}: {first['msg']}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ServiceError(Code.SETTINGS, f"{path.name}: {error}") from error


def _lab_map(written: _File, version: str) -> LabMap:
    return LabMap(
        lab=written.lab,
        version=version,
        forms=frozenset(written.forms),
        senders=frozenset((fold_token(s.application), fold_token(s.facility)) for s in written.senders),
        fhir_systems=written.fhir_systems,
        code_systems={fold_token(s): name for name, spelled in written.code_systems.items() for s in spelled},
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
        combined_outcomes={fold_token(word): parts for word, parts in written.combined_words.items()},
        cancel_reasons={fold_token(word): Outcome(outcome) for word, outcome in written.cancel_reasons.items()},
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


def _dialect(csv: _Csv | None) -> CsvDialect | None:
    """The table's dialect, its column names checked against its header."""
    if csv is None:
        return None
    named = {
        key: getattr(csv, key)
        for key in (
            *("kit", "tube", "accession", "family_name", "dob", "collected", "received", "authorised"),
            *("test", "specimen", "result_code", "result", "status", "revision", "comment"),
        )
    }
    for key, column in [*named.items(), *(("result_columns", column) for column in csv.result_columns)]:
        if column and column not in csv.columns:
            raise ValueError(f"csv.{key}: {column!r} is not among csv.columns")
    if not csv.kit and not csv.tube:
        raise ValueError("csv.kit: name the column of the kit id or of the tube id")
    if not csv.result_columns and not (csv.test and csv.result):
        raise ValueError("csv.result: name the columns of test and result, or result_columns")
    if bool(csv.status) != bool(csv.statuses):
        raise ValueError("csv.statuses: a status column needs its words, and words need the column")
    values = csv.model_dump() | {"statuses": {fold_token(word): state for word, state in csv.statuses.items()}}
    return CsvDialect(**values)
