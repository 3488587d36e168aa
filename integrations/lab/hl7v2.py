"""HL7 v2.3 to 2.5.1 ORU^R01, read by splitting: one small reader for the bulk path.

Yields text and no meaning. Held to the libraries `hl7` and `hl7kit` in the tests. Fields and their
sources: lab-messages.md section 2.2; groups: 2.1; escapes and encodings: 2.5.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from integrations.lab.framing import BrokenFile, decode, has_control_bytes, hl7_messages
from integrations.lab.rows import BLANK_ROW, held_if_damaged
from models.rules.lab import Coded, Fault, Form, LabMap, LabMessage, LabRow, fold_token
from models.rules.result import ORDER_ONLY
from models.rules.vocabulary import Quarantine

_SKIPPED: Final = frozenset(
    "SFT UAC PD1 NK1 PV1 PV2 TQ1 TQ2 CTD FT1 CTI DSC ROL PRT SAC ARV GT1 IN1 IN2 AL1 DG1 SID OH1 OH2 OH3 OH4".split()
)
"""Segments that may stand in an ORU and hold nothing we read."""

_ENVELOPE: Final = frozenset({"FHS", "BHS", "BTS", "FTS"})
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}", re.ASCII)
_OFFSET: Final = re.compile(r"[+-]?\d{4}", re.ASCII)
_NULL: Final = '""'
_CODED_TYPES: Final = frozenset({"CE", "CWE", "CNE", "CF"})
_BLANKS: Final = [""] * 40
_new_row: Final = tuple.__new__
_CACHE: Final = 16_384

_CHARACTER_SETS: Final = {
    "": "",
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "8859/1": "cp1252",
    "8859/15": "iso8859-15",
    "WINDOWS-1252": "cp1252",
    "CP1252": "cp1252",
    "ASCII": "ascii",
}
"""MSH-18. Latin-1 is read as cp1252: what Windows labs call 8859/1 has real punctuation in 0x80 to 0x9F."""


class _Grammar:
    """One set of delimiters, with what was already split by it kept at hand."""

    def __init__(self, delimiters: str, encoding: str) -> None:
        self.encoding = encoding
        self.field, self.component, self.repeat, self.escape, self.sub = tuple(delimiters)[:5]
        e = re.escape(self.escape)
        self._escapes = re.compile(f"{e}(?:([FSTREHN])|X([0-9A-Fa-f]{{2,64}})|\\.([a-z]{{2}})[+-]?[0-9]{{0,3}}){e}")
        self._plain = {
            "F": self.field,
            "S": self.component,
            "T": self.sub,
            "R": self.repeat,
            "E": self.escape,
            "H": "",
            "N": "",
        }
        # The same few codes, words and specimens fill a file: each is split once.
        self.code = lru_cache(maxsize=_CACHE)(self._code)
        self.value = lru_cache(maxsize=_CACHE)(self._value)
        self.specimen = lru_cache(maxsize=_CACHE)(self._specimen)
        self.flags = lru_cache(maxsize=_CACHE)(self._flags)

    def text(self, raw: str) -> str:
        """Unescapes once. What is no known escape, and an escape without an end, stays as it is."""
        return self._escapes.sub(self._unescape, raw) if self.escape in raw else raw

    def _unescape(self, found: re.Match[str]) -> str:
        letter, hexadecimal, format_ = found.groups()
        if letter:
            return self._plain[letter]
        if hexadecimal:
            try:
                return bytes.fromhex(hexadecimal).decode(self.encoding)
            except ValueError:
                return found[0]
        return "\n" if format_ in {"br", "sp"} else ""

    def first(self, raw: str) -> str:
        """The first subcomponent of the first component of the first repetition; an explicit null is ''."""
        if not raw or raw == _NULL:
            return ""
        text = raw.split(self.component, 1)[0]
        if self.repeat in text or self.sub in text or self.escape in text:
            text = self.text(text.split(self.repeat, 1)[0].split(self.sub, 1)[0])
        text = text.strip()
        return "" if text == _NULL else text

    def time(self, raw: str) -> str:
        """A time; an offset spelled as a second component is put where it belongs."""
        if self.component not in raw:
            return "" if raw == _NULL else raw
        moment, rest = raw.split(self.component, 1)
        return f"{moment}^{rest}" if _OFFSET.fullmatch(rest) else moment

    def _code(self, raw: str) -> tuple[Coded, ...]:
        """A coded element with its alternate; blank ones are left out."""
        parts = [self.text(part).strip() for part in raw.split(self.component)] + [""] * 6
        code, text, system, other_code, other_text, other_system = ("" if p == _NULL else p for p in parts[:6])
        pair = (Coded(system, code, text), Coded(other_system, other_code, other_text))
        return tuple(coded for coded in pair if coded.code or coded.text)

    def _value(self, raw: str) -> tuple[tuple[str, ...], tuple[tuple[Coded, ...], ...]]:
        """(all repetitions as text, their codings): the key is type + field separator + field."""
        kind, field = raw.split(self.field, 1)
        if not field:
            return (), ()
        repetitions = field.split(self.repeat)
        codes = tuple(self._code(one) for one in repetitions) if kind in _CODED_TYPES else ()
        return tuple(self.text(one) for one in repetitions), codes

    def _flags(self, raw: str) -> tuple[str, ...]:
        """All repetitions; of a coded flag its code."""
        codes = (self.text(one.split(self.component)[0]).strip() for one in raw.split(self.repeat))
        return tuple(code for code in codes if code and code != _NULL)

    def _specimen(self, raw: str) -> tuple[Coded, ...]:
        """A specimen: code^text^system, or v2.3's source whose first component is code&text&system."""
        parts = raw.split(self.component)
        if self.sub in parts[0]:
            first = self._code(self.component.join(parts[0].split(self.sub)[:3]))
            body_site = self._code(self.component.join(parts[3].split(self.sub)[:3])) if len(parts) > 3 else ()  # noqa: PLR2004
            return first + body_site
        if not any(parts[:2]) and len(parts) > 2 and parts[2]:  # noqa: PLR2004
            return (Coded("", "", self.text(parts[2]).strip()),)  # ^^URINE
        return self._code(raw)


@lru_cache(maxsize=16)
def _grammar(delimiters: str, encoding: str) -> _Grammar:
    return _Grammar(delimiters, encoding)


def read(chunks: Iterable[bytes], lab: LabMap, skip: int = 0) -> Iterator[LabMessage]:
    """Every message of a file after the first `skip`, in order. Raises BrokenFile beyond the size caps."""
    number = 0
    for line, raw in hl7_messages(chunks):
        if raw.startswith(b"MSH"):
            if number >= skip:
                yield _message(raw, line, number, lab)
            number += 1


def sender(head: bytes) -> tuple[str, str] | None:
    """(MSH-3, MSH-4), folded, of the first message in these bytes, or None where there is no whole header."""
    found = re.search(rb"(?:\A|[\r\n\x0b\xbf])(MSH[^\r\n]*)[\r\n]", head)
    if not found or len(found[1]) < 9:  # noqa: PLR2004
        return None
    header = found[1].decode("utf-8", "replace")
    fields = header.split(header[3:4])
    if len(fields) < 4 or not fields[1]:  # noqa: PLR2004
        return None
    return _sender(fields[2], fields[3], fields[1][0])


@lru_cache(maxsize=256)
def _sender(application: str, facility: str, component: str) -> tuple[str, str]:
    return fold_token(application.split(component)[0]), fold_token(facility.split(component)[0])


def _character_set(raw: bytes) -> str | None:
    """MSH-18's encoding, '' where it says nothing, None where it names one we don't know."""
    header = raw.split(b"\r", 1)[0]
    fields = header.split(header[3:4])
    if len(fields) < 18:  # noqa: PLR2004
        return ""
    return _CHARACTER_SETS.get(fields[17].decode("ascii", "replace").split("~")[0].strip().upper())


def _decoded(raw: bytes, lab: LabMap) -> tuple[str, str, tuple[str, ...], Fault | None]:
    """(text, encoding, warnings, fault) of a message that is not plain ASCII."""
    declared = _character_set(raw)
    if declared is None:
        return (
            raw.decode("ascii", "replace"),
            "ascii",
            (),
            Fault(Quarantine.ENCODING, "The character set in MSH-18 is not one that is read."),
        )
    warnings: tuple[str, ...] = ()
    encoding = declared or lab.encoding
    if encoding != "utf-8":
        # Two bytes that happen to be UTF-8 are hardly ever two Windows letters: the label is wrong, and said so.
        try:
            return raw.decode("utf-8"), "utf-8", ("MSH-18 does not say UTF-8, but the bytes are.",), None
        except UnicodeDecodeError:
            pass
    try:
        text, warning = decode(raw, encoding, lab.fallback_encoding)
    except BrokenFile as broken:
        return raw.decode("ascii", "replace"), "ascii", (), broken.fault
    if warning:
        warnings = (f"The message is {warning}.",)
        encoding = lab.fallback_encoding
    return text, encoding, warnings, None


class _Order:
    """What belongs to one OBR: the rows wait for it, because a specimen may follow them."""

    __slots__ = ("line", "notes", "obr", "orc", "rows", "specimens")

    def __init__(self, orc: Sequence[str], obr: Sequence[str], line: int, notes: list[str]) -> None:
        self.orc = orc
        self.obr = obr
        """Empty for results that stand without an order."""
        self.line = line
        self.notes = notes
        self.rows: list[tuple[tuple[object, ...], list[str]]] = []
        self.specimens: list[list[str]] = []


def _message(raw: bytes, line: int, number: int, lab: LabMap) -> LabMessage:
    """One message, its rows grouped by patient and order."""
    warnings: tuple[str, ...] = ()
    fault: Fault | None = None
    if raw.isascii():
        text, encoding = raw.decode("ascii"), lab.encoding
    else:
        text, encoding, warnings, fault = _decoded(raw, lab)
    lines = text.split("\r")
    header = lines[0]
    separator = header[3:4]
    fields = header.split(separator) + _BLANKS
    marks = fields[1]
    if len(marks) not in {4, 5} or len({separator, *marks}) != len(marks) + 1 or separator.isalnum() or not separator:
        fault = Fault(Quarantine.MALFORMED, "The delimiters in MSH-1 and MSH-2 can't be read.")
        separator, marks = "|", "^~\\&"
    grammar = _grammar(separator + marks, encoding)
    fault = fault or _refused(raw, fields, grammar, lab)
    reader = _MessageReader(grammar, lab, line)
    reader.read(lines)
    fault = fault or reader.fault
    rows = reader.rows
    if not rows:
        fault = fault or Fault(Quarantine.MALFORMED, "The message holds no order and no result.")
        rows.append(BLANK_ROW._replace(position=line, row_key=str(line)))
    if "\ufffd" in text:
        warnings = (*warnings, "The text holds replacement characters: it was damaged before it was sent.")
        rows = [held_if_damaged(row) for row in rows]
    return LabMessage(
        lab.lab,
        Form.HL7,
        grammar.first(fields[9]),
        hashlib.sha256(raw).digest(),
        number,
        line,
        grammar.time(fields[6]),
        grammar.text(fields[10]),
        tuple(rows),
        fault,
        warnings,
    )


def _refused(raw: bytes, fields: list[str], grammar: _Grammar, lab: LabMap) -> Fault | None:
    if has_control_bytes(raw):
        return Fault(Quarantine.MALFORMED, "The message holds control characters.")
    if _sender(fields[2], fields[3], grammar.component) not in lab.senders:
        return Fault(Quarantine.UNKNOWN_SENDER, f"The sender in MSH-3 and MSH-4 is not known for {lab.lab}.")
    if fields[8].split(grammar.component)[:2] != ["ORU", "R01"]:
        return Fault(Quarantine.UNSUPPORTED_FORMAT, "The message is not a result report (MSH-9 is not ORU^R01).")
    return None


class _Person(NamedTuple):
    """What a PID says. The fields are LabRow's."""

    kit_refs: tuple[str, ...]
    other_refs: tuple[str, ...]
    """Ids without a type: a kit id only where the order names none."""
    family_name: str
    dob: str
    nhs_number: str


class _MessageReader:
    """Walks the segments of one message once and builds its rows."""

    __slots__ = ("_grammar", "_lab", "_line", "_notes", "_order", "_order_no", "_person", "fault", "rows")

    def __init__(self, grammar: _Grammar, lab: LabMap, line: int) -> None:
        self._grammar = grammar
        self._lab = lab
        self._line = line
        self._person: _Person | None = None
        self._notes: list[str] = []
        """About the person, or about the whole message."""
        self._order: _Order | None = None
        self._order_no = 0
        self.fault: Fault | None = None
        self.rows: list[LabRow] = []

    def read(self, lines: Sequence[str]) -> None:  # noqa: C901, PLR0912 - one branch a segment
        """Reads the segments after MSH. A note belongs to what stands before it."""
        separator = self._grammar.field
        orc: Sequence[str] = _BLANKS
        notes = self._notes
        about_all: list[str] = notes
        has_ended = False
        for number in range(1, len(lines)):
            segment = lines[number]
            name = segment[:3]
            if name == "OBX" and segment[3:4] == separator and not has_ended:
                if self._order is None:
                    self._order = _Order(_BLANKS, (), self._line + number, [])
                notes = []
                self._order.rows.append((self._result(segment, self._line + number), notes))
                continue
            if not segment or segment.isspace():
                continue
            if segment[3:4] != separator and (len(segment) != 3 or not _NAME.fullmatch(name)):  # noqa: PLR2004
                self._malformed("A line is no segment: a line break stands inside a field.")
            elif has_ended and name not in _ENVELOPE:
                self._malformed("A segment follows the batch trailer.")
            elif name == "NTE":
                fields = segment.split(separator, 4)
                if len(fields) > 3 and fields[3]:  # noqa: PLR2004
                    parts = fields[3].split(self._grammar.repeat)
                    notes.append("\n".join(self._grammar.text(part) for part in parts).strip())
            elif name == "ORC":
                self._close_order()
                orc = [*segment.split(separator), *_BLANKS]
                notes = []
            elif name == "OBR":
                self._close_order()
                self._order_no += 1
                if orc is _BLANKS:
                    notes = []  # else they are the notes that stood after ORC
                self._order = _Order(orc, [*segment.split(separator), *_BLANKS], self._line + number, notes)
                orc = _BLANKS
            elif name == "SPM":
                if self._order is not None:
                    self._order.specimens.append([*segment.split(separator), *_BLANKS])
                    notes = self._order.notes
            elif name == "PID":
                self._close_order()
                orc = _BLANKS
                self._person = self._read_person([*segment.split(separator), *_BLANKS])
                self._notes = notes = list(about_all)
            elif name in _ENVELOPE:
                has_ended = True
            elif name not in _SKIPPED and name[0] != "Z":
                self._malformed("A segment is not known: a line break may stand inside a field.")
        self._close_order()

    def _malformed(self, detail: str) -> None:
        self.fault = self.fault or Fault(Quarantine.MALFORMED, detail)

    def _read_person(self, pid: Sequence[str]) -> _Person:
        """PID-2, 3, 5 and 7. Of PID-3 the repetitions that are kit ids by type or authority, and the NHS number."""
        grammar, lab = self._grammar, self._lab
        kits: list[str] = []
        untyped: list[str] = []
        nhs_number = ""
        for repetition in pid[3].split(grammar.repeat):
            parts = [grammar.text(part).strip() for part in repetition.split(grammar.component)] + [""] * 5
            identifier, authority, kind = parts[0], parts[3].split(grammar.sub)[0], parts[4]
            if not identifier or identifier == _NULL:
                continue
            if kind == "NHS":
                nhs_number = "".join(identifier.split()).replace("-", "")
            elif fold_token(kind) in lab.kit_id_types or (not kind and fold_token(authority) in lab.kit_id_authorities):
                kits.append(identifier)
            elif not kind and not authority:
                untyped.append(identifier)
        return _Person(
            tuple(kits),
            tuple(untyped or filter(None, [grammar.first(pid[2])])),
            grammar.first(pid[5]),
            grammar.first(pid[7]),
            nhs_number,
        )

    def _result(self, segment: str, line: int) -> tuple[object, ...]:
        """What one OBX says: the first twelve fields of a LabRow."""
        grammar = self._grammar
        f = segment.split(grammar.field)
        if len(f) < 20:  # noqa: PLR2004
            f += _BLANKS
        kind = f[2].strip()
        raw, codes = grammar.value(f"{kind}{grammar.field}{f[5]}")
        at14, at19 = f[14] and grammar.time(f[14]), f[19] and grammar.time(f[19])
        is_sampling = self._lab.obx14_is_sampling_time
        return (
            line,
            str(line),
            grammar.code(f[3]),
            f[4] and grammar.text(f[4]).strip(),
            kind,
            raw,
            codes,
            f[6],
            grammar.flags(f[8]),
            f[11].strip(),
            at19 if is_sampling else at19 or at14,
            at14 if is_sampling else "",
        )

    def _close_order(self) -> None:
        """Builds the rows of the order that ends here; an order without results is one row too."""
        order, self._order = self._order, None
        if order is None:
            return
        grammar, person, fault = self._grammar, self._person, None
        obr, orc = order.obr, order.orc
        if not obr:
            fault = Fault(Quarantine.MALFORMED, "The result stands without an order (OBR).")
            obr = _BLANKS
        panel = grammar.code(obr[4])
        if not order.rows:
            blank = (order.line, str(order.line), panel, "", ORDER_ONLY, (), (), "", (), obr[25].strip(), "", "")
            order.rows.append((blank, []))
        kits = [ref for ref in (grammar.first(obr[2]), grammar.first(orc[2])) if ref]
        if person:
            kits += person.kit_refs or (() if kits else person.other_refs)
        sites = grammar.specimen(obr[15])
        tubes: list[str] = []
        rejects: list[str] = []
        collected, received = obr[7], obr[14]
        for specimen in order.specimens:
            sites += grammar.specimen(specimen[4]) + grammar.specimen(specimen[8])
            tubes += filter(None, [grammar.first(specimen[2])])
            rejects += filter(None, [grammar.first(specimen[21]), grammar.first(specimen[24])])
            collected = collected or specimen[17].split(grammar.component)[0]
            received = received or specimen[18]
        tail = (
            fault,
            self._order_no if order.obr else 0,
            grammar.first(obr[3]) or grammar.first(orc[3]),
            panel,
            tuple(dict.fromkeys(kits)),
            tuple(tubes),
            sites,
            obr[25].strip(),
            grammar.time(collected),
            grammar.time(received),
            grammar.time(obr[22]),
            tuple(order.notes),
            grammar.text(f"{obr[26]}{obr[29]}"),
            tuple(rejects),
            "",
            person is not None,
            *((person.family_name, person.dob, person.nhs_number) if person else ("", "", "")),
            tuple(self._notes),
        )
        # tuple.__new__ is LabRow._make without its second look at the length, which mypy can't see either.
        self.rows += [_new_row(LabRow, (*head, tuple(notes), *tail)) for head, notes in order.rows]
