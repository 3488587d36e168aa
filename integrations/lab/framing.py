"""Bytes to messages, and the verdict on a file as a whole. Knows nothing of fields or findings.

Everything here streams: a file of any size needs the memory of one chunk and one message.
Source of the rules: lab-messages.md sections 2.5, 2.6 and 4.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from models.rules.lab import Envelope, Fault, Form, LabMap
from models.rules.vocabulary import Quarantine

MAX_LINE_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 16 << 20
MAX_FILE_BYTES: Final = 4 << 30
_CHUNK: Final = 1 << 20

_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_FOREIGN: Final = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or spreadsheet"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"\x1f\x8b", "a compressed file"),
    (b"UNA", "EDIFACT"),
    (b"UNB", "EDIFACT"),
    (b"<", "XML or HTML"),
)
_C0: Final = bytes(byte for byte in range(0x20) if byte not in b"\t\r\n")


class Completeness(StrEnum):
    """Whether the file itself shows that nothing of it is missing."""

    PROVEN = "proven"
    UNPROVEN = "unproven"


class FileVerdict(NamedTuple):
    """What is known of a file before any of its rows is acted on.

    With `held`, nothing of the file may be used. `expected` and `seen` count messages (HL7) or rows
    (CSV); `expected` is None where the file promises no number. `sha256` is of the bytes as they came.
    """

    held: Fault | None
    expected: int | None
    seen: int
    control_id: str
    sha256: bytes
    size_bytes: int
    completeness: Completeness
    warnings: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the lab's own count or control file proves that nothing is missing."""
        return self.completeness is Completeness.PROVEN


class BrokenFile(Exception):  # noqa: N818 - it holds the fault; it is not one of our errors
    """The file can't be read to its end. Carries the fault that holds it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


class Meter:
    """Passes chunks on and counts, hashes and remembers the last byte. May be asked for the head first."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = self._measured(chunks)
        self._head = b""
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.last = b""

    def _measured(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if chunk:
                self._hash.update(chunk)
                self.size_bytes += len(chunk)
                self.last = chunk[-1:]
                if self.size_bytes > MAX_FILE_BYTES:
                    raise BrokenFile(Fault(Quarantine.MALFORMED, "The file is larger than 4 GiB."))
                yield chunk

    def head(self, size_bytes: int) -> bytes:
        """The first bytes, which iterating then gives again."""
        while len(self._head) < size_bytes and (chunk := next(self._chunks, b"")):
            self._head += chunk
        return self._head

    def __iter__(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        yield from self._chunks

    def drain(self) -> None:
        """Reads on to the end, so that size and hash are of the whole file."""
        for _ in self:
            pass

    @property
    def sha256(self) -> bytes:
        """The hash of what has been read so far."""
        return self._hash.digest()


def foreign_format(head: bytes) -> Fault | None:
    """Why a file can't be one of ours, seen from its first bytes; None if it may be."""
    if not head.removeprefix(_BOM).strip():
        return Fault(Quarantine.EMPTY_FILE, "The file is empty.")
    if head.startswith(_OTHER_BOMS):
        return Fault(Quarantine.ENCODING, "The file is UTF-16; UTF-8 or the agreed encoding is needed.")
    start = head.removeprefix(_BOM).lstrip()
    for mark, name in _FOREIGN:
        if start.startswith(mark):
            return Fault(Quarantine.UNSUPPORTED_FORMAT, f"The file is {name}, which is not read.")
    return None


def form_of(head: bytes) -> Form:
    """HL7, FHIR or else a table, by the first characters of the content."""
    start = head.removeprefix(_BOM).lstrip(b"\r\n\t \x0b")
    if start[:3] in {b"MSH", b"FHS", b"BHS"}:
        return Form.HL7
    return Form.FHIR if start[:1] in {b"{", b"["} else Form.CSV


def has_control_bytes(raw: bytes) -> bool:
    """Whether a NUL or another C0 byte stands in text; tab and line ends are text."""
    return len(raw.translate(None, _C0)) != len(raw)


def decode(raw: bytes, encoding: str, fallback: str) -> tuple[str, str]:
    """(text, warning). Strict: the agreed encoding, then the agreed fallback, which is flagged; never a guess.

    Raises BrokenFile(ENCODING) where neither fits.
    """
    try:
        return raw.decode(encoding), ""
    except UnicodeDecodeError:
        pass
    if fallback and fallback != encoding:
        try:
            return raw.decode(fallback), f"not {encoding}: read as {fallback}"
        except UnicodeDecodeError:
            pass
    also = f" nor {fallback}" if fallback not in {"", encoding} else ""
    raise BrokenFile(Fault(Quarantine.ENCODING, f"The text is not {encoding}{also}."))


# ── Lines ────────────────────────────────────────────────────────────────────────────────────


def with_equal_line_ends(chunks: Iterable[bytes], end: bytes) -> Iterator[bytes]:
    """The same bytes with CRLF, CR and LF all written as `end`, without a leading UTF-8 BOM."""
    held = b""
    is_first = True
    for whole in chunks:
        for start in range(0, len(whole), _CHUNK):
            chunk = held + whole[start : start + _CHUNK]
            if is_first and len(chunk) < len(_BOM):
                held = chunk
                continue
            if is_first:
                chunk, is_first = chunk.removeprefix(_BOM), False
            # A CR at the very end may be half of a CRLF: it waits for what follows.
            held = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk[: len(chunk) - len(held)].replace(b"\r\n", b"\n")
            yield chunk.replace(b"\r", b"\n") if end == b"\n" else chunk.replace(b"\n", b"\r")
    if held:
        yield held.replace(b"\r", end)


def hl7_messages(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(line of the first segment, bytes) of each message, segments ended by CR; MLLP framing bytes are borders.

    What stands before the first MSH comes first, with its line, and may be b''. Envelope segments stay
    at the end of the message before them. Raises BrokenFile for a message beyond the size cap.
    """
    buffer = b"\r"  # as if a line ended before the file: then every MSH is found the same way
    line = 0
    start = b""
    for chunk in with_equal_line_ends(chunks, b"\r"):
        buffer += chunk
        if b"\x0b" in buffer or b"\x1c" in buffer:
            buffer = buffer.replace(b"\r\x0b", b"\r").replace(b"\x1c\r", b"\r")
        *done, buffer = buffer.split(b"\rMSH")
        for part in done:
            yield line or 1, start + part + b"\r" if start else part[1:] + b"\r" * (len(part) > 1)
            line += part.count(b"\r") + 1
            start = b"MSH"
        if len(buffer) > MAX_MESSAGE_BYTES:
            raise BrokenFile(Fault(Quarantine.MALFORMED, "A message is larger than 16 MiB."))
    buffer = buffer.removesuffix(b"\x1c")
    yield line or 1, start + buffer if start else buffer[1:]


_ENVELOPE_LINE: Final = re.compile(rb"(?:\A|(?<=\r))([BF][HT]S)([^\r]*)")


_ENVELOPE_MARK: Final = re.compile(rb"\r[BF][HT]S")


class _Envelopes:
    """Follows FHS, BHS, BTS and FTS through a file and counts."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.control_id = ""
        self.promised: int | None = None
        self.messages = 0
        self.bare = 0
        self.batches = 0
        self.file_is_open = False
        self.file_is_closed = False
        self.batch_is_open = False
        self.in_batch = 0

    def hold(self, detail: str) -> None:
        self.fault = self.fault or Fault(Quarantine.INCOMPLETE_FILE, detail)

    def message(self) -> None:
        self.messages += 1
        self.in_batch += 1
        if not self.batch_is_open:
            self.bare += 1
        if self.file_is_closed:
            self.hold("A message follows the file's trailer (FTS).")

    def segment(self, name: bytes, line: bytes) -> None:
        """One envelope segment; `line` is what follows its name."""
        fields = line[1:].split(line[:1]) if line else []
        if name in {b"FHS", b"BHS"} and not self.control_id and len(fields) > 9:  # noqa: PLR2004
            self.control_id = fields[9].decode("ascii", "replace").strip()
        if name == b"FHS":
            self._open_file()
        elif name == b"BHS":
            self._open_batch()
        elif name == b"BTS":
            self._close_batch(_count(fields))
        else:
            self._close_file(_count(fields))

    def _open_file(self) -> None:
        if self.file_is_open or self.file_is_closed or self.messages:
            self.hold("A second file header (FHS) stands inside the file.")
        self.file_is_open = True

    def _open_batch(self) -> None:
        if self.batch_is_open:
            self.hold("A batch has no trailer (BTS).")
        self.batch_is_open, self.in_batch = True, 0
        self.batches += 1

    def _close_batch(self, promised: int | None) -> None:
        if not self.batch_is_open:
            self.hold("A batch trailer (BTS) stands without its header.")
        elif promised is None:
            self.hold("The batch trailer (BTS-1) does not say how many messages there are.")
        elif promised != self.in_batch:
            self.hold(f"The batch trailer promises {promised} messages; there are {self.in_batch}.")
        self.promised = (self.promised or 0) + (promised or 0)
        self.batch_is_open = False

    def _close_file(self, promised: int | None) -> None:
        if not self.file_is_open:
            self.hold("A file trailer (FTS) stands without its header.")
        elif promised is None:
            self.hold("The file trailer (FTS-1) does not say how many batches there are.")
        elif promised != self.batches:
            self.hold(f"The file trailer promises {promised} batches; there are {self.batches}.")
        self.file_is_open, self.file_is_closed = False, True

    def end(self, envelope: Envelope) -> None:
        if self.batch_is_open:
            self.hold("The last batch has no trailer (BTS): the end of the file is missing.")
        if self.file_is_open:
            self.hold("The file has no trailer (FTS): its end is missing.")
        if self.bare and (self.batches or self.file_is_closed):
            self.hold("A message stands outside every batch.")
        if self.batches and not self.file_is_closed and envelope is Envelope.REQUIRED:
            self.hold("Batches without a file header and trailer (FHS, FTS): nothing shows that none is missing.")
        if self.bare > 1 and envelope is Envelope.REQUIRED:
            self.hold("Several messages without a batch header and count: nothing shows that none is missing.")


def _count(fields: list[bytes]) -> int | None:
    text = fields[0].strip() if fields else b""
    return int(text) if text.isdigit() and len(text) < 10 else None  # noqa: PLR2004


def check_hl7(meter: Meter, lab: LabMap) -> FileVerdict:
    """The verdict on a file of HL7 messages: envelopes, counts, the last segment's end."""
    envelopes = _Envelopes()
    fault: Fault | None = None
    try:
        for _, message in hl7_messages(meter):
            if message.startswith(b"MSH"):
                envelopes.message()
            elif message.strip() and not _ENVELOPE_LINE.match(message.lstrip(b"\r")):
                fault = fault or Fault(Quarantine.UNSUPPORTED_FORMAT, "The file does not begin with an HL7 header.")
            if len(message) > MAX_LINE_BYTES and max(map(len, message.split(b"\r"))) > MAX_LINE_BYTES:
                fault = fault or Fault(Quarantine.MALFORMED, "A line is longer than 1 MiB.")
            if not message.startswith(b"MSH") or _ENVELOPE_MARK.search(message):
                for found in _ENVELOPE_LINE.finditer(message):
                    envelopes.segment(found[1], found[2])
    except BrokenFile as broken:
        fault = broken.fault
        meter.drain()
    envelopes.end(lab.envelope)
    if fault is None and not envelopes.messages and not envelopes.batches and not envelopes.file_is_closed:
        fault = envelopes.fault or Fault(Quarantine.EMPTY_FILE, "The file holds no message.")
    if meter.last not in {b"\r", b"\n", b"\x1c"}:
        envelopes.hold("The last segment is cut: it has no end mark.")
    # Batches without a file trailer are each counted, and another one may be missing.
    proven = envelopes.promised is not None and not envelopes.bare and envelopes.file_is_closed
    return FileVerdict(
        fault or envelopes.fault,
        envelopes.promised,
        envelopes.messages,
        envelopes.control_id,
        meter.sha256,
        meter.size_bytes,
        Completeness.PROVEN if proven else Completeness.UNPROVEN,
        () if proven else ("Nothing in the file counts its messages.",),
    )
