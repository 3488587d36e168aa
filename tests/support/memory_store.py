"""A FileStore in memory that obeys the port: versions, key order, moves that may be repeated."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import IO, Final

from integrations.ports import StoredObject
from models.rules.errors import Code, ServiceError

NOT_THERE: Final = "The file is not in the store: it was moved or deleted since it was recorded."


class MemoryStore:
    """Objects by key, each with its versions by number; every put is a new version."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self.modified: dict[str, datetime] = {}
        """When each version was put, by its number: a second after the one before it, unless a test says otherwise."""
        self._puts = 0
        self._began = datetime.now(UTC).replace(microsecond=0)

    def put(self, key: str, body: bytes, content_type: str = "") -> str:  # noqa: ARG002 - the port has it
        """Stores one object and returns its version id."""
        self._puts += 1
        self.objects.setdefault(key, {})[str(self._puts)] = body
        self.modified[str(self._puts)] = self._began + timedelta(seconds=self._puts)
        return str(self._puts)

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """Stores what a file holds."""
        self.put(key, file.read())

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, in key order, without its version."""
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield replace(self._as_it_is(key), version_id="")

    def names(self, folder: str) -> Iterator[str]:
        """The keys of what stands directly in a folder, folders in it among them."""
        below = (key.removeprefix(folder) for key in self.objects if key.startswith(folder) and key != folder)
        yield from sorted({folder + name[: name.find("/") + 1 or None] for name in below})

    def pin(self, key: str) -> StoredObject:
        """The object as it is now, with its version."""
        if key not in self.objects:
            raise ServiceError(Code.NOT_FOUND, NOT_THERE)
        return self._as_it_is(key)

    def _as_it_is(self, key: str) -> StoredObject:
        version_id, body = list(self.objects[key].items())[-1]
        return StoredObject(key, version_id, len(body), self.modified[version_id])

    def read(self, key: str, version_id: str = "") -> bytes:
        """The whole object."""
        try:
            versions = self.objects[key]
            return versions[version_id or list(versions)[-1]]
        except KeyError:
            raise ServiceError(Code.NOT_FOUND, NOT_THERE) from None

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """The object in small pieces, so that readers meet every kind of cut."""
        body = self.read(key, version_id)
        for start in range(0, len(body), 512):
            yield body[start : start + 512]

    def move(self, key: str, to: str, version_id: str = "") -> None:
        """Copies, then deletes; repeating it changes nothing."""
        versions = self.objects.get(key, {})
        if version_id not in versions and (version_id or not versions) and to in self.objects:
            return
        self.put(to, self.read(key, version_id))
        self.objects[key] = {each: body for each, body in versions.items() if version_id and each != version_id}
        if not self.objects[key]:
            del self.objects[key]
