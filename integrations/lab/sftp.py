"""A laboratory's SFTP drop directory: what lies there, fetched over SSH with the host's key pinned.

Nothing of the laboratory's is ever deleted on its server: what was stored here is moved to `collected/` beside it.
Names are bytes there, of any encoding or none, and stay bytes on the way; here they are text with surrogates.
"""

import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import asyncssh

from integrations.ports import Listing
from models.rules.errors import Code, ServiceError

_COLLECTED: Final = "collected"
_RECEIPTS: Final = "receipts"
_NOT_THE_LABS: Final = {".", "..", _COLLECTED, _RECEIPTS}
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
    renames: bool = False
    """The laboratory promised to write under another name and to rename."""


class SftpDrop:
    """One open connection to a laboratory's directory."""

    def __init__(self, client: asyncssh.SFTPClient, folder: str, *, renames: bool) -> None:
        self._client = client
        self._folder = folder.rstrip("/")
        self.renames = renames

    async def look(self) -> Listing:
        """What lies there now."""
        kinds = await self._kinds("")
        things = {name: kind for name, kind in kinds.items() if name not in _NOT_THE_LABS}
        names = [name for name, kind in sorted(things.items()) if await self._is_file(name, kind)]
        return Listing(names, passed_over=len(things) - len(names))

    async def collected(self) -> list[str]:
        """The names of the files that were put aside."""
        return sorted(await self._kinds(_COLLECTED))

    async def receipts(self) -> list[str]:
        """The names of the receipts that were left."""
        return sorted(await self._kinds(_RECEIPTS))

    async def _kinds(self, folder: str) -> dict[str, int]:
        """What a folder holds, and what the server says that each thing is."""
        found = await self._client.readdir(self._path(folder))
        return {_as_text(cast("bytes", each.filename)): each.attrs.type for each in found}

    async def _is_file(self, name: str, kind: int) -> bool:
        """A listing need not say what a thing is: then the server is asked. What it never says is tried as a file."""
        if kind == asyncssh.FILEXFER_TYPE_UNKNOWN:
            with suppress(asyncssh.SFTPError):  # it will be said of the file when it is fetched
                kind = (await self._client.lstat(self._path(name))).type
        return kind in {asyncssh.FILEXFER_TYPE_REGULAR, asyncssh.FILEXFER_TYPE_UNKNOWN}

    async def fetch(self, name: str, into: IO[bytes]) -> str:
        """Writes one file into `into` and returns the SHA-256 of its bytes in hexadecimal."""
        digest, size = hashlib.sha256(), 0
        with _one_of_many():
            async with self._client.open(self._path(name), "rb") as remote:
                while piece := cast("bytes", await remote.read(_PIECE_BYTES)):
                    size += len(piece)
                    if size > _LARGEST_BYTES:
                        raise ServiceError(Code.BAD_INPUT, "It is larger than 4 GiB.")
                    digest.update(piece)
                    into.write(piece)
        return digest.hexdigest()

    async def fetch_collected(self, as_name: str, into: IO[bytes]) -> str:
        """`fetch`, of a file that was put aside."""
        return await self.fetch(f"{_COLLECTED}/{as_name}", into)

    async def put_aside(self, name: str, as_name: str) -> None:
        """Moves a file to collected/. The same bytes under the same name there already are no error."""
        with _one_of_many():
            await self._rename(self._path(name), self._path(f"{_COLLECTED}/{as_name}"))

    async def receipt(self, name: str) -> bytes:
        """What a receipt that was left says."""
        content = io.BytesIO()
        await self.fetch(f"{_RECEIPTS}/{name}", content)
        return content.getvalue()

    async def leave(self, name: str, content: bytes) -> None:
        """Writes a file into receipts/, whole before it has its name."""
        path, under_way = self._path(f"{_RECEIPTS}/{name}"), self._path(f"{_RECEIPTS}/{name}.part")
        with _one_of_many():
            async with self._client.open(under_way, "wb") as remote:
                await remote.write(content)
            await self._rename(under_way, path)

    async def _rename(self, path: bytes, to: bytes) -> None:
        """Gives a file its new name; one of our own that has it already makes way."""
        try:
            await self._client.posix_rename(path, to)
        except asyncssh.SFTPOpUnsupported:
            await self._rename_plainly(path, to)

    async def _rename_plainly(self, path: bytes, to: bytes) -> None:
        """For servers without OpenSSH's extension, which rename only to a name that is free."""
        try:
            await self._client.rename(path, to)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            await self._client.stat(path)  # what is not there any more takes nobody's place
            await self._client.remove(to)
            await self._client.rename(path, to)

    async def prepare(self) -> None:
        """Makes the two folders that we write to. On some servers we may not, and the laboratory has made them."""
        for folder in map(self._path, (_COLLECTED, _RECEIPTS)):
            try:
                await self._client.stat(folder)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                await self._client.mkdir(folder)

    def _path(self, name: str) -> bytes:
        return (f"{self._folder}/{name}" if name else self._folder).encode("utf-8", "surrogateescape")


def _as_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@contextmanager
def _one_of_many() -> Iterator[None]:
    """What a server refuses of one file is that file's own failure; a connection that is gone ends the visit."""
    try:
        yield
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
        raise
    except asyncssh.SFTPError as error:
        # Without the error's words, which may name the file.
        raise ServiceError(Code.BAD_INPUT, f"The server refuses it ({type(error).__name__}).") from None


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
            drop = SftpDrop(client, server.folder, renames=server.renames)
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
