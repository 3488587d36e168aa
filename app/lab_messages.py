"""Lab messages that come one by one: stored, answered, and put among the lab's files within a second."""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import Session

from app.lab_arrivals import stops_no_other
from app.lab_reading import Ingest
from app.wiring import hl7_words
from models.actions import lab_message, lab_notice, lab_request
from models.rules.errors import Code, ServiceError
from models.rules.lab import Form
from models.rules.vocabulary import Quarantine
from models.tables.lab_message import WayIn

log: Final = logging.getLogger("kitpost")

_TYPES: Final = {Form.HL7: "x-application/hl7-v2+er7", Form.FHIR: "application/fhir+json", Form.CSV: "text/csv"}


def file_messages(ingest: Ingest) -> int:
    """Puts stored messages among their labs' files, where ingest finds them, and says how many files that makes.

    Safe to repeat and to be killed: a file that was decided on is made again with the same bytes under the
    same name, and the same bytes twice have no effect. One that can't be made stops no other; the first error is
    raised at the end.
    """
    failures: list[Exception] = []
    with ingest.begin() as session:
        keys = lab_message.decide_files(session, labs=ingest.maps.keys())
    for key in keys:
        with stops_no_other(failures, f"messages for {key}"):
            _make_file(ingest, key)
    if failures:
        raise failures[0]
    return len(keys)


def _make_file(ingest: Ingest, key: str) -> None:
    with ingest.begin() as session:
        file = lab_message.file_to_make(session, key, cipher=ingest.cipher)
    if file is None:
        return
    if file.form is Form.HL7:
        content = hl7_words.envelope(file.messages, key.rpartition("/")[2].partition(".")[0])
    else:
        content = file.messages[0]
    ingest.store.put(key, content, _TYPES[file.form])
    with ingest.begin() as session:
        lab_message.note_filed(session, key)


def note_refusal(ingest: Ingest, lab: str, content: bytes, *, way: WayIn, reason: Quarantine) -> None:
    """Leaves a trace, and a case of the lab desk, of what a laboratory that we know sent and we did not take."""
    log.warning("%s: a message of %s was refused: %s", way, lab, reason)
    with ingest.begin() as session:
        _take_notice(ingest, session, lab_notice.Noticed(lab, way, reason, refused=True), content)


def _take_notice(ingest: Ingest, session: Session, noticed: lab_notice.Noticed, content: bytes) -> None:
    lab_notice.take_notice(
        session, noticed, content, now=ingest.clock(), indexes=ingest.indexes, services=ingest.services
    )


@dataclass(frozen=True, slots=True)
class MllpDesk:
    """Takes HL7 messages from labs' connections and answers each once it is stored."""

    ingest: Ingest

    def take(self, lab: str, message: bytes) -> bytes:
        """AA once the message is stored, AR for what can't be taken, AE for a fault of ours: then it is sent again.

        What a result means is no matter here: whatever could be a report is stored, and quarantined if need be.
        """
        now = self.ingest.clock()
        header = hl7_words.header_of(message)
        try:
            complaint = self._taken(lab, header, message, now)
            if complaint is not None:
                note_refusal(self.ingest, lab, message, way=WayIn.MLLP, reason=complaint.word)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not stored, and the lab must hear so
            # Without the error's words, which may hold values.
            log.error("mllp: a message was not stored: %s", type(error).__name__)  # noqa: TRY400
            complaint = hl7_words.Complaint("MSH^1", "207", "It could not be stored just now: send it again.")
            return _answered(header, "AE", now, complaint)
        return _answered(header, "AR" if complaint else "AA", now, complaint)

    def too_long(self, lab: str, head: bytes) -> bytes:
        """The answer to a message that is longer than allowed, seen from its first bytes."""
        try:
            note_refusal(self.ingest, lab, head, way=WayIn.MLLP, reason=Quarantine.TOO_MANY_QUARANTINED)
        except Exception as error:  # noqa: BLE001 - it is too long whether that was noted or not
            log.error("mllp: a refusal was not noted: %s", type(error).__name__)  # noqa: TRY400
        sentence = "The message is longer than is allowed: send fewer results in one, or a file."
        complaint = hl7_words.Complaint("MSH^1", "207", sentence)
        return _answered(hl7_words.header_of(head), "AR", self.ingest.clock(), complaint)

    def _taken(
        self, lab: str, header: "hl7_words.Header | None", message: bytes, now: datetime
    ) -> "hl7_words.Complaint | None":
        """Takes one message, or says why it can't be taken."""
        complaint = hl7_words.complaint_about(header, message) or self._stranger(lab, message)
        if complaint is not None:
            return complaint
        assert header is not None, "without one there was a complaint"
        if hl7_words.is_answer(header):
            return self._take_answer(lab, message, now)
        return self._keep(lab, header.control_id, message, now)

    def _take_answer(self, lab: str, message: bytes, now: datetime) -> "hl7_words.Complaint | None":
        """A lab's answer to a request of ours, sent as a message of its own (ORL^O22, or an ACK that came late)."""
        said = hl7_words.answer_in(message)
        if not (said.is_yes or said.is_no):
            sentence = "MSA-1 is none of AA, AE, AR, CA, CE and CR: it says neither yes nor no."
            return hl7_words.Complaint("MSA^1^1", "103", sentence, Quarantine.UNSUPPORTED_FORMAT)
        with self.ingest.begin() as session:
            known = lab_request.take_answer(session, said, lab=lab, now=now)
        if known:
            return None
        sentence = "MSA-2 is the control id of no request of ours that waits for an answer."
        return hl7_words.Complaint("MSA^1^2", "103", sentence, Quarantine.UNSUPPORTED_FORMAT)

    def _stranger(self, lab: str, message: bytes) -> "hl7_words.Complaint | None":
        if hl7_words.sender_of(message) in self.ingest.maps[lab].senders:
            return None
        sentence = "MSH-3 and MSH-4 are not those agreed for this connection."
        return hl7_words.Complaint("MSH^1^3", "103", sentence, Quarantine.UNKNOWN_SENDER)

    def _keep(self, lab: str, control_id: str, message: bytes, now: datetime) -> "hl7_words.Complaint | None":
        """Stores a report. One under a used control id is stored too, and the lab desk is told in the same breath."""
        with self.ingest.begin() as session:
            try:
                kept = lab_message.keep_message(
                    session,
                    message,
                    way=WayIn.MLLP,
                    lab=lab,
                    service_id="",
                    key=control_id,
                    form=Form.HL7,
                    now=now,
                    cipher=self.ingest.cipher,
                    indexes=self.ingest.indexes,
                )
            except ServiceError as error:
                if error.code is not Code.BAD_INPUT:
                    raise
                return hl7_words.Complaint("MSH^1^10", "102", error.message)
            if kept is lab_message.Kept.UNDER_A_USED_ID:
                reused = lab_notice.Noticed(lab, WayIn.MLLP, Quarantine.CONTROL_ID_REUSE, refused=False)
                _take_notice(self.ingest, session, reused, message)
        return None


def _answered(
    header: "hl7_words.Header | None", code: str, now: datetime, complaint: "hl7_words.Complaint | None"
) -> bytes:
    return hl7_words.answer(header, code, now=now, control_id=secrets.token_hex(10), complaint=complaint)
