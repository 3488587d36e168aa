"""A laboratory's SFTP drop directory: what lies there, fetched over SSH with the host's key pinned.

Nothing is ever deleted on the laboratory's server: what was stored here is moved to `collected/` beside it.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import asyncssh

from models.rules.errors import Code, ServiceError

_COLLECTED: Final = "collected"
_RECEIPTS: Final = "receipts"
_PIECE_BYTES: Final = 1 << 18
_LARGEST_BYTES: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class SftpServer:
    """Where a laboratory's directory is, who we are there, and which key its host must show."""

    host: str
    port: int
    user: str
    key: Path
    host_key: str
    """As in known_hosts, without the host: `ssh-ed25519 AAAA…`."""
    folder: str


class SftpDrop:
    """One open connection to a laboratory's directory."""

    def __init__(self, client: asyncssh.SFTPClient, folder: str) -> None:
        self._client = client
        self._folder = folder.rstrip("/")

    async def names(self) -> list[str]:
        """The names of the files that lie there, in order."""
        return await self._names("")

    async def collected(self) -> list[str]:
        """The names of the files that were put aside."""
        return await self._names(_COLLECTED)

    async def receipts(self) -> list[str]:
        """The names of the receipts that were left."""
        return await self._names(_RECEIPTS)

    async def _names(self, folder: str) -> list[str]:
        found = await self._client.readdir(self._path(folder))
        plain = [each for each in found if each.attrs.type == asyncssh.FILEXFER_TYPE_REGULAR]
        return sorted(os.fsdecode(each.filename) for each in plain)

    async def fetch(self, name: str, into: IO[bytes]) -> str:
        """Writes one file into `into` and returns the SHA-256 of its bytes in hexadecimal."""
        digest, size = hashlib.sha256(), 0
        async with self._client.open(self._path(name), "rb") as remote:
            while piece := cast("bytes", await remote.read(_PIECE_BYTES)):
                size += len(piece)
                if size > _LARGEST_BYTES:
                    raise ServiceError(Code.BAD_INPUT, "A file on the laboratory's server is larger than 4 GiB.")
                digest.update(piece)
                into.write(piece)
        return digest.hexdigest()

    async def put_aside(self, name: str, as_name: str) -> None:
        """Moves a file to collected/. The same bytes under the same name there already are no error."""
        await self._client.posix_rename(self._path(name), self._path(f"{_COLLECTED}/{as_name}"))

    async def leave(self, name: str, content: bytes) -> None:
        """Writes a file into receipts/, whole before it has its name."""
        path = self._path(f"{_RECEIPTS}/{name}")
        async with self._client.open(f"{path}.part", "wb") as remote:
            await remote.write(content)
        await self._client.posix_rename(f"{path}.part", path)

    async def prepare(self) -> None:
        """Makes the two folders that we write to."""
        for folder in (_COLLECTED, _RECEIPTS):
            with suppress(asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
                await self._client.mkdir(self._path(folder))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if name else self._folder


@asynccontextmanager
async def open_drop(server: SftpServer, *, timeout_seconds: float = 30.0) -> AsyncIterator[SftpDrop]:
    """A laboratory's directory while the block runs. Raises ServiceError(NOT_NOW) where it can't be reached or read."""
    try:
        async with (
            asyncssh.connect(
                server.host,
                server.port,
                username=server.user,
                client_keys=[str(server.key)],
                known_hosts=([asyncssh.import_public_key(server.host_key)], [], []),
                config=None,
                agent_path=None,
                connect_timeout=timeout_seconds,
                login_timeout=timeout_seconds,
                keepalive_interval=timeout_seconds,
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            drop = SftpDrop(client, server.folder)
            await drop.prepare()
            yield drop
    except asyncssh.KeyImportError:
        raise ServiceError(Code.SETTINGS, "A key in KITPOST_SFTP_LABS can't be read: look at both.") from None
    except (OSError, asyncssh.Error) as error:
        # Without the error's words, which may name a file.
        raise ServiceError(
            Code.NOT_NOW,
            f"A laboratory's SFTP server could not be used ({type(error).__name__}): look at its settings.",
        ) from None
