"""Looks for planted names, numbers and findings wherever software may have kept them without being asked."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import psycopg
from psycopg import sql

BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
HEXADECIMAL: Final = re.compile(rb"(?:\\x)?((?:[0-9a-fA-F]{2}){12,})")
DEEPEST: Final = 3
"""A pickle in base64 in JSON, and that in a bytea column, are three wrappings."""


class Markers:
    """What must be nowhere, in every spelling that a program may give it."""

    def __init__(self, words: Iterable[str]) -> None:
        self.spellings: Mapping[bytes, str] = {
            spelling.casefold().encode(): word for word in words for spelling in _spellings(word)
        }
        self._any = re.compile(b"|".join(re.escape(each) for each in sorted(self.spellings, key=len, reverse=True)))

    def in_bytes(self, raw: bytes) -> set[str]:
        """The markers in these bytes, and in what is wrapped in them as base64 or hexadecimal."""
        return {self.spellings[found] for layer in _layers(raw, DEEPEST) for found in self._any.findall(layer.lower())}

    def in_database(self, connection: "psycopg.Connection[tuple[object, ...]]") -> dict[str, set[str]]:
        """The markers in every row of every table, by table."""
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        assert tables  # a database that holds nothing proves nothing
        found = {}
        for (name,) in tables:
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(str(name))))
            found[str(name)] = self.in_bytes("\n".join(str(row) for (row,) in rows).encode())
        return {name: markers for name, markers in found.items() if markers}

    def in_files(self, folder: Path) -> dict[str, set[str]]:
        """The markers in the name or content of every file below a folder, by file."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        found = {
            path.name: self.in_bytes(str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes())
            for path in files
        }
        return {name: markers for name, markers in found.items() if markers}


def spellings_of_mobile(e164: str) -> tuple[str, ...]:
    """A British mobile without the part that every spelling shares: these are inside all of them."""
    digits = e164.removeprefix("+44")
    return digits, f"{digits[:4]} {digits[4:]}", f"{digits[:4]} {digits[4:7]} {digits[7:]}"


def _spellings(word: str) -> set[str]:
    plain = {word, word.upper(), word.lower()}
    return plain | {quote(each, safe="") for each in plain} | {quote_plus(each) for each in plain} | {
        ascii(word)[1:-1]
    }  # fmt: skip


def _layers(raw: bytes, depth: int) -> Iterator[bytes]:
    yield raw
    if depth == 0:
        return
    for found in BASE64.finditer(raw):
        if (inside := _from_base64(found.group())) is not None:
            yield from _layers(inside, depth - 1)
    for found in HEXADECIMAL.finditer(raw):
        yield from _layers(bytes.fromhex(found.group(1).decode()), depth - 1)


def _from_base64(raw: bytes) -> bytes | None:
    bare = raw.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        return None
