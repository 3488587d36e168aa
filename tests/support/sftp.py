"""A laboratory's SFTP server on loopback, over real SSH, with its directory in a folder of the test."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest


@dataclass(frozen=True)
class LabServer:
    port: int
    host_key: str
    folder: Path


@contextmanager
def sftp_server(root: Path, client_key: asyncssh.SSHKey) -> Iterator[LabServer]:
    """A server that lets in whoever holds this key, and sees `root` alone."""
    folder = root / "results"
    folder.mkdir(parents=True)
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    authorized = asyncssh.import_authorized_keys(client_key.export_public_key().decode())
    loop, ended, started, port = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), []

    async def serve():
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=authorized,
            sftp_factory=lambda chan: asyncssh.SFTPServer(chan, chroot=str(root).encode()),
        )
        port.append(server.sockets[0].getsockname()[1])
        started.set()
        await ended.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert started.wait(10)
    try:
        yield LabServer(port[0], host_key.export_public_key().decode().strip(), folder)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def refuse(monkeypatch: pytest.MonkeyPatch, what: str, name: bytes) -> None:
    """Servers of this process refuse to do one thing with one file."""
    real = getattr(asyncssh.SFTPServer, what)

    def answer(self, path, *more):
        if path.endswith(name):
            raise asyncssh.SFTPPermissionDenied("Not this one.")
        return real(self, path, *more)

    monkeypatch.setattr(asyncssh.SFTPServer, what, answer)
