"""What a laboratory is told when a kit is dispatched: which tubes will come, and what is asked of each.

No name and no address: the kit's codes, what the lab must compare (date of birth), and the tests.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from models.rules.vocabulary import Specimen, Test


class RequestForm(StrEnum):
    """How a lab wants to be asked. Settled in the contract."""

    NONE = "none"
    HL7 = "hl7"
    """OML^O21 of HL7 v2.5.1."""
    FHIR = "fhir"
    """A Bundle with one ServiceRequest for each test of a tube."""
    CSV = "csv"
    """One line for each test of a tube."""


class RequestWay(StrEnum):
    """How a request reaches the lab."""

    STORE = "store"
    """A file under <lab>/outgoing/."""
    MLLP = "mllp"
    """To the lab's own listener, message by message (HL7 only)."""


class RequestState(StrEnum):
    """How far a request got."""

    OWED = "owed"
    SENDING = "sending"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    UNSURE = "unsure"
    """It may have reached the lab: never sent again by itself."""
    REFUSED = "refused"
    """The lab said no: a person asks why."""
    NOT_NEEDED = "not_needed"
    """Its kit was cancelled while it was owed: it does not leave."""


@dataclass(frozen=True, slots=True)
class TubeRequest:
    """One tube and what is asked of it. Its code is without hyphens."""

    tube_code: str
    specimen: Specimen
    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class KitRequest:
    """One kit as its laboratory is told of it. `control_id` names the request for ever: a lab knows a repeat by it."""

    control_id: str
    kit_code: str
    date_of_birth: date
    dispatched_at: datetime
    tubes: tuple[TubeRequest, ...]

    def __repr__(self) -> str:
        return f"KitRequest(control_id={self.control_id!r})"
