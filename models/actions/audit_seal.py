"""Seals the audit in blocks behind its writers, who never wait for it, and proves it whole (law 10).

A block takes the entries of all transactions that are over, and of none that still runs: nothing can come
into it later. What a copy outside the database remembers of each block finds out whoever rewrites the chain.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from sqlmodel import Session

from models.rules.audit import FIRST, Entry, chain
from models.tables.bulk import cursor

MOST_ENTRIES: Final = 20_000
"""Of one block, so that a long backlog is sealed in bounded steps."""

_ONE_SEALER: Final = 0x6B70736561  # 'kpsea'
"""Advisory lock: two sealers would make the same block."""

_ENTRIES: Final = """
    SELECT id, service_id, actor, action, subject, subject_id, because, detail, occurred_at, recorded_at FROM audit
    WHERE transaction >= %(from)s AND transaction < %(to)s AND id > %(after)s AND id <= %(last)s ORDER BY id
"""

_BLOCKS: Final = "SELECT number, entries, digest, after_id, last_id, from_transaction, to_transaction FROM audit_seal"

_BEYOND: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Block:
    """One sealed block."""

    number: int
    entries: int
    digest: str
    after_id: int
    last_id: int
    from_transaction: int
    to_transaction: int

    @property
    def bounds(self) -> dict[str, int]:
        """For `_ENTRIES`."""
        return {
            "from": self.from_transaction,
            "to": self.to_transaction,
            "after": self.after_id,
            "last": self.last_id,
        }


@dataclass(slots=True)
class Verdict:
    """What came of looking at the whole audit. No sentence in `broken`: it is whole."""

    blocks: int = 0
    entries: int = 0
    fresh: int = 0
    """Entries that are not sealed yet."""
    outside: int = 0
    """Seals that are kept outside the database."""
    broken: list[str] = field(default_factory=list)


def newest_seal(session: Session) -> Block | None:
    """The last block that was sealed; None before the first."""
    on = cursor(session)
    on.execute(f"{_BLOCKS} ORDER BY number DESC LIMIT 1")
    row = on.fetchone()
    return Block(*row) if row else None


def seal_next(session: Session) -> Block | None:
    """Seals the next block; None where no entry waits, or none that is older than every open transaction."""
    on = cursor(session)
    on.execute("SELECT pg_advisory_xact_lock(%s)", (_ONE_SEALER,))
    last = newest_seal(session)
    on.execute("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint")
    over = _number(on)
    after, begins, ends = _next_bounds(last, over)
    on.execute(
        """
        SELECT transaction FROM audit WHERE transaction >= %s AND transaction < %s AND id > %s
        ORDER BY transaction OFFSET %s LIMIT 1
        """,
        (begins, ends, after, MOST_ENTRIES),
    )
    beyond = on.fetchone()
    if beyond is not None:
        ends = max(int(beyond[0]), begins + 1)
    on.execute(
        "SELECT coalesce(max(id), 0) FROM audit WHERE transaction >= %s AND transaction < %s AND id > %s",
        (begins, ends, after),
    )
    last_id = _number(on)
    if not last_id:
        return None
    number, before = (last.number + 1, last.digest) if last else (1, FIRST)
    unsealed = Block(number, 0, "", after, last_id, begins, ends)
    on.execute(_ENTRIES, unsealed.bounds)
    chained = chain(before, map(Entry._make, on))
    block = Block(number, chained.entries, chained.digest, after, last_id, begins, ends)
    on.execute(
        """
        INSERT INTO audit_seal (number, entries, digest, after_id, last_id, from_transaction, to_transaction)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (block.number, block.entries, block.digest, after, last_id, begins, ends),
    )
    return block


def _next_bounds(last: Block | None, over: int) -> tuple[int, int, int]:
    """(after id, from transaction, to transaction) of the next block.

    A database that was moved to another server counts its transactions anew. What the old one wrote and did
    not seal is one block; after that only newer entries are looked at.
    """
    if last is None:
        return 0, 0, over
    if last.to_transaction == _BEYOND:
        return last.last_id, 0, over
    if over < last.to_transaction:
        return last.after_id, last.to_transaction, _BEYOND
    return last.after_id, last.to_transaction, over


def verify(session: Session, outside: Iterable[tuple[int, str]]) -> Verdict:
    """Reads every entry and chains it again. `outside`: number and digest of each block as kept elsewhere."""
    on = cursor(session)
    on.execute(f"{_BLOCKS} ORDER BY number")
    blocks = [Block(*row) for row in on]
    verdict = Verdict(blocks=len(blocks))
    before, newest = FIRST, Block(0, 0, FIRST, 0, 0, -1, 0)
    for place, block in enumerate(blocks, 1):
        if block.number != place:
            verdict.broken.append(f"Block {place} is missing.")
            break
        on.execute(_ENTRIES, block.bounds)
        found = chain(before, map(Entry._make, on))
        verdict.entries += found.entries
        if found.entries != block.entries:
            verdict.broken.append(f"Block {place} was sealed with {block.entries} entries and has {found.entries}.")
        elif found.digest != block.digest:
            verdict.broken.append(f"An entry of block {place} is not what was sealed, or a block before it.")
        before, newest = block.digest, block
    after = newest.last_id if newest.to_transaction == _BEYOND else newest.after_id
    since = 0 if newest.to_transaction == _BEYOND else newest.to_transaction
    on.execute("SELECT count(*), count(*) FILTER (WHERE transaction >= %s AND id > %s) FROM audit", (since, after))
    total, verdict.fresh = on.fetchone() or (0, 0)
    strays = total - verdict.fresh - verdict.entries
    if strays:
        verdict.broken.append(f"{strays} entries stand where a block was sealed without them.")
    known = {block.number: block.digest for block in blocks}
    for number, digest in outside:
        verdict.outside += 1
        if known.get(number) != digest:
            verdict.broken.append(
                f"Block {number} is not the one that was kept outside: a restored backup, or rewritten."
            )
    return verdict


def _number(on: "psycopg.Cursor[Any]") -> int:
    found = on.fetchone()
    assert found is not None  # an aggregate or a constant
    return int(found[0])
