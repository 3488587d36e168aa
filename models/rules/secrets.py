"""What actions need of encryption and blind indexes, as shapes; wiring passes the real ones in (ruling 11)."""

from typing import Final, Protocol


class Cipher(Protocol):
    """Encrypts one personal column of one row. Associated data: table, column, the row's random ref (ruling 15)."""

    def encrypt(self, table: str, column: str, ref: str, plain: str) -> bytes:
        """Ciphertext that carries the id of its key, so that keys can be rotated."""
        ...

    def decrypt(self, table: str, column: str, ref: str, sealed: bytes) -> str:
        """The plain text. Raises ServiceError(NOT_FOUND) for a key that is gone."""
        ...


class BlindIndex(Protocol):
    """Keyed equality: the same text of the same service and domain gives the same 16 bytes, and nothing else does."""

    @property
    def current_version(self) -> int:
        """The key version that `index` writes with; stored beside the digest, for rotation."""
        ...

    def index(self, domain: str, service_id: str, normalised: str) -> bytes:
        """The digest to store for a normalised text."""
        ...

    def live(self, domain: str, service_id: str, normalised: str) -> list[bytes]:
        """The digests to look for: one for each live key version, the current one first."""
        ...

    def content_hmac(self, content: bytes) -> bytes:
        """Recognises a payload without being guessable from its content."""
        ...


MOBILE: Final = "mobile"
EMAIL: Final = "email"
ADDRESS: Final = "address"
KIT_BORN: Final = "kit_born"
"""Kit code and date of birth: `7K3F9XN2PP|1999-02-14`."""
KIT_FAMILY: Final = "kit_family"
"""Kit code and folded family name."""
NAME_BORN: Final = "name_born"
COLLECTION: Final = "collection"
"""The code that fetches a parcel at a counter."""


def kit_born(kit_code: str, iso_date: str) -> str:
    """What the kit-with-date-of-birth index is taken over."""
    return f"{kit_code}|{iso_date}"


def kit_family(kit_code: str, folded_family_name: str) -> str:
    """What the kit-with-family-name index is taken over."""
    return f"{kit_code}|{folded_family_name}"
