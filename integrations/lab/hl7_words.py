"""What we write in HL7 v2: the envelope of a file of messages, and the answer to one message.

Only what a sender's own header gives back is read here; what a report means is `hl7v2`'s to read.
Sources: HL7 v2.5.1 chapter 2 (MSH, MSA, ERR, FHS to FTS; tables 0008, 0357, 0516); lab-messages.md 2.6, 2.7.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from integrations.lab.hl7v2 import ANSWERS, answer_of, sender
from models.rules.lab import Answer
from models.rules.vocabulary import Quarantine
from models.rules.working_days import LONDON

_LEAST_FIELDS: Final = 18
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""What no database stores, no log shows and no second sending mends."""
_SECOND_HEADER: Final = re.compile(rb"[\r\n\x0b](?:MSH|FHS|BHS|BTS|FTS)")


class Header(NamedTuple):
    """What a message says of itself in MSH; '' for what it leaves out. Fields are as they stand, still escaped."""

    separator: str
    marks: str
    application: str
    facility: str
    to_application: str
    to_facility: str
    kind: str
    """MSH-9: ORU^R01."""
    control_id: str
    processing_id: str
    version: str
    character_set: str

    @property
    def names_error_fields(self) -> bool:
        """Whether its version has the ERR segment of 2.5 with a place, a code and a severity each of its own."""
        version = self.version.split(self.marks[:1])[0].strip()
        return version not in {"2.1", "2.2", "2.3", "2.3.1", "2.4"}


def header_of(message: bytes) -> Header | None:
    """The header of one message, or None where there is none that can be read."""
    line = message.lstrip(b"\r\n").replace(b"\n", b"\r").split(b"\r", 1)[0]
    if not line.startswith(b"MSH") or len(line) < 9:  # noqa: PLR2004 - the name, a separator, four marks, a separator
        return None
    text = line.decode("latin-1")  # each byte a character: what is given back is what came
    separator = text[3]
    fields = text.split(separator)
    fields += [""] * (_LEAST_FIELDS - len(fields))
    if len(fields[1]) not in {4, 5} or separator.isalnum():
        return None
    # Split at the separator, MSH-3 is at 2: MSH-1 is the separator itself.
    return Header(
        separator, fields[1], fields[2], fields[3], fields[4], fields[5], fields[8], fields[9].strip(), fields[10],
        fields[11], fields[17],
    )  # fmt: skip


def message_kind(header: Header) -> tuple[str, str]:
    """MSH-9's type and event: ('ORU', 'R01')."""
    parts = [*header.kind.split(header.marks[:1]), "", ""]
    return parts[0].strip(), parts[1].strip()


def is_answer(header: Header) -> bool:
    """Whether a message answers a request of ours."""
    return message_kind(header)[0] in ANSWERS


def answer_in(message: bytes) -> Answer:
    """What a message says of one of ours; both words '' if it holds no MSA."""
    header = header_of(message)
    if header is None:
        return Answer("", "")
    return answer_of(message.replace(b"\n", b"\r").decode("latin-1").split("\r"), header.separator)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────


class Complaint(NamedTuple):
    """Why a message was not taken: place (segment^sequence^field), a code of table 0357, one sentence for the lab."""

    location: str
    code: str
    sentence: str
    word: Quarantine = Quarantine.MALFORMED
    """The same for our lab desk."""


_WORDS_0357: Final = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "202": "Unsupported processing id",
    "207": "Application internal error",
}


def answer(header: Header | None, code: str, *, now: datetime, control_id: str, complaint: Complaint | None) -> bytes:
    """The acknowledgement of one message: AA, AE or AR, in the sender's own delimiters and version."""
    theirs = header or Header("|", "^~\\&", "", "", "", "", "", "", "P", "2.5.1", "")
    sep, component = theirs.separator, theirs.marks[0]
    _, event = message_kind(theirs)
    kind = component.join(filter(None, ("ACK", event, "ACK" if event and theirs.names_error_fields else "")))
    about = ["MSA", code, theirs.control_id]
    if complaint and not theirs.names_error_fields:
        about.append(_escaped(complaint.sentence, theirs))
    segments = [
        [
            "MSH", theirs.marks, theirs.to_application, theirs.to_facility, theirs.application, theirs.facility,
            _time(now), "", kind, control_id, theirs.processing_id or "P", theirs.version or "2.5.1",
        ],
        about,
    ]  # fmt: skip
    if complaint:
        segments.append(_error(complaint, theirs))
    return "".join(sep.join(fields) + "\r" for fields in segments).encode("latin-1")


def _error(complaint: Complaint, theirs: Header) -> list[str]:
    component, sub = theirs.marks[0], theirs.marks[3]
    place = component.join(_place(complaint)).rstrip(component)
    words = _WORDS_0357[complaint.code]
    if theirs.names_error_fields:
        coded = component.join((complaint.code, words, "HL70357"))
        return ["ERR", "", place, coded, "E", "", "", "", _escaped(complaint.sentence, theirs)]
    coded = sub.join((complaint.code, words, "HL70357"))
    return ["ERR", component.join([*_place(complaint), coded])]


def _place(complaint: Complaint) -> list[str]:
    return [*complaint.location.split("^"), "", ""][:3]


def _escaped(text: str, theirs: Header) -> str:
    escape = theirs.marks[2]
    letters = {theirs.separator: "F", theirs.marks[0]: "S", theirs.marks[3]: "T", theirs.marks[1]: "R", escape: "E"}
    return "".join(f"{escape}{letters[each]}{escape}" if each in letters else each for each in text)


def complaint_about(header: Header | None, message: bytes) -> Complaint | None:
    """Why a message can't be taken at all, seen from its header; None if it may. Its results are judged later.

    Whatever could be a report of results is taken: what can't be used of it waits in quarantine for a person.
    """
    if header is None:
        sentence = "This is no HL7 message: it does not begin with MSH and its delimiters."
        return Complaint("MSH^1", "100", sentence, Quarantine.UNSUPPORTED_FORMAT)
    if not header.control_id:
        return Complaint("MSH^1^10", "101", "MSH-10 is empty: every message needs a control id of its own.")
    if _CONTROL.search(header.control_id):
        return Complaint("MSH^1^10", "102", "MSH-10 holds a control character: send a plain control id.")
    if message_kind(header) != ("ORU", "R01") and not is_answer(header):
        sentence = "Only results (ORU^R01) and answers to our requests are taken here."
        return Complaint("MSH^1^9", "200", sentence, Quarantine.UNSUPPORTED_FORMAT)
    if is_answer(header) and _CONTROL.search("".join(answer_in(message))):
        return Complaint("MSA^1^2", "102", "MSA holds a control character: no control id of ours does.")
    if header.processing_id.split(header.marks[0])[0].strip() != "P":
        sentence = "MSH-11 is not P: only what is live is taken here."
        return Complaint("MSH^1^11", "202", sentence, Quarantine.TEST_MESSAGE)
    if _SECOND_HEADER.search(message):
        return Complaint("MSH^2", "100", "One frame holds several messages, or a batch: send each message by itself.")
    return None


# ── Files of messages ────────────────────────────────────────────────────────────────────────


def envelope(messages: Sequence[bytes], control_id: str) -> bytes:
    """One file of these messages, unchanged but for the end of their last segment, with the counts that prove it whole.

    One message stands alone.
    """
    ended = [message.strip(b"\r\n") + b"\r" for message in messages]
    if len(ended) == 1:
        return ended[0]
    own = control_id.encode("ascii")
    head = [b"FHS|^~\\&|KITPOST||||||||" + own, b"BHS|^~\\&|KITPOST||||||||" + own]
    head = [line + b"\r" for line in head]
    return b"".join([*head, *ended, b"BTS|%d\r" % len(ended), b"FTS|1\r"])


def _time(now: datetime) -> str:
    return now.astimezone(LONDON).strftime("%Y%m%d%H%M%S%z")


def sender_of(message: bytes) -> tuple[str, str] | None:
    """(MSH-3, MSH-4) of a message as lab maps compare them."""
    return sender(message + b"\r")
