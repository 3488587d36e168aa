"""MLLP, HL7's framing over TCP, both ways: a listener that answers every message once, and a sender.

A frame is 0x0B, the message, 0x1C 0x0D. Source: HL7 v2.5.1 appendix C; lab-messages.md 2.7. Why not a
library: docs/decisions/mllp.md.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from integrations.lab.hl7_words import answer_in, header_of
from integrations.ports import NotSent, Unsure
from models.rules.errors import Code, ServiceError

log: Final = logging.getLogger("kitpost")

START: Final = b"\x0b"
END: Final = b"\x1c\r"
_BEGUN_ANEW: Final = START + b"MSH"

Take = Callable[[str, bytes], bytes]
"""Takes one message of a lab and returns the answer. Runs in a thread; stores before it returns."""

TooLong = Callable[[str, bytes], bytes]
"""Answers a message of a lab that is longer than allowed, seen from its first bytes. Runs in a thread."""


@dataclass(frozen=True, slots=True)
class ListenerChoices:
    """Where to listen, who may speak, and how patient to be.

    `peers` names a lab for each certificate's name (subject CN or DNS name) where `clients_ca` is set, and
    for each address or network of addresses where it is not. Without a certificate of our own only loopback
    is listened on.
    """

    host: str
    port: int
    peers: Mapping[str, str]
    certificate: Path | None = None
    key: Path | None = None
    clients_ca: Path | None = None
    longest_frame_bytes: int = 1 << 20
    idle_seconds: float = 600.0
    """Between two messages."""
    frame_seconds: float = 30.0
    """From a message's first byte to its last, for its answer to be read, and for the handshake."""
    most_connections: int = 64
    """Of all laboratories together; each has the same share of them, so that none shuts out another."""

    @property
    def most_of_a_lab(self) -> int:
        """How many connections one laboratory may have open."""
        return max(1, self.most_connections // len(set(self.peers.values()) or {""}))


class MllpListener:
    """Listens, and hands each whole message of a known lab on. Refuses everyone else before a byte is read."""

    def __init__(self, choices: ListenerChoices, take: Take, too_long: TooLong) -> None:
        self._choices = choices
        self._take = take
        self._too_long = too_long
        self._tls = _server_tls(choices)
        self._networks = {} if choices.clients_ca else _networks(choices.peers)
        self._open: dict[asyncio.Task[None], str | None] = {}
        """Each conversation under way, and whose it is."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listens while the block runs, and yields the port. At its end a message under way is still answered."""
        choices = self._choices
        server = await asyncio.start_server(
            self._connected,
            choices.host,
            choices.port,
            ssl=self._tls,
            ssl_handshake_timeout=choices.frame_seconds if self._tls else None,
            limit=choices.longest_frame_bytes,
        )
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for each in self._open:
                each.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._open[task] = None
        try:
            self._open[task] = lab = self._lab_of(writer)
            if lab is None:
                log.warning("mllp: a peer that is not on the list was refused")
            elif list(self._open.values()).count(lab) > self._choices.most_of_a_lab:
                log.warning("mllp: %s was refused: too many connections", lab)
            else:
                await self._converse(lab, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            pass  # gone, silent, or we are closing: a frame that has no end was not stored and gets no answer
        except Exception as error:  # noqa: BLE001 - asyncio would log it with its words, which may hold values
            log.error("mllp: a connection failed: %s", type(error).__name__)  # noqa: TRY400
        finally:
            await self._hang_up(writer)
            del self._open[task]

    async def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        """Ends a connection. Whoever does not read the last answer, or say goodbye, is not waited for without end."""
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            async with asyncio.timeout(self._choices.frame_seconds):
                await writer.wait_closed()
        writer.transport.abort()

    def _lab_of(self, writer: asyncio.StreamWriter) -> str | None:
        """Whose connection this is, by the certificate that was checked or by its address."""
        if self._choices.clients_ca:
            names = _names_in(writer.get_extra_info("peercert") or {})
            return next((lab for name, lab in self._choices.peers.items() if name.casefold() in names), None)
        address = ipaddress.ip_address(str(writer.get_extra_info("peername")[0]).partition("%")[0])
        return next((lab for network, lab in self._networks.items() if address in network), None)

    async def _converse(self, lab: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._choices.idle_seconds):
                first = await reader.read(1)
                while first in {b"\r", b"\n"}:
                    first = await reader.read(1)
            if first != START:
                if first:
                    log.warning("mllp: %s sent something that is no frame, and was cut off", lab)
                return
            async with asyncio.timeout(self._choices.frame_seconds):
                try:
                    message = (await reader.readuntil(END))[: -len(END)]
                except asyncio.LimitOverrunError:
                    log.warning("mllp: %s sent a longer message than is allowed, and was cut off", lab)
                    head = await reader.read(2048)
                    await self._write(writer, await asyncio.to_thread(self._too_long, lab, head))
                    return
            message = _last_begun(lab, message)
            # Shielded: when we are told to stop, what is being stored is still answered.
            answering = asyncio.ensure_future(asyncio.to_thread(self._take, lab, message))
            try:
                answer = await asyncio.shield(answering)
            except asyncio.CancelledError:
                await self._write(writer, await answering)
                raise
            await self._write(writer, answer)

    async def _write(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        """Raises TimeoutError where the peer does not read what it is answered."""
        writer.write(START + message + END)
        async with asyncio.timeout(self._choices.frame_seconds):
            await writer.drain()


def _last_begun(lab: str, frame: bytes) -> bytes:
    """The message that a frame ends with. One that broke off before it has no answer, so its sender has it still."""
    unfinished, begun, rest = frame.lstrip(START).rpartition(_BEGUN_ANEW)
    if not begun:
        return rest
    log.warning("mllp: %s broke off %d messages and began anew", lab, unfinished.count(_BEGUN_ANEW) + 1)
    return begun.removeprefix(START) + rest


def _server_tls(choices: ListenerChoices) -> ssl.SSLContext | None:
    if choices.certificate is None or choices.key is None:
        if not _is_loopback(choices.host):
            raise ServiceError(
                Code.SETTINGS,
                "MLLP without TLS is for loopback only: set KITPOST_MLLP_CERTIFICATE and KITPOST_MLLP_KEY.",
            )
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _clear_certificate_errors("KITPOST_MLLP_CERTIFICATE, KITPOST_MLLP_KEY and KITPOST_MLLP_CLIENTS_CA"):
        context.load_cert_chain(choices.certificate, choices.key)
        if choices.clients_ca is not None:
            context.load_verify_locations(choices.clients_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def _clear_certificate_errors(settings: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(
            Code.SETTINGS, f"A certificate or key can't be read ({type(error).__name__}): look at {settings}."
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _networks(peers: Mapping[str, str]) -> dict[ipaddress.IPv4Network | ipaddress.IPv6Network, str]:
    try:
        return {ipaddress.ip_network(peer): lab for peer, lab in peers.items()}
    except ValueError:
        raise ServiceError(
            Code.SETTINGS,
            "KITPOST_MLLP_PEERS holds something that is no address: certificates' names need KITPOST_MLLP_CLIENTS_CA.",
        ) from None


def _names_in(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The common names and DNS names of a certificate that TLS has checked."""
    found = {value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"}
    found |= {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return frozenset(map(str.casefold, found))


# ── Sending ──────────────────────────────────────────────────────────────────────────────────

LONGEST_ANSWER_BYTES: Final = 1 << 16
LEAST_WAIT_SECONDS: Final = 0.001
"""For what has come already: a socket without any time limit fails by another name."""


@dataclass(frozen=True, slots=True)
class MllpAddress:
    """A laboratory's own listener. Without `ca` there is no TLS, which is for loopback only."""

    host: str
    port: int
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class MllpSender:
    """Sends one message at a time over one connection and waits for its answer. Never sends one twice by itself.

    A laboratory may say something twice, or first that it has a message (CA) and then what it makes of it. So
    every frame is matched by MSA-2: what is said of earlier messages of this connection is kept for `late`. A
    frame about none of them leaves the line in doubt: it is closed, and the next message begins on a new one.
    Raises ServiceError(SETTINGS) when it is made, before anything is to be sent.
    """

    def __init__(self, address: MllpAddress, *, timeout_seconds: float = 30.0) -> None:
        self._address = address
        self._timeout = timeout_seconds
        self._tls = _client_tls(address)
        self._connection: socket.socket | None = None
        self._received = b""
        """What this connection brought and no frame was made of yet."""
        self._answered: set[str] = set()
        """Control ids of this connection's messages that have their answer."""
        self._late: list[bytes] = []

    def send(self, message: bytes) -> bytes:
        """The answer to this very message. Raises NotSent (nothing left), Unsure (it may have arrived)."""
        self._listen(0.0)  # a laboratory that has hung up meanwhile is called anew, before anything is sent
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            connection.settimeout(self._timeout)
            connection.sendall(START + message + END)
            return self._answer_to(_control_id(message))
        except (OSError, EOFError) as error:
            self.close()
            raise Unsure(type(error).__name__) from None

    def late(self, wait_seconds: float = 0.0) -> list[bytes]:
        """What was said since of messages that had their answer, each once. Waits so long for more of it."""
        self._listen(wait_seconds)
        late, self._late = self._late, []
        return late

    def close(self) -> None:
        """Ends the connection. Safe to repeat."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._received, self._answered = None, b"", set()

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            plain = socket.create_connection((address.host, address.port), timeout=self._timeout)
        except OSError as error:
            raise NotSent(type(error).__name__) from None
        try:
            return self._tls.wrap_socket(plain, server_hostname=address.host) if self._tls else plain
        except OSError as error:
            plain.close()
            raise NotSent(type(error).__name__) from None

    def _answer_to(self, control_id: str) -> bytes:
        until = monotonic() + self._timeout
        while True:
            frame = self._frame(until)
            about = answer_in(frame).about
            if about == control_id:
                self._answered.add(control_id)
                return frame
            if about not in self._answered:
                self.close()
                raise Unsure("answer_to_another")
            self._late.append(frame)

    def _listen(self, seconds: float) -> None:
        """Takes in what is said without being asked. Whoever hung up, or says what we can't place, is hung up on."""
        until = monotonic() + seconds
        try:
            while self._connection is not None:
                frame = self._frame(until)
                if answer_in(frame).about in self._answered:
                    self._late.append(frame)
                else:
                    self.close()
        except TimeoutError:
            pass  # nothing more was said
        except (OSError, EOFError):
            self.close()

    def _frame(self, until: float) -> bytes:
        """The next frame without its marks. Raises TimeoutError, EOFError or another OSError where none comes."""
        assert self._connection is not None, "whoever reads has connected"
        while END not in self._received:
            self._connection.settimeout(max(until - monotonic(), LEAST_WAIT_SECONDS))
            piece = self._connection.recv(4096)
            if not piece or len(self._received) > LONGEST_ANSWER_BYTES:
                raise EOFError
            self._received += piece
        frame, _, self._received = self._received.partition(END)
        return frame.lstrip(b"\r\n").removeprefix(START)


def _control_id(message: bytes) -> str:
    header = header_of(message)
    return header.control_id if header else ""


def _client_tls(address: MllpAddress) -> ssl.SSLContext | None:
    if address.ca is None:
        if not _is_loopback(address.host):
            raise ServiceError(
                Code.SETTINGS, "A laboratory's MLLP listener is spoken to over TLS: give its CA in KITPOST_MLLP_LABS."
            )
        return None
    with _clear_certificate_errors("KITPOST_MLLP_LABS"):
        context = ssl.create_default_context(cafile=str(address.ca))
        if address.certificate and address.key:
            context.load_cert_chain(address.certificate, address.key)
    return context
