"""HL7 v2.3 to 2.5.1 ORU^R01, read by splitting: one small reader for the bulk path.

Yields text and no meaning. Held to the libraries `hl7` and `hl7kit` in the tests. Fields and their
sources: lab-messages.md section 2.2; groups: 2.1; escapes and encodings: 2.5.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Final, NamedTuple

from integrations.lab.framing import BrokenFile, decode, has_control_bytes, hl7_messages
from integrations.lab.rows import BLANK_ROW, held_if_damaged
from models.rules.kit import normalise_kit_code, normalise_tube_code
from models.rules.lab import ASIDE, ORDER_ONLY, Answer, Coded, Fault, Form, LabMap, LabMessage, LabRow, fold_token
from models.rules.vocabulary import Quarantine

_SKIPPED: Final = frozenset(
    [
        "SFT",
        "UAC",
        "PD1",
        "NK1",
        "PV1",
        "PV2",
        "TQ1",
        "TQ2",
        "CTD",
        "FT1",
        "CTI",
        "DSC",
        "ROL",
        "PRT",
        "SAC",
        "ARV",
        "GT1",
        "IN1",
        "IN2",
        "AL1",
        "DG1",
        "SID",
        "OH1",
        "OH2",
        "OH3",
        "OH4",
    ]
)
"""Segments that may stand in an ORU and hold nothing we read."""

_ENVELOPE: Final = frozenset({"FHS", "BHS", "BTS", "FTS"})
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}", re.ASCII)
_OFFSET: Final = re.compile(r"[+-]?\d{4}", re.ASCII)
_PRECISION: Final = re.compile(r"[DHMSdhms]|[+-]?(?:0\d|1[0-4])[0-5]\d", re.ASCII)
"""What may follow a day of birth: that it is precise to the day at least, or an offset."""
_AS_PRINTED: Final = re.compile(r"\w{3}-\w{3}-\w{4}(?:-\d)?", re.ASCII)
_NULL: Final = '""'
_CODED_TYPES: Final = frozenset({"CE", "CWE", "CNE", "CF"})
_BLANKS: Final = [""] * 30
"""What is missing at the end of a segment is blank."""

_CANCELS: Final = frozenset({"CA", "CR", "DC", "DR", "OC", "OD"})
_CANCELLED: Final = frozenset({"CA", "DC"})
"""ORC-1 and ORC-5 of an order that was cancelled or discontinued (HL7 tables 0119, 0038)."""

_CANCELLED_ORDER: Final = Fault(
    Quarantine.UNKNOWN_STATUS, "The order is cancelled (ORC-1, ORC-5), and the row is a final result."
)
_ANOTHER_TUBE: Final = Fault(
    Quarantine.TUBE_MISMATCH, "The patient's ids name a tube of the kit, and the orders only others."
)

_new_row: Final = tuple.__new__
_CACHE: Final = 16_384

_HEADER: Final = re.compile(rb"(?:\A|[\r\n\x0b\xbf])(MSH[^\r\n]*)[\r\n]")
_ENVELOPE_HEADER: Final = re.compile(rb"(?:\A|[\r\n\xbf])([FB]HS[^\r\n]*)[\r\n]")

ANSWERS: Final = frozenset({"ACK", "ORL"})
"""Kinds of message (MSH-9.1) with which a lab answers a request of ours. One with results in it is none."""

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
        self.specimen = lru_cache(maxsize=_CACHE)(self._specimen)
        self.result = lru_cache(maxsize=_CACHE)(self._result)

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

    def every(self, raw: str) -> tuple[str, ...]:
        """`first` of each repetition: of a field that names something and should not repeat, every name counts."""
        if self.repeat not in raw:
            only = self.first(raw)
            return (only,) if only else ()
        return tuple(filter(None, map(self.first, raw.split(self.repeat))))

    def reasons(self, raw: str) -> tuple[str, ...]:
        """The code of each repetition of a coded field, or its text where it has no code."""
        told = (self.code(one) for one in raw.split(self.repeat)) if raw else ()
        return tuple(codes[0].code or codes[0].text for codes in told if codes)

    def birth_date(self, raw: str) -> str:
        """PID-7 without its degree of precision. Two dates are both told, which is nobody's birthday."""
        raw = raw.rstrip(f"{self.repeat}{self.component} ")
        if self.repeat not in raw and self.component not in raw:
            return self.first(raw)
        days = set()
        for one in raw.split(self.repeat):
            day, *more = [part.strip() for part in one.split(self.component)]
            more = [part for part in more if part]
            if not more or (len(more) == 1 and _PRECISION.fullmatch(more[0])):
                days.add(self.text(day))
            else:
                days.update([day, *more])
        return " and ".join(sorted(days)) if len(days) > 1 else days.pop()

    def time(self, raw: str) -> str:
        """A time; an offset spelled as a second component is put where it belongs."""
        if self.component not in raw:
            return "" if raw == _NULL else raw
        moment, rest = raw.split(self.component, 1)
        return f"{moment}^{rest}" if _OFFSET.fullmatch(rest) else moment

    def _code(self, raw: str) -> tuple[Coded, ...]:
        """A coded element with its alternates; blank ones are left out.

        The original text (CWE.9) is another text of the first code; 10 to 12 are a second alternate.
        """
        parts = [self.text(part).strip() for part in raw.split(self.component)] + [""] * 12
        code, text, system, other_code, other_text, other_system = ("" if p == _NULL else p for p in parts[:6])
        all_of_it = [Coded(system, code, text), Coded(other_system, other_code, other_text)]
        original, third_code, third_text, third_system = ("" if p == _NULL else p for p in parts[8:12])
        if original:
            all_of_it.append(Coded(system, code, original))
        all_of_it.append(Coded(third_system, third_code, third_text))
        return tuple(coded for coded in all_of_it if coded.code or coded.text)

    def _result(  # noqa: PLR0917 - a key of the memory, by position
        self, kind: str, test: str, sub_id: str, value: str, units: str, flags: str, status: str
    ) -> tuple[object, ...]:
        """What an OBX says apart from its times: LabRow's fields from test_codes to row_status_raw."""
        kind = kind.strip()
        repetitions = value.split(self.repeat) if value else []
        return (
            self._code(test),
            self.text(sub_id).strip(),
            kind,
            tuple(self.text(one) for one in repetitions),
            tuple(self._code(one) for one in repetitions) if kind in _CODED_TYPES else (),
            units,
            self._flags(flags),
            status.strip(),
        )

    def _flags(self, raw: str) -> tuple[str, ...]:
        """Every code and every word of all repetitions: all of them may contradict."""
        told = [coded for one in raw.split(self.repeat) for coded in self.code(one)] if raw else []
        return tuple(filter(None, (word for coded in told for word in (coded.code, coded.text))))

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
def _grammar(separator: str, marks: str, encoding: str) -> _Grammar | None:
    """The grammar of MSH-1 and MSH-2 (four marks, or five with the truncation mark), or None if they make none."""
    if len(marks) not in {4, 5} or len({separator, *marks}) != len(marks) + 1 or separator.isalnum():
        return None
    return _Grammar(separator + marks, encoding)


def read(chunks: Iterable[bytes], lab: LabMap, skip: int = 0) -> Iterator[LabMessage]:
    """Every message of a file after the first `skip`, in order. Raises BrokenFile beyond the size caps."""
    number = 0
    for line, raw in hl7_messages(chunks):
        if raw.startswith(b"MSH"):
            if number >= skip:
                yield _message(raw, line, number, lab)
            number += 1


def sender(head: bytes) -> tuple[str, str] | None:
    """(MSH-3, MSH-4), folded, of the first message in these bytes, or None where there is no whole header.

    A batch without a message has its sender in the same fields of FHS or BHS.
    """
    found = _HEADER.search(head) or _ENVELOPE_HEADER.search(head)
    if not found or len(found[1]) < 9:  # noqa: PLR2004
        return None
    header = found[1].decode("utf-8", "replace")
    fields = header.split(header[3:4])
    if len(fields) < 4 or not fields[1]:  # noqa: PLR2004
        return None
    return _sender(fields[2], fields[3], fields[1][0])


@lru_cache(maxsize=256)
def _sender(application: str, facility: str, component: str) -> tuple[str, str]:
    return fold_token(application.split(component, maxsplit=1)[0]), fold_token(facility.split(component, maxsplit=1)[0])


def answer_of(segments: Iterable[str], separator: str) -> Answer:
    """MSA-1 and MSA-2 among the segments of a message that answers one of ours; both '' where there is no MSA."""
    for segment in segments:
        fields = [*segment.split(separator), "", ""]
        if fields[0] == "MSA":
            return Answer(fields[1].strip(), fields[2].strip())
    return Answer("", "")


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
            Fault(Quarantine.ENCODING, "The character set in MSH-18 is not one that is read: send UNICODE UTF-8."),
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

    __slots__ = ("line", "notes", "notes_of_row", "obr", "orc", "rows", "specimens")

    def __init__(self, orc: Sequence[str], obr: Sequence[str], line: int, notes: list[str]) -> None:
        self.orc = orc
        self.obr = obr
        """Empty for results that stand without an order."""
        self.line = line
        self.notes = notes
        self.rows: list[tuple[object, ...]] = []
        """Of each row the fields of LabRow before its notes."""
        self.notes_of_row: dict[int, list[str]] = {}
        self.specimens: list[Sequence[str]] = []


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
    fields = header.split(separator, 18) if separator else [header]
    fields += _BLANKS[len(fields) : 18]
    grammar = _grammar(separator, fields[1], encoding)
    if grammar is None:
        fault = Fault(Quarantine.MALFORMED, "The delimiters in MSH-1 and MSH-2 can't be read.")
        grammar = _Grammar("|^~\\&", encoding)
    kind = fields[8].split(grammar.component)
    is_answer = kind[0] in ANSWERS and not any(segment.startswith("OBX") for segment in lines)
    fault = fault or _refused(raw, fields, grammar, lab)
    if fault is None and kind[:2] != ["ORU", "R01"] and not is_answer:
        fault = Fault(Quarantine.UNSUPPORTED_FORMAT, "The message is not a result report (MSH-9 is not ORU^R01).")
    answer: Answer | None = None
    rows: list[LabRow]
    if is_answer:
        said = answer_of(lines, separator)
        if not said.about or not (said.is_yes or said.is_no):
            fault = fault or Fault(Quarantine.MALFORMED, "The answer does not say to what (MSA-2), or what (MSA-1).")
        answer = said if fault is None else None
        rows = [BLANK_ROW._replace(position=line, row_key=str(line), value_type=ASIDE)]
    else:
        reader = _MessageReader(grammar, lab, line)
        reader.read(lines)
        fault, rows = fault or reader.fault, reader.rows
    if not rows:
        fault = fault or Fault(Quarantine.MALFORMED, "The message holds no order and no result.")
        rows.append(BLANK_ROW._replace(position=line, row_key=str(line)))
    if fault is None and not raw.isascii() and "\ufffd" in text:
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
        answer,
    )


def _refused(raw: bytes, fields: list[str], grammar: _Grammar, lab: LabMap) -> Fault | None:
    if has_control_bytes(raw):
        return Fault(Quarantine.MALFORMED, "The message holds control characters.")
    if _sender(fields[2], fields[3], grammar.component) not in lab.senders:
        return Fault(Quarantine.UNKNOWN_SENDER, f"The sender in MSH-3 and MSH-4 is not known for {lab.lab}.")
    return None


_NONE: Final = frozenset[str]()


class _Person(NamedTuple):
    """What a PID says. The fields are LabRow's."""

    kit_refs: tuple[str, ...]
    other_refs: tuple[str, ...]
    """Ids without a type: a kit id only where the order names none."""
    tubes: frozenset[str]
    """Tubes among ids of no kit's type: labels on a patient, which the orders must know."""
    spelt_like_kits: tuple[str, ...]
    """Of all other ids, PID-2 too, those with the check character of a kit or tube id: their kits must agree."""
    family_name: str
    dob: str
    nhs_number: str


def _is_number(identifier: str) -> bool:
    """One of digits alone is another's: an NHS or hospital number may have our check character by chance."""
    return identifier.replace(" ", "").replace("-", "").isdigit()


def _kit_of(identifier: str) -> str | None:
    """The kit that an id of a person is spelt like, or None: a tube's label on a patient names its kit."""
    if _is_number(identifier):
        return None
    tube = normalise_tube_code(identifier)
    return tube[:-1] if tube else normalise_kit_code(identifier)


def _tube_of(identifier: str) -> str | None:
    return None if _is_number(identifier) else normalise_tube_code(identifier)


class _MessageReader:
    """Walks the segments of one message once and builds its rows."""

    def __init__(self, grammar: _Grammar, lab: LabMap, line: int) -> None:
        self._grammar = grammar
        self._lab = lab
        self._line = line
        self._person: _Person | None = None
        self._about_all: list[str] = []
        """Notes before the first patient."""
        self._about_person = self._about_all
        self._notes: list[str] | None = self._about_all
        self._orc: Sequence[str] = _BLANKS
        self._order: _Order | None = None
        self._order_no = 0
        self._rows_before = 0
        """How many rows stood before this patient."""
        self._has_ended = False
        self.fault: Fault | None = None
        self.rows: list[LabRow] = []

    def read(self, lines: Sequence[str]) -> None:
        """Reads the segments after MSH. A note belongs to what stands before it."""
        grammar = self._grammar
        field, component = grammar.field, grammar.component
        is_sampling = self._lab.obx14_is_sampling_time
        line, taken = self._line, self._TAKEN
        for segment in lines[1:]:
            line += 1
            f = segment.split(field)
            if f[0] == "OBX" and not self._has_ended:
                if len(f) < 20:  # noqa: PLR2004
                    f += _BLANKS[len(f) : 20]
                at14, at19 = f[14], f[19]
                if component in at14 or at14 == _NULL:
                    at14 = grammar.time(at14)
                if component in at19 or at19 == _NULL:
                    at19 = grammar.time(at19)
                times: tuple[object, ...] = (at19, at14) if is_sampling else (at19 or at14, "")
                order = self._order
                if order is None:
                    order = self._order = _Order(_BLANKS, (), line, [])
                told = grammar.result(f[2], f[3], f[4], f[5], f[6], f[8], f[11])
                order.rows.append((line, str(line)) + told + times)  # noqa: RUF005 - twice as fast as unpacking
                self._notes = None
                continue
            take = taken.get(f[0])
            if take is None or self._has_ended:
                self._other(segment, line)
            else:
                take(self, f, line)
        self._close_order()
        self._close_person()

    def _other(self, segment: str, line: int) -> None:
        """Any segment that holds nothing we read, or should not stand here."""
        name = segment[:3]
        if not segment or segment.isspace():
            return
        if name in _ENVELOPE and not segment[3:4].isalnum():
            self._has_ended = True  # a trailer has its own delimiters, not those of the message before it
        elif segment[3:4] != self._grammar.field and (segment != name or not _NAME.fullmatch(name)):
            self._malformed(f"Line {line} is no segment: a line break stands inside a field.")
        elif self._has_ended:
            self._malformed(f"Line {line} follows the batch trailer.")
        elif name not in _SKIPPED and name[0] != "Z":
            self._malformed(f"The segment in line {line} is not known: a line break may stand inside a field.")

    def _take_orc(self, orc: list[str], _: int) -> None:
        self._close_order()
        self._orc = orc + _BLANKS[:6]
        self._notes = []

    def _take_obr(self, obr: list[str], line: int) -> None:
        self._close_order()
        self._order_no += 1
        # With an ORC before it the notes in hand are those that stood after ORC: about this order.
        notes = [] if self._orc is _BLANKS or self._notes is None else self._notes
        if len(obr) < 30:  # noqa: PLR2004
            obr += _BLANKS[len(obr) : 30]
        self._order = _Order(self._orc, obr, line, notes)
        self._orc = _BLANKS
        self._notes = notes

    def _take_nte(self, nte: list[str], _: int) -> None:
        if len(nte) > 3 and nte[3]:  # noqa: PLR2004
            parts = nte[3].split(self._grammar.repeat)
            self._notes_in_hand().append("\n".join(self._grammar.text(part) for part in parts).strip())

    def _take_pid(self, pid: list[str], _: int) -> None:
        self._close_order()
        self._close_person()
        self._orc = _BLANKS
        self._person = self._read_person(pid + _BLANKS[:8])
        self._about_person = self._notes = list(self._about_all)

    def _take_spm(self, spm: list[str], _: int) -> None:
        if self._order is not None:
            self._order.specimens.append(spm + _BLANKS[:25])
            self._notes = self._order.notes

    def _notes_in_hand(self) -> list[str]:
        """Where a note belongs now; None in hand means the last result."""
        if self._notes is None:
            assert self._order is not None, "after a result there is its order"
            return self._order.notes_of_row.setdefault(len(self._order.rows) - 1, [])
        return self._notes

    def _malformed(self, detail: str) -> None:
        self.fault = self.fault or Fault(Quarantine.MALFORMED, detail)

    def _read_person(self, pid: Sequence[str]) -> _Person:
        """PID-2, 3, 5 and 7. Of PID-3 the repetitions that are kit ids by type or authority, and the NHS number."""
        grammar, lab = self._grammar, self._lab
        kits: list[str] = []
        untyped: list[str] = []
        others: list[str] = []
        nhs_number = ""
        for repetition in pid[3].split(grammar.repeat):
            parts = repetition.split(grammar.component, 5) + _BLANKS[:5]
            identifier, authority, kind = grammar.first(parts[0]), grammar.first(parts[3]), grammar.first(parts[4])
            if not identifier:
                continue
            if kind == "NHS":
                nhs_number = "".join(identifier.split()).replace("-", "")
            elif fold_token(kind) in lab.kit_id_types or (not kind and fold_token(authority) in lab.kit_id_authorities):
                kits.append(identifier)
            elif not kind and not authority:
                untyped.append(identifier)
            elif _AS_PRINTED.fullmatch(identifier):  # without hyphens one in a hundred hospital numbers would pass
                others.append(identifier)
        if untyped or pid[2]:
            others += [*untyped, *grammar.every(pid[2])]
        return _Person(
            tuple(kits),
            tuple(untyped or grammar.every(pid[2])[:1]),
            frozenset(filter(None, map(_tube_of, others))) if others else _NONE,
            tuple(filter(None, map(_kit_of, others))) if others else (),
            grammar.first(pid[5]),
            grammar.birth_date(pid[7]),
            nhs_number,
        )

    def _close_person(self) -> None:
        """Compares a tube among a patient's ids with those of the orders: it need not be every order's, but one's."""
        if self._person and self._person.tubes:
            own = self.rows[self._rows_before :]
            ids = {each for row in own for each in row.kit_refs + row.tube_refs}
            ordered = set(filter(None, map(normalise_tube_code, ids)))
            if ordered and not ordered & self._person.tubes:
                self.rows[self._rows_before :] = [row._replace(fault=row.fault or _ANOTHER_TUBE) for row in own]
        self._rows_before = len(self.rows)

    def _close_order(self) -> None:
        """Builds the rows of the order that ends here; an order without results is one row too."""
        order = self._order
        if order is None:
            return
        self._order = None
        grammar, person, fault = self._grammar, self._person, None
        obr, orc = order.obr, order.orc
        if not obr:
            fault = Fault(Quarantine.MALFORMED, "The result stands without an order (OBR).")
            obr = _BLANKS
        panel = grammar.code(obr[4])
        status = obr[25].strip()
        if not order.rows:
            order.rows.append((order.line, str(order.line), panel, "", ORDER_ONLY, (), (), "", (), status, "", ""))
        first, time = grammar.first, grammar.time
        kits = [*grammar.every(obr[2]), *grammar.every(orc[2])]
        if person:
            kits += person.kit_refs or (() if kits else person.other_refs)
            kits += person.spelt_like_kits
        sites = grammar.specimen(obr[15])
        tubes: tuple[str, ...] = ()
        rejects: tuple[str, ...] = ()
        collected, received = obr[7], obr[14]
        for specimen in order.specimens:
            sites += grammar.specimen(specimen[4]) + grammar.specimen(specimen[8])
            tubes += grammar.every(specimen[2])
            rejects += grammar.reasons(specimen[21]) + grammar.reasons(specimen[24])
            collected = collected or specimen[17].split(grammar.component, 1)[0]
            received = received or specimen[18]
        tail = (
            fault,
            self._order_no if order.obr else 0,
            first(obr[3]) or first(orc[3]),
            panel,
            tuple(dict.fromkeys(kits)),
            tubes,
            sites,
            status,
            time(collected),
            time(received),
            time(obr[22]),
            tuple(order.notes),
            grammar.text(f"{obr[26]} {obr[29]}") if obr[26] or obr[29] else "",
            rejects,
            "",
            person is not None,
            person.family_name if person else "",
            person.dob if person else "",
            person.nhs_number if person else "",
            tuple(self._about_person),
        )
        # Adding tuples and tuple.__new__ (LabRow._make without its second look at the length) halve the cost of a row.
        plain = ((), *tail)
        notes = order.notes_of_row
        rows = [
            _new_row(LabRow, head + ((tuple(notes[row]), *tail) if row in notes else plain))
            for row, head in enumerate(order.rows)
        ]
        if status != "X" and (orc[1].strip() in _CANCELS or orc[5].strip() in _CANCELLED):
            rows = [
                row._replace(fault=row.fault or _CANCELLED_ORDER) if row.row_status_raw == "F" else row for row in rows
            ]
        self.rows += rows

    _TAKEN: ClassVar[Mapping[str, Callable[["_MessageReader", list[str], int], None]]] = {
        "PID": _take_pid,
        "ORC": _take_orc,
        "OBR": _take_obr,
        "SPM": _take_spm,
        "NTE": _take_nte,
    }
    """Segments that are read, beside OBX."""
