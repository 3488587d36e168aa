"""What the product asks of the outside world, and the three ways in which the world may fail it.

Adapters know words, never rows: they take and return the frozen values below, get credentials
and a client in their constructor, and read no settings. An adapter never retries: the row that
asked for the call decides what happens next, by which of three errors came back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, Protocol

from integrations.labels.pack import KitPack, Tube
from models.rules.postage import PostPolicy, Recipient
from models.rules.service import Paper
from models.rules.vocabulary import DeliveryStatus, RefusalKind, ScanKind

__all__ = [
    "Accepted",
    "ArrivalQueue",
    "Bought",
    "DeliveryStatus",
    "FileStore",
    "KitPack",
    "LabDrop",
    "LabLine",
    "LabelPrinter",
    "Listing",
    "MailSender",
    "NotSent",
    "OutgoingMail",
    "OutgoingText",
    "Pace",
    "ParcelNews",
    "ParcelTracker",
    "PostageSeller",
    "Posting",
    "RefusalKind",
    "Refused",
    "Reply",
    "Scan",
    "ScanKind",
    "Seen",
    "StatusEvent",
    "StoredObject",
    "TextSender",
    "Tube",
    "Unsure",
]


class NotSent(Exception):  # noqa: N818 - the three names are the house's words, see STYLE
    """It certainly did not happen. Safe to try again later. `retry_after_seconds` may be None."""

    def __init__(self, code: str, retry_after_seconds: float | None = None, *, alarm: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.alarm = alarm


class Refused(Exception):  # noqa: N818
    """It did not happen and never will with this input. `kind` says whose fault it is."""

    def __init__(self, code: str, kind: RefusalKind) -> None:
        super().__init__(code)
        self.code = code
        self.kind = kind


class Unsure(Exception):  # noqa: N818
    """It may have happened. Ask before doing it again; never repeat it blindly."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


# ── Texts ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OutgoingText:
    """One attempt at one text. `attempt_ref` is opaque and rides in the status-callback URL."""

    attempt_ref: str
    to_e164: str
    body: str

    def __repr__(self) -> str:
        return f"OutgoingText(attempt_ref={self.attempt_ref!r})"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the text and gave it an id."""

    provider_id: str
    status: DeliveryStatus


@dataclass(frozen=True, slots=True)
class Seen:
    """What the provider says of one text. `status_raw` and `error_code` are its own words."""

    provider_id: str
    status: DeliveryStatus
    status_raw: str
    error_code: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One status callback, with its signature checked."""

    attempt_ref: str
    provider_id: str
    status: DeliveryStatus
    status_raw: str
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody texted back, with its signature checked. Printing it shows neither number nor words."""

    provider_id: str
    from_e164: str = field(repr=False)
    body: str = field(repr=False)
    provider_word: str = ""
    """STOP, START or HELP where the provider has acted on the reply itself."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a provider may be called."""

    at_once: int
    """Calls under way at the same time."""
    per_second: float
    """Texts handed over in a second."""


class TextSender(Protocol):
    """Hands texts to a provider. Never retries, never touches the database."""

    name: str
    pace: Pace
    remembers: timedelta
    """How long the provider can be asked about a text: after that, not found proves nothing."""

    def send(self, text: OutgoingText) -> Accepted:
        """Raises NotSent (try later), Refused (never will), Unsure (may have gone: look before resending)."""
        ...

    def find(self, text: OutgoingText) -> Sequence[Seen]:
        """What the provider already holds of this very attempt. Raises NotSent."""
        ...

    def texted_since(self, since: datetime) -> Mapping[str, str]:
        """The number of every text that the provider took since an instant, by its own ids. Raises NotSent."""
        ...

    def status(self, provider_id: str) -> Seen:
        """The provider's present word on one text. Raises NotSent or Refused (no such text)."""
        ...

    def redact(self, provider_id: str) -> None:
        """Blanks the body at the provider. Safe to repeat. Raises NotSent."""
        ...

    def parse_status(self, url: str, signature: str, form: Mapping[str, str]) -> StatusEvent:
        """Reads one callback. `url` is the configured public URL with raw path and query.

        Raises ServiceError(BAD_SIGNATURE) for a forged one, ServiceError(BAD_INPUT) for an unreadable one.
        """
        ...

    def parse_reply(self, url: str, signature: str, form: Mapping[str, str]) -> Reply:
        """Reads one text that came back. Raises as `parse_status` does."""
        ...


# ── E-mail ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """One e-mail to a shared mailbox of the service's own staff: nothing about a person is in it."""

    ref: str
    """Opaque: its Message-ID, so that mail systems know the same one twice."""
    to: str = field(repr=False)
    subject: str
    body: str


class MailSender(Protocol):
    """Hands e-mails to a mail server. Never retries."""

    def send(self, mail: OutgoingMail) -> None:
        """Raises NotSent (try later), Refused (never will), Unsure (it may be on its way)."""
        ...


# ── Paper ────────────────────────────────────────────────────────────────────────────────────


class LabelPrinter(Protocol):
    """Draws kit packs, and reads them back by other means before they may leave."""

    def draw(self, packs: Sequence[KitPack], paper: Paper) -> bytes:
        """One PDF; the same packs give the same bytes.

        Raises ServiceError(BAD_INPUT) whose `ref` is the code of a kit that can't be printed.
        """
        ...

    def faults(self, pdf: bytes, packs: Sequence[KitPack], paper: Paper) -> Sequence[str]:
        """What on the paper is not what the packs say: short lines of codes and kinds, nothing personal."""
        ...

    def contact_sheet(self, pdf: bytes) -> bytes:
        """The first pages side by side as a PNG, for a person to look at."""
        ...


# ── Clinics ──────────────────────────────────────────────────────────────────────────────────


class ClinicBell(Protocol):
    """Tells one clinic's system that a referral waits. The clinic knows a second ring for the same by `ref`."""

    def ring(self, ref: str, made_at: datetime, *, now: datetime) -> None:
        """Rings once. Raises NotSent where it may be heard later, and Refused where it will not be."""
        ...


# ── Post ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Scan:
    """One courier event of one parcel. `raw_code` is the courier's own; `occurred_at` is aware UTC."""

    tracking_number: str
    kind: ScanKind
    raw_code: str
    occurred_at: datetime


class ParcelTracker(Protocol):
    """Asks a courier where parcels are."""

    def scans(self, tracking_numbers: Sequence[str]) -> Sequence[Scan]:
        """All events known for up to 30 numbers. Raises NotSent when the courier can't be asked now."""
        ...


class ParcelNews(Protocol):
    """Events that a courier sends us unasked."""

    def check(self, signature: str, body: bytes) -> None:
        """Raises ServiceError(BAD_SIGNATURE) unless the raw body was signed with a secret of ours."""
        ...

    def event_id(self, body: bytes) -> str:
        """The courier's own id of an event. Raises ServiceError(BAD_INPUT)."""
        ...

    def scans(self, body: bytes) -> Sequence[Scan]:
        """What an event says of its parcel. Raises ServiceError(BAD_INPUT) for an unreadable one."""
        ...


@dataclass(frozen=True, slots=True)
class Posting:
    """One parcel that wants postage. Its repr says nothing of the person."""

    reference: str
    """Ours, opaque: the courier can be asked by it whether it has the parcel."""
    to: Recipient
    policy: PostPolicy
    """Weight, format, the courier's service, the sender's name."""
    ordered_at: datetime


@dataclass(frozen=True, slots=True)
class Bought:
    """Postage that the courier has on its books. `tracking_number` is empty where its service has none, or not yet."""

    courier_id: str
    tracking_number: str = ""
    label: bytes = field(default=b"", repr=False)
    """A PDF with name and address, and the return label where one was asked for; empty where there is none."""


class PostageSeller(Protocol):
    """Buys postage, one parcel a call. Never retries."""

    def buy(self, posting: Posting) -> Bought:
        """Raises NotSent (try later), Refused (never with this input), Unsure (it may be bought: find it first)."""
        ...

    def find(self, reference: str) -> Bought | None:
        """What the courier holds under a reference of ours, without its label. Raises NotSent, Refused if twice."""
        ...

    def label(self, courier_id: str, *, with_return: bool) -> bytes:
        """The label of postage that was bought, as a PDF, with that for its return where the policy wants one.

        Raises NotSent, or Refused where there is none.
        """
        ...

    def cancel(self, courier_id: str) -> None:
        """Takes postage back; what is gone already is cancelled enough. Raises NotSent, or Refused."""
        ...


# ── Laboratories ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a laboratory's directory, apart from what we put there."""

    names: Sequence[str]
    """Of its files, in order. Bytes that are no UTF-8 stand in them as surrogates."""
    passed_over: int
    """Links, folders and other things that are no files."""


class LabDrop(Protocol):
    """A laboratory's directory on its own server. Nothing of the laboratory's is ever deleted there.

    Whatever takes a name raises ServiceError(BAD_INPUT) where the server refuses that one: others may still do.
    """

    @property
    def renames(self) -> bool:
        """Whether the laboratory promised that what has its own name is whole."""
        ...

    async def look(self) -> Listing:
        """What lies there now."""
        ...

    async def collected(self) -> Sequence[str]:
        """The names of the files that were put aside."""
        ...

    async def receipts(self) -> Sequence[str]:
        """The names of the receipts that were left."""
        ...

    async def fetch(self, name: str, into: IO[bytes]) -> str:
        """Writes one file into `into` and returns the SHA-256 of its bytes in hexadecimal."""
        ...

    async def fetch_collected(self, as_name: str, into: IO[bytes]) -> str:
        """`fetch`, of a file that was put aside."""
        ...

    async def put_aside(self, name: str, as_name: str) -> None:
        """Moves a file out of the way, under another name."""
        ...

    async def receipt(self, name: str) -> bytes:
        """What a receipt that was left says."""
        ...

    async def leave(self, name: str, content: bytes) -> None:
        """Leaves a receipt, whole before it has its name."""
        ...


class LabLine(Protocol):
    """A connection to a laboratory's own listener. Never sends a message twice by itself."""

    def send(self, message: bytes) -> bytes:
        """The answer to this very message. Raises NotSent or ServiceError (nothing left), Unsure (it may have come)."""
        ...

    def late(self, wait_seconds: float = 0.0) -> Sequence[bytes]:
        """What was said since of messages that had their answer, each once. Waits so long for more of it."""
        ...

    def close(self) -> None:
        """Ends the connection. Safe to repeat."""
        ...


# ── Files ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in the store as it stood at one moment."""

    key: str
    version_id: str
    """'' where it was only listed, and in a bucket without versions."""
    size_bytes: int
    modified_at: datetime
    """The store's own time, in whole seconds: S3 knows no parts of one."""


class FileStore(Protocol):
    """Files in a bucket. All keys are relative to the bucket; nothing personal stands in a key."""

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Stores one object and returns its version id. Raises ServiceError(STORE_DOWN | BUCKET_MISSING)."""
        ...

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """Stores what an open file holds, of any size. Raises ServiceError(STORE_DOWN | BUCKET_MISSING)."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, in key order, without its version. One that nobody may read is listed too."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """The keys of what stands directly in a folder ('' or ending in '/'); those of folders in it end in '/'."""
        ...

    def pin(self, key: str) -> StoredObject:
        """The object as it is now, with its version. Raises ServiceError(NOT_FOUND | STORE_DOWN)."""
        ...

    def read(self, key: str, version_id: str = "") -> bytes:
        """The whole object. Raises ServiceError(NOT_FOUND | NOT_NOW): it is gone, or archived."""
        ...

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """The object in pieces, for a file of any size. Raises as `read` does."""
        ...

    def move(self, key: str, to: str, version_id: str = "") -> None:
        """Copies, then deletes; repeating it changes nothing. With a version, no other version is touched."""
        ...


class ArrivalQueue(Protocol):
    """Tells of files that landed. A hint only: a sweep finds what it misses."""

    def receive(self, wait_seconds: int) -> Sequence[tuple[str, str]]:
        """(receipt, object key) of up to ten arrivals, waiting up to `wait_seconds`."""
        ...

    def done(self, receipt: str) -> None:
        """Takes one arrival off the queue."""
        ...
