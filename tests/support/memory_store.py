"""A FileStore in memory that obeys the port: versions, key order, moves that may be repeated."""

from collections.abc import Iterator
from typing import IO, Final

from integrations.ports import StoredObject
from models.rules.errors import Code, ServiceError

NOT_THERE: Final = "The file is not in the store: it was moved or deleted since it was recorded."


class MemoryStore:
    """Objects by key, each with its versions by number; every put is a new version."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self._puts = 0

    def put(self, key: str, body: bytes, content_type: str = "") -> str:  # noqa: ARG002 - the port has it
        """Stores one object and returns its version id."""
        self._puts += 1
        self.objects.setdefault(key, {})[str(self._puts)] = body
        return str(self._puts)

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """Stores what a file holds."""
        self.put(key, file.read())

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, in key order."""
        for key in sorted(self.objects):
            if key.startswith(prefix):
                version_id, body = list(self.objects[key].items())[-1]
                yield StoredObject(key, version_id, len(body))

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
