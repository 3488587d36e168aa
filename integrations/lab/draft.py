"""Drafts a laboratory's map from one of its files: what can be seen, as commented suggestions for a person.

Nothing here decides a meaning. Every word and code that the file holds is listed with an empty place for
what it means, and the draft is refused at start until a person has filled it in and signed it. Names,
dates of birth and free text are never copied into it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from integrations.lab import hl7v2
from integrations.lab import reader as lab_files
from integrations.lab.framing import BrokenFile, foreign_format, form_of
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code
from models.rules.lab import Envelope, Form, LabMap, LabRow

_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "kit": ("kit", "barcode", "order"),
    "tube": ("tube", "container", "vial"),
    "accession": ("labno", "accession", "lab_no", "labref"),
    "family_name": ("surname", "family", "last"),
    "dob": ("dob", "birth", "born"),
    "collected": ("collect", "taken", "sampled"),
    "received": ("rec_", "receiv", "booked"),
    "authorised": ("author", "released", "rep_", "report", "issued"),
    "test": ("test", "analyte", "assay"),
    "specimen": ("site", "specimen", "sample_type"),
    "result_code": ("result_code", "resultcode"),
    "result": ("result", "value"),
    "status": ("status",),
    "revision": ("revision", "version"),
    "comment": ("comment", "remark", "note"),
}
"""Parts of a column's name that suggest what it is. A person decides."""

_LISTED: Final = ("test", "specimen", "result_code", "result", "status")
"""Columns whose values are a lab's own words and no person's."""

_FREE_TEXT: Final = frozenset({"TX", "FT", "ED", "RP"})
"""HL7's types of a value that is somebody's own sentence, or a document."""

_MOST_WORDS: Final = 6
_MOST_DIGITS: Final = 5
"""A result's word is short, and no telephone number or date stands in it."""

_MOST_LISTED: Final = 60
_LONGEST_LISTED: Final = 60

_DAYS: Final = ("%d/%m/%Y", "%Y-%m-%d", "%d-%b-%Y", "%d.%m.%Y", "%m/%d/%Y", "%Y%m%d")
_TIMES: Final = ("iso8601", *(f"{day} {clock}" for day in _DAYS for clock in ("%H:%M", "%H:%M:%S")), *_DAYS)

_HEAD: Final = """\
# {lab}: drafted from a sample file. Nothing in it counts until a person has completed and signed it.
# Lines that begin with '#' are what the file shows: uncomment what is right, delete what is not.
# docs/lab-integration.md says what each key means; app/service/labs/northlab.toml is a whole example.

lab = {lab_text}
reviewed_by = ""                  # the clinician who read words, specimens and comments; empty: the map is refused
forms = [{form_text}]
zone = "Europe/London"            # for times without an offset
encoding = {encoding_text}
"""

_TAIL: Final = """
[cancel_reasons]                  # why a cancelled test failed: words of the value, the comment or SPM-21

[comments]                        # read by a clinician: these change nothing. Any other comment holds the result.
boiler_plate = []
urgent_words = ["wrong patient", "another sample", "mislabel", "swapped", "corrected", "disregard", "error"]
"""


def draft_map(lab: str, content: bytes) -> str:
    """The text of a map for the lab of this file. Raises ServiceError(BAD_INPUT) for a file that can't be one."""
    if fault := foreign_format(content[: lab_files.HEAD_BYTES]):
        raise ServiceError(Code.BAD_INPUT, fault.detail)
    form = form_of(content[: lab_files.HEAD_BYTES])
    encoding, text = _decoded(content)
    head = _HEAD.format(lab=lab, lab_text=_quoted(lab), form_text=_quoted(form.value), encoding_text=_quoted(encoding))
    try:
        body = _of_table(text) if form is Form.CSV else _of_messages(lab, form, content)
    except BrokenFile as broken:
        raise ServiceError(Code.BAD_INPUT, broken.fault.detail) from None
    return head + body + _TAIL


def _decoded(content: bytes) -> tuple[str, str]:
    try:
        return "utf-8", content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252", content.decode("cp1252", "replace")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _listed(texts: Iterable[str]) -> list[str]:
    """Each word once, sorted; nothing long, which may be free text."""
    return sorted({text for text in texts if text and len(text) <= _LONGEST_LISTED})[:_MOST_LISTED]


# ── A table ──────────────────────────────────────────────────────────────────────────────────


def _of_table(text: str) -> str:
    try:
        delimiter, lines = max(
            (
                (each, list(csv.reader(io.StringIO(text, newline=None), delimiter=each)))
                for each in (",", ";", "\t", "|")
            ),
            key=lambda read: _agreeing(read[1]),
        )
    except csv.Error:
        raise ServiceError(Code.BAD_INPUT, "The file can't be read as a table: look for quotation marks.") from None
    width = max(map(len, lines), default=0)
    start = next((at for at, cells in enumerate(lines) if len(cells) == width), 0)
    columns = [cell.strip() for cell in lines[start]] if lines else []
    if width < 2 or len(set(columns)) < width:  # noqa: PLR2004
        raise ServiceError(Code.BAD_INPUT, "The file has no line of different column names.")
    if any(map(_is_a_value, columns)):
        raise ServiceError(Code.BAD_INPUT, "The first line holds values, not the names of columns: put a header there.")
    rows = [cells for cells in lines[start + 1 :] if len(cells) == width]
    values = {column: [cells[at].strip() for cells in rows] for at, column in enumerate(columns)}
    roles = _roles(columns)
    out = ["", "[code_systems]                    # a table's codes are its lab's own", 'local = [""]']
    out += _meanings(
        {role: _listed(values[roles[role]]) for role in _LISTED if role in roles},
    )
    out += ["", "[csv]", f"delimiter = {_quoted(delimiter)}"]
    out.append(f"columns = [{', '.join(map(_quoted, columns))}]")
    for key, formats, named in (
        ("dob_format", _DAYS, ("dob",)),
        ("date_format", _TIMES, ("collected",)),
        ("time_format", _TIMES, ("received", "authorised")),
    ):
        seen = [value for role in named if role in roles for value in values[roles[role]] if value]
        fits = [each for each in formats if seen and all(_fits(value, each) for value in seen)]
        out.append(
            f"# {key} = {_quoted(fits[0] if fits else '')}" + (f"   # or {', '.join(fits[1:])}" if fits[1:] else "")
        )
    out += [f"# {role} = {_quoted(roles[role])}" for role in _ROLES if role in roles]
    if "result" not in roles:
        rest = [column for column in columns if column not in roles.values()]
        out.append(f"# result_columns = [{', '.join(map(_quoted, rest))}]   # one column a result: each is a test code")
    elif rest := [column for column in columns if column not in roles.values()]:
        out.append(f"# ignored = [{', '.join(map(_quoted, rest))}]   # never read: only what changes no result")
    if start:
        out.append(f"# head_record = {_quoted(lines[0][0].strip())}   # counts the rows in its last cell")
    if lines[-1:] and 0 < len(lines[-1]) < width:
        out.append(f"# tail_record = {_quoted(lines[-1][0].strip())}   # counts the rows in its last cell")
    out.append("# control_file = true   # if NAME.ctl with rows= and sha256= is written last")
    if "status" in roles:
        out += ["", "# [csv.statuses]   # final, pending, corrected or cancelled"]
        out += [f"# {_quoted(word)} = " for word in _listed(values[roles["status"]])]
    return "\n".join(out) + "\n"


def _is_a_value(cell: str) -> bool:
    """Whether a cell of the first line is no column's name: it is blank, a date, or a kit's or tube's id."""
    kit = cell.replace("-", "")[:10]
    return not cell or any(_fits(cell, each) for each in _TIMES) or normalise_kit_code(kit) is not None


def _agreeing(lines: list[list[str]]) -> int:
    """How many cells stand in lines of the commonest width: what the right delimiter makes most of."""
    widths = [len(cells) for cells in lines if len(cells) > 1]
    return max((width * widths.count(width) for width in set(widths)), default=0)


def _roles(columns: list[str]) -> dict[str, str]:
    """What each column's name suggests; a column has one role, and the narrower word comes first."""
    free = list(columns)
    found: dict[str, str] = {}
    for role in sorted(_ROLES, key=lambda role: role != "result_code"):
        for column in free:
            if any(part in column.casefold() for part in _ROLES[role]):
                found[role] = column
                free.remove(column)
                break
    return found


def _fits(value: str, form: str) -> bool:
    try:
        if form == "iso8601":
            return "T" in value and datetime.fromisoformat(value).tzinfo is not None
        datetime.strptime(value, form)  # noqa: DTZ007 - asked for its form only
    except ValueError:
        return False
    return True


# ── Messages ─────────────────────────────────────────────────────────────────────────────────


def _of_messages(lab: str, form: Form, content: bytes) -> str:
    sender = hl7v2.sender(content) if form is Form.HL7 else None
    rows = list(_rows(_nothing_agreed(lab, form, sender), content))
    codes = [coded for row in rows for coded in row.test_codes if coded.code]
    sites = [coded for row in rows for coded in row.sites_raw]
    results = [coded for row in rows for codings in row.value_codes for coded in codings]
    plain = [
        text
        for row in rows
        if not row.value_codes and row.value_type not in _FREE_TEXT
        for text in row.value_raw
        if len(text.split()) <= _MOST_WORDS and sum(map(str.isdigit, text)) <= _MOST_DIGITS
    ]
    systems = _listed(coded.system for coded in (*codes, *sites, *results))
    out = []
    if form is Form.FHIR:
        out += ["fhir_systems = []                 # what the lab's own identifiers and code systems begin with"]
    out += ["# kit_id_types = []   # PID-3.5 of a kit id"] if form is Form.HL7 else []
    out += ["", "[code_systems]                    # how this lab spells a code system"]
    out += [f"# local = {json.dumps(systems, ensure_ascii=False)}   # sort these: local, loinc, snomed"]
    if sender:
        out += ["", "[[senders]]", f"application = {_quoted(sender[0])}", f"facility = {_quoted(sender[1])}"]
    return (
        "\n".join(out)
        + "\n"
        + "\n".join(
            _meanings(
                {
                    "test": _listed(coded.code for coded in codes),
                    "specimen": _listed(coded.code or coded.text for coded in sites),
                    "result_code": _listed(coded.code for coded in results),
                    "result": _listed((*plain, *(coded.text for coded in results))),
                }
            )
        )
        + "\n"
    )


def _rows(blank: LabMap, content: bytes) -> Iterator[LabRow]:
    for message in lab_files.read_messages([content], blank):
        yield from message.rows


def _nothing_agreed(lab: str, form: Form, sender: tuple[str, str] | None) -> LabMap:
    """A map that knows no word: enough to take a file apart, and too little to mean anything."""
    return LabMap(
        lab=lab,
        version="",
        forms=frozenset({form}),
        senders=frozenset({sender} if sender else ()),
        fhir_systems=("",),
        code_systems={},
        tests={},
        combined={},
        details={},
        specimens={},
        unspecified=frozenset(),
        outcomes={},
        displays={},
        combined_outcomes={},
        cancel_reasons={},
        boiler_plate=frozenset(),
        urgent_words=frozenset(),
        envelope=Envelope.OPTIONAL,
        encoding="utf-8",
        fallback_encoding="cp1252",
        zone="Europe/London",
        tube_required=False,
        kit_id_types=frozenset(),
        kit_id_authorities=frozenset(),
        kit_systems=(),
        obx14_is_sampling_time=False,
        reflex_suffixes=(),
        index_bands={},
        max_sample_age_days={},
        max_quarantined_percent=100,
        csv=None,
    )


# ── What a person must say ───────────────────────────────────────────────────────────────────


def _meanings(seen: Mapping[str, list[str]]) -> list[str]:
    """An empty place for the meaning of every code and word that the file holds."""
    out: list[str] = []
    for code in seen.get("test", []):
        out += ["", "# [[tests]]", f"# code = {_quoted(code)}", '# test = ""    # chlamydia, hiv, ...', "# sites = []"]
    for code in seen.get("specimen", []):
        out += ["", "# [[specimens]]", f"# codes = [{_quoted(code)}]", '# site = ""    # urine, vaginal, blood, ...']
    for code in seen.get("result_code", []):
        out += ["", "# [[codes]]", f"# code = {_quoted(code)}", '# system = ""', "# words = []", '# naat = ""']
        out += ['# blood = ""']
    if words := seen.get("result", []):
        out += [
            "",
            "[words.naat]                      # swabs and urine: negative, positive, equivocal, or why it failed",
        ]
        out += [f'# {_quoted(word)} = ""' for word in words]
        out += [
            "",
            "[words.blood]                     # blood: negative, reactive, low_reactive, equivocal, never positive",
        ]
        out += [f'# {_quoted(word)} = ""' for word in words]
    return out
