"""What a laboratory is told of one of its files: rows taken, rows refused and why, in its own identifiers.

Two forms with the same content: JSON for machines, stable by its keys (docs/lab-integration.md), and text
for people. Message ids, accessions and lines only: nobody's name, date of birth or result.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final, NamedTuple

from models.rules.quarantine import SENTENCES
from models.rules.vocabulary import Quarantine

VERSION: Final = 1
"""Of the keys of the JSON. Raised when one of them changes its meaning."""

_MOST_SHOWN: Final = 50
"""Rows of one reason in the text; the JSON lists all of them."""


class RefusedRow(NamedTuple):
    """One row that was not used. `line` counts as docs/lab-integration.md says for each form of file."""

    line: int
    message_id: str
    accession: str
    reason: Quarantine
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one file. `held_because` is set for one that is kept whole, `known_as` for one that came twice."""

    lab: str
    file: str
    sha256: str
    size_bytes: int
    control_id: str
    received_at: datetime
    finished_at: datetime
    held_because: Quarantine | None
    detail: str
    known_as: str
    """The name under which the very same bytes came before."""
    messages: int
    rows: int
    supporting: int
    """Rows that only support another, such as a cut-off index."""
    known_before: int
    """Rows of messages that had been taken already."""
    refused: Sequence[RefusedRow]

    @property
    def verdict(self) -> str:
        """`taken`, `held` or `known`."""
        if self.held_because is not None:
            return "held"
        return "known" if self.known_as else "taken"

    @property
    def taken(self) -> int:
        """Rows that were stored, or said again what is stored."""
        return self.rows - self.supporting - self.known_before - len(self.refused)


def receipt_as_json(receipt: Receipt) -> bytes:
    """The receipt for machines."""
    told = {
        "receipt": VERSION,
        "lab": receipt.lab,
        "file": receipt.file,
        "sha256": receipt.sha256,
        "size_bytes": receipt.size_bytes,
        "control_id": receipt.control_id or None,
        "received_at": _instant(receipt.received_at),
        "finished_at": _instant(receipt.finished_at),
        "verdict": receipt.verdict,
        "held_because": receipt.held_because.value if receipt.held_because else None,
        "detail": receipt.detail or None,
        "known_as": receipt.known_as or None,
        "messages": receipt.messages,
        "rows": {
            "read": receipt.rows,
            "taken": receipt.taken,
            "refused": len(receipt.refused),
            "supporting": receipt.supporting,
            "known_before": receipt.known_before,
        },
        "refused": [
            {
                "line": row.line,
                "message_id": row.message_id or None,
                "accession": row.accession or None,
                "reason": row.reason.value,
                "detail": row.detail,
            }
            for row in receipt.refused
        ],
    }
    return json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n"


def receipt_as_text(receipt: Receipt) -> bytes:
    """The receipt for people."""
    return "\n".join([*_head(receipt), *_refused(receipt.refused)]).encode() + b"\n"


def _head(receipt: Receipt) -> Iterator[str]:
    yield f"Receipt for {receipt.file}"
    yield ""
    yield f"Laboratory  {receipt.lab}"
    yield f"Received    {_instant(receipt.received_at)}"
    yield f"Finished    {_instant(receipt.finished_at)}"
    yield f"SHA-256     {receipt.sha256 or 'not read'}"
    if receipt.control_id:
        yield f"Control id  {receipt.control_id}"
    yield ""
    if receipt.held_because is not None:
        yield f"HELD: {receipt.held_because.value}. {receipt.detail}"
        yield SENTENCES[receipt.held_because].lab
        if not receipt.rows:
            yield "Nothing of it was used."
    elif receipt.known_as:
        yield f"KNOWN: the very same bytes came before, as {receipt.known_as}. Nothing was done."
    else:
        yield f"TAKEN: {_count(receipt.rows, 'row')} in {_count(receipt.messages, 'message')}."
    if receipt.rows:
        yield ""
        yield f"  {receipt.taken:>9}  taken"
        yield f"  {len(receipt.refused):>9}  refused, see below"
        yield f"  {receipt.supporting:>9}  support another row"
        yield f"  {receipt.known_before:>9}  of messages that we had taken before"


def _refused(rows: Sequence[RefusedRow]) -> Iterator[str]:
    by_reason = sorted(rows, key=lambda row: (row.reason.value, row.line))
    for reason, found in groupby(by_reason, key=lambda row: row.reason):
        alike = list(found)
        yield ""
        yield f"{reason.value}: {_count(len(alike), 'row')}"
        yield f"  {SENTENCES[reason].lab}"
        for row in alike[:_MOST_SHOWN]:
            names = [f"line {row.line}"]
            names += [f"message {row.message_id}"] if row.message_id else []
            names += [f"accession {row.accession}"] if row.accession else []
            yield f"  - {', '.join(names)}: {row.detail}"
        if len(alike) > _MOST_SHOWN:
            yield f"  - and {len(alike) - _MOST_SHOWN} more: the JSON beside this file lists them all."


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
