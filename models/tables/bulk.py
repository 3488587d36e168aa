"""Fast ways in and out for batches: COPY and arrays, inside the caller's transaction."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlmodel import Session


def cursor(session: Session) -> psycopg.Cursor[Any]:
    """A psycopg cursor in the session's own transaction. Pending ORM rows are flushed first."""
    session.flush()
    raw = session.connection().connection.driver_connection
    assert isinstance(raw, psycopg.Connection)  # the only driver we configure
    return raw.cursor()


def copy(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """COPYs rows into a table and says how many. Constraints hold as for any insert."""
    count = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with cursor(session) as on, on.copy(statement) as stream:
        for row in rows:
            stream.write_row(row)
            count += 1
    return count


def next_ids(session: Session, table: str, count: int) -> list[int]:
    """Draws bigint identities from a table's own sequence, so that rows can refer to each other before they exist."""
    if not count:
        return []
    on = cursor(session)
    # The sequence as a constant: looked up once, not once for each id.
    drawn = sql.SQL("SELECT nextval({}::regclass) FROM generate_series(1, {})")
    on.execute(drawn.format(sql.Literal(f"{table}_id_seq"), sql.Literal(count)))
    return [row[0] for row in on]


as_json: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
"""A value for a jsonb column in COPY. One encoder for all: making one for each value takes five times as long."""
