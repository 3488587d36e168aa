"""A provider of texts in memory that keeps the port's promises, and a `begin` that knows when a session is open."""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock, local

from sqlmodel import Session

from app.database import Begin
from integrations.ports import (
    Accepted,
    NotSent,
    OutgoingText,
    Pace,
    RefusalKind,
    Refused,
    Reply,
    Seen,
    StatusEvent,
    Unsure,
)
from models.rules.vocabulary import DeliveryStatus


class WatchedBegin(local):
    """Opens transactions and counts those that are open, in each thread by itself."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self.open = 0

    @contextmanager
    def __call__(self) -> Iterator[Session]:
        self.open += 1
        try:
            with self._begin() as session:
                yield session
        finally:
            self.open -= 1


@dataclass
class Message:
    """One text that the provider took: a line of its ledger."""

    provider_id: str
    attempt_ref: str
    to_e164: str
    body: str
    status: DeliveryStatus = DeliveryStatus.IN_FLIGHT
    error_code: str = ""
    redacted: bool = False


Trouble = NotSent | Refused | Unsure | str
"""What one call comes to: an error before anything was taken, or TAKEN_UNSURE."""

TAKEN_UNSURE = "taken_unsure"
"""It takes the text, and then the connection breaks."""


@dataclass
class FakeSender:
    """Takes every text unless `troubles` says otherwise, call by call. Fails if a session is open when it is called."""

    watched: WatchedBegin | None = None
    troubles: deque[Trouble | None] = field(default_factory=deque)
    lists_nothing: bool = False
    """Its list lags behind what it took."""
    mute: bool = False
    """It does not say what it took."""
    down: bool = False
    when_called: Callable[[OutgoingText], None] | None = None
    ledger: list[Message] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    name: str = "fake"
    pace: Pace = field(default_factory=lambda: Pace(at_once=8, per_second=1_000_000.0))
    remembers: timedelta = timedelta(days=365)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: Lock = field(default_factory=Lock)

    def send(self, text: OutgoingText) -> Accepted:
        """Takes one text, or fails as `troubles` asks."""
        self._called("send")
        with self._lock:
            trouble = self.troubles.popleft() if self.troubles else None
        if isinstance(trouble, Exception):
            raise trouble
        if self.down:
            raise NotSent("no_connection")
        with self._lock:
            message = Message(f"SM{next(self._numbers):032x}", text.attempt_ref, text.to_e164, text.body)
            self.ledger.append(message)
        if self.when_called:
            self.when_called(text)
        if trouble == TAKEN_UNSURE:
            raise Unsure("ReadTimeout")
        return Accepted(message.provider_id, DeliveryStatus.IN_FLIGHT)

    def find(self, text: OutgoingText) -> Sequence[Seen]:
        """What it took with this number and body."""
        self._called("find")
        found = [m for m in self.ledger if (m.to_e164, m.body) == (text.to_e164, text.body) and not m.redacted]
        return [] if self.lists_nothing else [_seen(message) for message in found]

    def texted_since(self, since: datetime) -> Mapping[str, str]:  # noqa: ARG002 - it has no clock
        """All numbers that it ever texted."""
        self._called("texted_since")
        if self.mute:
            raise NotSent("no_answer")
        return {message.provider_id: message.to_e164 for message in self.ledger}

    def status(self, provider_id: str) -> Seen:
        """How far one message got."""
        self._called("status")
        for message in self.ledger:
            if message.provider_id == provider_id:
                return _seen(message)
        raise Refused("20404", RefusalKind.UNKNOWN_CODE)

    def redact(self, provider_id: str) -> None:
        """Blanks one message."""
        self._called("redact")
        for message in self.ledger:
            if message.provider_id == provider_id:
                message.redacted = True

    def parse_status(self, url: str, signature: str, form: Mapping[str, str]) -> StatusEvent:
        """Callbacks are read by the web application; nothing here asks for it."""
        raise NotImplementedError

    def parse_reply(self, url: str, signature: str, form: Mapping[str, str]) -> Reply:
        """As callbacks."""
        raise NotImplementedError

    @property
    def doubled(self) -> list[tuple[str, str]]:
        """(number, body) of whatever it took more than once and did not fail to deliver."""
        times = Counter((m.to_e164, m.body) for m in self.ledger if m.status is not DeliveryStatus.FAILED)
        return [text for text, n in times.items() if n > 1]

    def _called(self, what: str) -> None:
        assert self.watched is None or self.watched.open == 0, "the provider was called with a session open"
        with self._lock:
            self.calls[what] += 1
        if self.down and what != "send":
            raise NotSent("no_connection")


def _seen(message: Message) -> Seen:
    code = message.error_code or None
    return Seen(message.provider_id, message.status, message.status.value, code, datetime(2026, 11, 24, tzinfo=UTC))
