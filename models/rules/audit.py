"""How audit entries are chained, so that whoever changes, adds or takes out one is found out (law 10).

A block's digest is SHA-256 over the digest of the block before it and its entries in order of id, each as
one line of JSON. The rule is plain on purpose: an auditor can check it with other tools.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

FIRST: Final = "0" * 64
"""What stands before the first block."""


class Entry(NamedTuple):
    """One audit entry as it is chained. Instants are aware."""

    id: int
    service_id: str
    actor: str
    action: str
    subject: str
    subject_id: int
    because: str
    detail: Mapping[str, object]
    occurred_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Chained:
    """What a block comes to."""

    entries: int
    digest: str


def chain(before: str, entries: Iterable[Entry]) -> Chained:
    """The digest of a block that follows the block with digest `before`. Entries come in order of id."""
    whole, count = hashlib.sha256(before.encode("ascii")), 0
    for entry in entries:
        whole.update(_line(entry))
        count += 1
    return Chained(count, whole.hexdigest())


def _line(entry: Entry) -> bytes:
    values = [each.astimezone(UTC).isoformat() if isinstance(each, datetime) else each for each in entry]
    return json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
