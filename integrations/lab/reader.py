"""The way in for a lab's file, whatever its shape: whose is it, is it whole, and what does it hold."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

from integrations.lab import csv_dialects, fhir, hl7v2
from integrations.lab.framing import (
    BrokenFile,
    Completeness,
    FileVerdict,
    Meter,
    check_hl7,
    foreign_format,
    form_of,
)
from models.rules.lab import Fault, Form, LabMap, LabMessage
from models.rules.vocabulary import Quarantine

__all__ = ["BrokenFile", "Completeness", "FileVerdict", "Recognised", "check_file", "read_messages", "recognise"]

HEAD_BYTES: Final = 1 << 16
"""How much of a file tells whose it is."""


class Recognised(NamedTuple):
    """Whose file it is. Exactly one of the two is set."""

    lab: LabMap | None
    fault: Fault | None


def recognise(head: bytes, maps: Sequence[LabMap]) -> Recognised:
    """The one lab whose sender (HL7), code systems (FHIR) or header (table) these first bytes hold.

    `head` is the whole file or its first HEAD_BYTES. Not certain is a fault, never the likeliest.
    """
    if fault := foreign_format(head):
        return Recognised(None, fault)
    form = form_of(head)
    candidates = [lab for lab in maps if form in lab.forms]
    if form is Form.HL7:
        sender = hl7v2.sender(head)
        found = [lab for lab in candidates if sender in lab.senders]
    elif form is Form.FHIR:
        found = [lab for lab in candidates if fhir.is_from(head, lab)]
    else:
        found = [lab for lab in candidates if csv_dialects.header_matches(head, lab)]
    if len(found) == 1:
        return Recognised(found[0], None)
    many = "several labs" if found else "no lab"
    return Recognised(None, Fault(Quarantine.UNKNOWN_SENDER, f"The sender or header is that of {many} known here."))


def check_file(chunks: Iterable[bytes], lab: LabMap, control: bytes | None = None) -> FileVerdict:
    """Reads a file once and says whether it may be used. `control` is the content of NAME.ctl. Never raises on content.

    Completeness UNPROVEN means that nothing counts the rows: the caller waits for a control file or
    marker where the lab writes one (`lab.csv.control_file`).
    """
    meter = Meter(chunks)
    try:
        head = meter.head(HEAD_BYTES)
        form = form_of(head)
        fault = foreign_format(head)
        if fault is None and form not in lab.forms:
            fault = Fault(Quarantine.UNSUPPORTED_FORMAT, f"{lab.lab} does not send files of this kind.")
        if fault is not None:
            meter.drain()
            return _held(fault, meter)
    except BrokenFile as broken:
        return _held(broken.fault, meter)
    if form is Form.HL7:
        return check_hl7(meter, lab)
    if form is Form.FHIR:
        return fhir.check_fhir(meter, lab)
    return csv_dialects.check_csv(meter, lab, control)


def _held(fault: Fault, meter: Meter) -> FileVerdict:
    return FileVerdict(fault, None, 0, "", meter.sha256, meter.size_bytes, Completeness.UNPROVEN, ())


def read_messages(chunks: Iterable[bytes], lab: LabMap, skip_messages: int = 0) -> Iterator[LabMessage]:
    """Every message of a checked file, from `skip_messages` on. Streams; call `check_file` first.

    Raises BrokenFile where `check_file` would have held the file.
    """
    pieces = iter(chunks)
    start = b""
    for piece in pieces:
        start += piece
        if len(start.strip()) >= 8:  # noqa: PLR2004 - enough to tell the forms apart
            break
    form = form_of(start)
    read = {Form.HL7: hl7v2.read, Form.FHIR: fhir.read, Form.CSV: csv_dialects.read}[form]
    if form not in lab.forms:
        raise BrokenFile(Fault(Quarantine.UNSUPPORTED_FORMAT, f"{lab.lab} does not send files of this kind."))
    yield from read(chain([start], pieces), lab, skip_messages)
