"""A FileStore in memory that obeys the port: versions, key order, moves that may be repeated."""

from collections.abc import Iterator

from integrations.ports import StoredObject
from models.rules.errors import Code, ServiceError


class MemoryStore:
    """Objects by key; every put is a new version."""

    def __init__(self) -> None:
        self.objects: dict[str, list[bytes]] = {}

    def put(self, key: str, body: bytes, content_type: str = "application/octet-stream") -> str:
        """Stores one object and returns its version id."""
        self.objects.setdefault(key, []).append(body)
        return str(len(self.objects[key]))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, in key order."""
        for key in sorted(self.objects):
            if key.startswith(prefix):
                versions = self.objects[key]
                yield StoredObject(key, str(len(versions)), len(versions[-1]))

    def read(self, key: str, version_id: str = "") -> bytes:
        """The whole object."""
        try:
            versions = self.objects[key]
            return versions[int(version_id) - 1] if version_id else versions[-1]
        except (KeyError, IndexError):
            raise ServiceError(Code.NOT_FOUND, "There is no such object.") from None

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """The object in small pieces, so that readers meet every kind of cut."""
        body = self.read(key, version_id)
        for start in range(0, len(body), 512):
            yield body[start : start + 512]

    def move(self, key: str, to: str) -> None:
        """Copies, then deletes; repeating it changes nothing."""
        if key not in self.objects and to in self.objects:
            return
        self.put(to, self.read(key))
        del self.objects[key]
