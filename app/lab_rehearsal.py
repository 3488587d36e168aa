"""What a changed lab map would make of traffic that was read before: every difference, and nothing is stored.

The files are read twice, under the map in force and under the new one. Pure reading on both sides: what
matching would say of a row is the same for both.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import zip_longest
from typing import Final

from app.lab_reading import Ingest, UnreadableFileError, messages_of
from models.actions import lab_file
from models.actions.lab_file import KeptFile
from models.rules.errors import Code, ServiceError
from models.rules.lab import LabMap, LabMessage
from models.rules.reading import Detail, Finding, Reading
from models.rules.result import interpret

MOST_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Example:
    """One row that would read differently: where it stands, and nothing of its person."""

    file_ref: str
    line: int
    accession: str
    was: str
    would_be: str


@dataclass(slots=True)
class Rehearsal:
    """Every difference between two maps over the same traffic."""

    files: int = 0
    """Files that were read to their end under both maps."""
    rows: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often one reading would become another."""
    examples: list[Example] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Files of which that can't be said, by reference, and why: of their rows, only those before the trouble count."""


def rehearse(ingest: Ingest, new: LabMap, *, days: int = 30) -> Rehearsal:
    """Reads the lab's finished files of the last days under both maps; one that can't be read stops no other.

    Raises ServiceError(NOT_FOUND) for a new lab.
    """
    old = ingest.maps.get(new.lab)
    if old is None:
        raise ServiceError(Code.NOT_FOUND, f"{new.lab} has no map in force to compare with: try kitpost lab explain.")
    with ingest.begin() as session:
        files = lab_file.kept_since(session, new.lab, ingest.clock() - timedelta(days=days))
    told = Rehearsal()
    for file in files:
        try:
            for was, would_be in zip_longest(_readings(ingest, file, old), _readings(ingest, file, new)):
                _compare(told, file, was, would_be)
        except UnreadableFileError as unreadable:
            told.unread[file.ref] = unreadable.message
        else:
            told.files += 1
    return told


def _readings(ingest: Ingest, file: KeptFile, lab_map: LabMap) -> Iterator[dict[tuple[int, str], list[Reading]]]:
    """Of each message, what each of its rows was read as."""
    for message in messages_of(ingest, file, lab_map):
        yield _by_row(message, lab_map)


def _by_row(message: LabMessage, lab_map: LabMap) -> dict[tuple[int, str], list[Reading]]:
    found: dict[tuple[int, str], list[Reading]] = {}
    for reading in interpret(message, lab_map):
        found.setdefault((reading.position, reading.row_key), []).append(reading)
    return found


def _compare(
    told: Rehearsal,
    file: KeptFile,
    was: dict[tuple[int, str], list[Reading]] | None,
    would_be: dict[tuple[int, str], list[Reading]] | None,
) -> None:
    for place in sorted({*(was or {}), *(would_be or {})}):
        told.rows += 1
        before, after = ((each or {}).get(place, []) for each in (was, would_be))
        words = _said(before), _said(after)
        if words[0] != words[1]:
            told.changes[words] += 1
            if len(told.examples) < MOST_EXAMPLES:
                known = next((r.accession for r in (*before, *after) if not isinstance(r, Detail)), "")
                told.examples.append(Example(file.ref, place[0], known, *words))


def _said(readings: list[Reading]) -> str:
    """What a row is read as, in words that may be printed: test, site and outcome, or why it is set aside."""
    said = []
    for reading in readings:
        if isinstance(reading, Finding):
            said.append(f"{reading.test} {reading.site} {reading.status} {reading.word}")
        else:
            said.append("no result of its own" if isinstance(reading, Detail) else f"set aside: {reading.reason}")
    return ", ".join(sorted(said)) or "not there"
