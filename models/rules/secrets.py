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

    key_versions: tuple[int, ...]
    """Live versions, newest first: write all, look up any."""

    def index(self, domain: str, service_id: str, text: str, key_version: int) -> bytes:
        """The digest of a normalised text."""
        ...


MOBILE: Final = "mobile"
EMAIL: Final = "email"
ADDRESS: Final = "address"
KIT_BORN: Final = "kit_born"
"""Kit code and date of birth: `7K3F9XN2PP|1999-02-14`."""
KIT_FAMILY: Final = "kit_family"
"""Kit code and folded family name."""
NAME_BORN: Final = "name_born"


def kit_born(kit_code: str, iso_date: str) -> str:
    """What the kit-with-date-of-birth index is taken over."""
    return f"{kit_code}|{iso_date}"


def kit_family(kit_code: str, folded_family_name: str) -> str:
    """What the kit-with-family-name index is taken over."""
    return f"{kit_code}|{folded_family_name}"
