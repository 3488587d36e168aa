"""Tables in one lab's declared dialect: no sniffing, every cell text, every row's cells counted.

Streams through the standard library's csv reader in strict mode. Rules: lab-messages.md section 4.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from integrations.lab.framing import (
    MAX_LINE_BYTES,
    BrokenFile,
    Completeness,
    FileVerdict,
    Meter,
    decode,
    has_control_bytes,
    with_equal_line_ends,
)
from integrations.lab.rows import BLANK_ROW, held_if_damaged
from models.rules.lab import Coded, CsvDialect, Fault, Form, LabMap, LabMessage, LabRow
from models.rules.vocabulary import Quarantine

_MAX_RAGGED_SHARE: Final = 0.01
"""More rows than this with a wrong number of cells, and the file is held (lab-messages.md 4)."""

_GROUP_LIMIT: Final = 1_000
"""Rows of one accession that are held in memory together: far more than any panel has."""

csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process: its own 128 KiB are less than a line may have

_CONTROL_LINE: Final = re.compile(r"(rows|sha256)\s*=\s*([0-9A-Za-z]{1,64})", re.ASCII)


class _Line:
    """Hands decoded lines to csv and keeps what was odd about those of the present record."""

    def __init__(self, chunks: Iterable[bytes], lab: LabMap) -> None:
        self._chunks = chunks
        self._lab = lab
        self.fault: Fault | None = None
        self.warnings: set[str] = set()
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        buffer = b""
        for chunk in with_equal_line_ends(self._chunks, b"\n"):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield self._decoded(line) + "\n"
            if len(buffer) > MAX_LINE_BYTES:
                raise BrokenFile(Fault(Quarantine.MALFORMED, "A line is longer than 1 MiB."))
        if buffer:
            yield self._decoded(buffer)

    def _decoded(self, line: bytes) -> str:
        self.number += 1
        if line.isascii():
            text = line.decode("ascii")
        else:
            try:
                text, warning = decode(line, self._lab.encoding, self._lab.fallback_encoding)
            except BrokenFile as broken:
                self.fault = broken.fault
                return line.decode("ascii", "replace")
            if warning:
                self.warnings.add(f"Some lines are {warning}.")
        if has_control_bytes(line):
            self.fault = Fault(Quarantine.MALFORMED, "The row holds control characters.")
        return text


class _Record(NamedTuple):
    line: int
    cells: list[str]
    fault: Fault | None


class _Table:
    """The records of one file, its header checked and its counting lines taken off."""

    def __init__(self, chunks: Iterable[bytes], lab: LabMap) -> None:
        assert lab.csv is not None, "only a lab with a dialect sends tables"
        self.dialect: CsvDialect = lab.csv
        self.lines = _Line(chunks, lab)
        self.promised: list[int | None] = []
        self.has_trailer = False
        self.columns: list[str] = []

    def records(self) -> Iterator[_Record]:
        """Data rows in order. Raises BrokenFile where the table can't be read on."""
        reader = csv.reader(iter(self.lines), delimiter=self.dialect.delimiter, strict=True)
        dialect = self.dialect
        expects_head = bool(dialect.head_record)
        while True:
            line = self.lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error:
                raise BrokenFile(_unreadable(line, is_header=not self.columns and not expects_head)) from None
            fault, self.lines.fault = self.lines.fault, None
            if not any(cell.strip() for cell in cells):
                continue
            if self.has_trailer:
                raise BrokenFile(Fault(Quarantine.INCOMPLETE_FILE, f"Line {line} follows the counting last line."))
            if expects_head:
                expects_head = False
                if cells[0].strip() != dialect.head_record:
                    raise BrokenFile(
                        Fault(Quarantine.HEADER_CHANGED, "The first line is not the agreed counting line.")
                    )
                self.promised.append(_count(cells[-1]))
            elif not self.columns:
                self._take_header(cells)
            elif dialect.tail_record and cells[0].strip() == dialect.tail_record and len(cells) < len(self.columns):
                self.has_trailer = True
                self.promised.append(_count(cells[-1]))
            elif len(cells) != len(self.columns):
                wrong = Fault(Quarantine.MALFORMED, f"The row has {len(cells)} cells instead of {len(self.columns)}.")
                yield _Record(line, cells, wrong)
            else:
                yield _Record(line, cells, fault)
        if not self.columns:
            raise BrokenFile(Fault(Quarantine.HEADER_CHANGED, "The file has no header line."))

    def _take_header(self, cells: list[str]) -> None:
        self.columns = [cell.strip() for cell in cells]
        if sorted(self.columns) != sorted(self.dialect.columns):
            raise BrokenFile(Fault(Quarantine.HEADER_CHANGED, _what_changed(self.columns, self.dialect.columns)))


def _unreadable(line: int, *, is_header: bool) -> Fault:
    if is_header:  # another delimiter puts characters behind a quotation mark
        return Fault(Quarantine.HEADER_CHANGED, "The header can't be split at the agreed delimiter.")
    return Fault(
        Quarantine.MALFORMED, f"The quotation marks from line {line} on don't close, or a cell is longer than 1 MiB."
    )


def _what_changed(found: list[str], agreed: Sequence[str]) -> str:
    """Names agreed columns only: where a header is missing, what stands in its place are a resident's own words."""
    missing = ", ".join(f"'{name}'" for name in agreed if name not in found)
    said = f"Agreed columns are missing: {missing}" if missing else "No agreed column is missing"
    return f"{said}; {len(found)} are there, {len(agreed)} are agreed."


def _count(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004


def header_matches(head: bytes, lab: LabMap) -> bool:
    """Whether the first lines of a file are this lab's header, names and all."""
    if lab.csv is None:
        return False
    table = _Table([head], lab)
    try:
        next(table.records(), None)
    except (BrokenFile, csv.Error):
        return sorted(table.columns) == sorted(lab.csv.columns)
    return True


def check_csv(meter: Meter, lab: LabMap, control: bytes | None) -> FileVerdict:
    """The verdict on a table: header, counting lines or control file, ragged rows, the last line's end."""
    table = _Table(meter, lab)
    seen = ragged = 0
    fault: Fault | None = None
    try:
        for record in table.records():
            seen += 1
            ragged += record.fault is not None and len(record.cells) != len(table.columns)
    except BrokenFile as broken:
        fault = broken.fault
        meter.drain()
    if meter.last not in {b"\r", b"\n"}:
        fault = Fault(Quarantine.INCOMPLETE_FILE, "The last line is cut: it has no line end.")
    promised = table.promised
    if table.dialect.tail_record and not table.has_trailer:
        fault = fault or Fault(Quarantine.INCOMPLETE_FILE, "The counting last line is missing: the file is cut.")
    if control is not None:
        rows, fault_of_control = _read_control(control, meter.sha256)
        promised = [*promised, rows]
        fault = fault or fault_of_control
    if any(count is None or count != seen for count in promised):
        fault = fault or Fault(
            Quarantine.INCOMPLETE_FILE, f"The promised number of rows is not the {seen} that are there."
        )
    if ragged > seen * _MAX_RAGGED_SHARE:
        fault = fault or Fault(Quarantine.MALFORMED, f"{ragged} of {seen} rows have a wrong number of cells.")
    warnings = sorted(table.lines.warnings)
    if not promised:
        warnings.append("Nothing counts the rows of this file.")
    return FileVerdict(
        fault,
        promised[0] if promised else None,
        seen,
        "",
        meter.sha256,
        meter.size_bytes,
        Completeness.PROVEN if promised else Completeness.UNPROVEN,
        tuple(warnings),
    )


def _read_control(control: bytes, sha256: bytes) -> tuple[int | None, Fault | None]:
    """(rows, fault) of a control file with lines rows= and sha256=."""
    lines = (_CONTROL_LINE.fullmatch(line.strip()) for line in control.decode("ascii", "replace").splitlines())
    pairs = [(found[1], found[2]) for found in lines if found]
    said = dict(pairs)
    if sorted(name for name, _ in pairs) != ["rows", "sha256"]:
        return None, Fault(Quarantine.INCOMPLETE_FILE, "The control file does not give rows and sha256, each once.")
    if said["sha256"].lower() != sha256.hex():
        return None, Fault(Quarantine.INCOMPLETE_FILE, "The file's checksum is not the one in its control file.")
    return _count(said["rows"]), None


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────


def read(chunks: Iterable[bytes], lab: LabMap, skip: int = 0) -> Iterator[LabMessage]:
    """The table as messages: neighbouring rows of one accession (or kit, or tube) are one. Raises BrokenFile."""
    table = _Table(chunks, lab)
    records = table.records()
    first = next(records, None)
    if first is None:
        return
    where = {name: number for number, name in enumerate(table.columns)}
    dialect = table.dialect
    keys = [where[name] for name in (dialect.accession, dialect.kit, dialect.tube) if name]
    group: tuple[str, int] = ("", 0)
    length = 0

    def group_of(record: _Record) -> tuple[str, int]:
        nonlocal group, length
        name = "" if record.fault else next(filter(None, (_folded(record.cells[key]) for key in keys)), "")
        length += 1
        if name != group[0] or not name or length > _GROUP_LIMIT:
            group, length = (name, group[1] + 1), 1
        return group

    for number, (_, together) in enumerate(groupby(_chain(first, records), group_of)):
        if number >= skip:
            yield _message(list(together), where, number, lab)


def _folded(identifier: str) -> str:
    """An identifier by which rows are put together, however it is spelt in each."""
    return identifier.upper().replace("-", "").replace(" ", "").strip()


def _chain(first: _Record, rest: Iterator[_Record]) -> Iterator[_Record]:
    yield first
    yield from rest


def _message(group: list[_Record], where: dict[str, int], number: int, lab: LabMap) -> LabMessage:
    rows: list[LabRow] = []
    for record in group:
        if record.fault is not None and len(record.cells) != len(where):
            rows.append(BLANK_ROW._replace(position=record.line, row_key=str(record.line), fault=record.fault))
        else:
            rows += _rows(record, where, lab)
    content = "\x1e".join("\x1f".join(record.cells) for record in group)
    return LabMessage(
        lab.lab,
        Form.CSV,
        "",
        hashlib.sha256(content.encode()).digest(),
        number,
        group[0].line,
        "",
        "",
        tuple(rows),
        None,
        (),
    )


def _rows(record: _Record, where: dict[str, int], lab: LabMap) -> list[LabRow]:
    """One row of a long table, or one for each result cell of a wide one."""
    dialect = lab.csv
    assert dialect is not None, "only a lab with a dialect sends tables"
    cells = record.cells

    def cell(name: str) -> str:
        return cells[where[name]].strip() if name else ""

    comment = cell(dialect.comment)
    fault = record.fault
    if dialect.result_code and bool(cell(dialect.result_code)) != bool(cell(dialect.result)):
        fault = fault or Fault(Quarantine.CODE_DISPLAY_CONFLICT, "A result's code and text must both be given.")
    specimen = cell(dialect.specimen)
    base = BLANK_ROW._replace(
        position=record.line,
        row_key=str(record.line),
        row_status_raw=cell(dialect.status),
        notes=(comment,) if comment else (),
        fault=fault,
        accession=cell(dialect.accession),
        kit_refs=tuple(filter(None, [cell(dialect.kit)])),
        tube_refs=tuple(filter(None, [cell(dialect.tube)])),
        sites_raw=(Coded("", specimen, ""),) if specimen else (),
        collected_raw=cell(dialect.collected),
        received_raw=cell(dialect.received),
        authorised_raw=cell(dialect.authorised),
        revision_raw=cell(dialect.revision),
        has_person=True,
        family_name=cell(dialect.family_name),
        dob=cell(dialect.dob),
    )
    if dialect.result_columns:
        rows = [
            base._replace(
                row_key=f"{record.line}:{column}", test_codes=(Coded("", column, ""),), value_raw=(cell(column),)
            )
            for column in dialect.result_columns
        ]
    elif dialect.result_code:
        coded = Coded("", cell(dialect.result_code), cell(dialect.result))
        rows = [
            base._replace(
                test_codes=(Coded("", cell(dialect.test), ""),),
                value_type="CE",
                value_raw=(coded.text,),
                value_codes=((coded,),),
            )
        ]
    else:
        test = (Coded("", cell(dialect.test), ""),)
        rows = [base._replace(test_codes=test, value_raw=(cell(dialect.result),))]
    if any("\ufffd" in text for text in cells):
        rows = [held_if_damaged(row) for row in rows]
    return rows
