"""A listener in a thread of its own, and a lab's connection to it, both on loopback; and a lab's own listener."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

START, END = b"\x0b", b"\x1c\r"


@contextmanager
def running(listener) -> Iterator[int]:
    """The listener at work; yields its port."""
    port, started, loop, ended = [], threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve():
        async with listener.listening() as found:
            port.append(found)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert started.wait(10)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Line:
    """One lab's connection."""

    def __init__(self, port, tls: ssl.SSLContext | None = None):
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket = tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, message: bytes) -> str:
        """One message in a frame, and its answer without one; '' if the line was cut."""
        self.socket.sendall(START + message + END)
        return self.answer()

    def answer(self) -> str:
        received = b""
        while not received.endswith(END):
            piece = self.socket.recv(65536)
            if not piece:
                return ""
            received += piece
        assert received.startswith(START)
        return received[1:-2].decode("latin-1")


def client_tls(ca, pair=None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if pair:
        context.load_cert_chain(*pair)
    return context


class OtherEnd:
    """A lab's own listener: after its nth message it says `script(n, messages)`, each answer with its MSA-2 at will.

    The answers to one message are one packet. With `hangs_up` it ends the connection after each.
    """

    def __init__(self, script: Callable[[int, Sequence[bytes]], Sequence[bytes]], *, hangs_up: bool = False):
        self.script, self.hangs_up = script, hangs_up
        self.messages: list[bytes] = []
        self.connections = 0
        self.hung_up = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Listens while the block runs; yields the port."""
        server = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=self._serve, args=[server])
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join(10)

    def _serve(self, server):
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._talk(connection)
            self.hung_up.set()

    def _talk(self, connection):
        received = b""
        while piece := connection.recv(65536):
            received += piece
            while END in received:
                message, _, received = received.partition(END)
                self.messages.append(message.removeprefix(START))
                said = self.script(len(self.messages), self.messages)
                connection.sendall(b"".join(START + each + END for each in said))
                if self.hangs_up:
                    return
