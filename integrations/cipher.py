"""Keeps personal columns secret, and lets equal ones be found without reading them.

`Cipher` encrypts one column of one row; a ciphertext moved to another row or column no longer
opens. `BlindIndex` turns a normalised value into 16 bytes that only the holder of the key can
compute, different for every service and for every use (ruling 15).
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.rules.errors import Code, ServiceError

FORM: Final = b"\x01"
"""First byte of every ciphertext: the form below, so that another one can follow later."""

NONCE_BYTES: Final = 12
"""Random for each encryption. Good for 2^32 of them under one key (NIST SP 800-38D, 8.3): rotate before."""

INDEX_BYTES: Final = 16
"""128 bits: among 10^9 values an accidental collision has a chance of about 1 in 10^21."""


class Cipher:
    """AES-256-GCM for personal columns. `keys` are 32 bytes each by key id; `current` writes, all read.

    A ciphertext is: form byte, length of the key id, key id, nonce, encrypted text with its tag.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = self._keys[current]
        self._header = _header(current)

    def encrypt(self, table: str, column: str, ref: str, plain: str) -> bytes:
        """Locks a text to its table, column and the random id of the row's owner."""
        nonce = os.urandom(NONCE_BYTES)
        place = _place(self._header, table, column, ref)
        return self._header + nonce + self._current.encrypt(nonce, plain.encode(), place)

    def decrypt(self, table: str, column: str, ref: str, sealed: bytes) -> str:
        """The text that was locked to this place.

        Raises ServiceError(SETTINGS) when its key is not loaded, ServiceError(UNEXPECTED) when the
        bytes were changed or belong to another place.
        """
        key_id = key_id_of(sealed)
        key = self._keys.get(key_id)
        if key is None:
            raise ServiceError(Code.SETTINGS, f"KITPOST_DATA_KEYS lacks the key {key_id!r}, which wrote some rows.")
        header = _header(key_id)
        nonce, locked = sealed[len(header) :][:NONCE_BYTES], sealed[len(header) + NONCE_BYTES :]
        try:
            return key.decrypt(nonce, locked, _place(header, table, column, ref)).decode()
        except (InvalidTag, ValueError):
            raise _foreign(table, column) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether a ciphertext was written with the current key; if not, rotation re-encrypts it."""
        return sealed.startswith(self._header)

    def renew(self, table: str, column: str, ref: str, sealed: bytes) -> bytes:
        """The same text under the current key."""
        return self.encrypt(table, column, ref, self.decrypt(table, column, ref, sealed))


class BlindIndex:
    """Keyed hashes for equality. `keys` are 32 bytes each by version; `current` writes, all are looked up."""

    def __init__(self, keys: Mapping[int, bytes], current: int) -> None:
        self._versions = {current: keys[current], **keys}  # the current one first
        self._current = current
        self._derived: dict[tuple[int, str, str], bytes] = {}

    @property
    def current_version(self) -> int:
        """The key version that `index` writes with; stored beside the digest, for rotation."""
        return self._current

    def index(self, domain: str, service_id: str, normalised: str) -> bytes:
        """The 16 bytes to store for a value. `domain` names its use ('mobile', 'kit+dob')."""
        return hmac.digest(self._key(self._current, domain, service_id), normalised.encode(), "sha256")[:INDEX_BYTES]

    def index_many(self, domain: str, service_id: str, normalised: Iterable[str]) -> list[bytes]:
        """`index` of many values, with the key looked up once."""
        key, digest = self._key(self._current, domain, service_id), hmac.digest
        return [digest(key, value.encode(), "sha256")[:INDEX_BYTES] for value in normalised]

    def live(self, domain: str, service_id: str, normalised: str) -> list[bytes]:
        """What to look for: the value under every live key version, the current one first."""
        value = normalised.encode()
        return [
            hmac.digest(self._key(version, domain, service_id), value, "sha256")[:INDEX_BYTES]
            for version in self._versions
        ]

    def content_hmac(self, content: bytes | Iterable[bytes]) -> bytes:
        """32 bytes that recognise a payload, whole or in pieces, without being guessable from its content."""
        running = hmac.new(self._key(self._current, "content", ""), digestmod=hashlib.sha256)
        for piece in [content] if isinstance(content, bytes) else content:
            running.update(piece)
        return running.digest()

    def _key(self, version: int, domain: str, service_id: str) -> bytes:
        wanted = (version, domain, service_id)
        found = self._derived.get(wanted)
        if found is None:
            info = "\x1f".join(("kitpost blind index", str(version), domain, service_id)).encode()
            found = HKDF(SHA256(), length=32, salt=None, info=info).derive(self._versions[version])
            self._derived[wanted] = found
        return found


def key_id_of(sealed: bytes) -> str:
    """Which key a ciphertext was written with. Raises ServiceError(UNEXPECTED) for bytes that are none."""
    if not sealed.startswith(FORM) or len(sealed) < len(FORM) + 1 or len(sealed) < 2 + sealed[1] + NONCE_BYTES:
        raise ServiceError(Code.UNEXPECTED, "A column that should be encrypted holds something else; restore it.")
    return sealed[2 : 2 + sealed[1]].decode("ascii", errors="replace")


def _header(key_id: str) -> bytes:
    name = key_id.encode("ascii")
    return FORM + bytes([len(name)]) + name


def _place(header: bytes, table: str, column: str, ref: str) -> bytes:
    return header + f"{table}|{column}|{ref}".encode()


def _foreign(table: str, column: str) -> ServiceError:
    return ServiceError(
        Code.UNEXPECTED,
        f"A value in {table}.{column} was changed or copied from another row, and does not open; restore it.",
    )
