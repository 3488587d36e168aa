"""Fast ways in and out for batches: COPY and arrays, inside the caller's transaction."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Final, cast

import psycopg
from psycopg import sql
from sqlalchemy import ARRAY, BigInteger, ColumnElement, any_, literal
from sqlmodel import Session

NULL: Final = "\x01"
"""How `copy_text` is told that there is nothing. No text of ours or a lab's holds it: it is no printable character."""

_LINES_AT_ONCE: Final = 1_000
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def cursor(session: Session) -> psycopg.Cursor[Any]:
    """A psycopg cursor in the session's own transaction. Pending ORM rows are flushed first."""
    session.flush()
    raw = session.connection().connection.driver_connection
    assert isinstance(raw, psycopg.Connection)  # the only driver we configure
    return raw.cursor()


def one_of(column: object, ids: Collection[int | None]) -> ColumnElement[bool]:
    """A row's key among many, as one parameter: the query is the same however many, and is not made anew."""
    return cast("ColumnElement[int]", column) == any_(literal(list(ids), ARRAY(BigInteger)))


def copy(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """COPYs rows into a table and says how many. Constraints hold as for any insert."""
    count = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(*_names(table, columns))
    with cursor(session) as on, on.copy(statement) as stream:
        for row in rows:
            stream.write_row(row)
            count += 1
    return count


def copy_text(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """`copy` for many rows whose cells are text already, NULL where there is nothing: eight times as fast a row."""
    left = iter(rows)
    block = list(islice(left, _LINES_AT_ONCE))
    if not block:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN (NULL {})").format(*_names(table, columns), sql.Literal(NULL))
    with cursor(session) as on, on.copy(statement) as stream:
        while block:
            stream.write(_lines(block, len(columns)))
            block = list(islice(left, _LINES_AT_ONCE))


def _names(table: str, columns: Sequence[str]) -> tuple[sql.Composable, sql.Composable]:
    return sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))


def _lines(rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows as COPY reads them. Most hold nothing to escape, which is seen of all of them at once."""
    text = "\n".join(map("\t".join, rows))
    is_plain = text.count("\n") == len(rows) - 1 and text.count("\t") == len(rows) * (width - 1)
    if not is_plain or "\\" in text or "\r" in text:
        text = "\n".join(["\t".join([cell.translate(_ESCAPES) for cell in row]) for row in rows])
    return f"{text}\n"


def as_text(instant: datetime | None) -> str:
    """A time as a cell of `copy_text`. The rows of a message share theirs."""
    return NULL if instant is None else _written(instant)


_written: Final = lru_cache(maxsize=4_096)(str)


def as_array(values: Iterable[object]) -> str:
    """A PostgreSQL array of values written as text, None for nothing: psycopg would look closely at each of them."""
    return "{" + ",".join(["NULL" if value is None else _quoted(str(value)) for value in values]) + "}"


def as_ids(values: Iterable[int]) -> str:
    """A PostgreSQL array of numbers written as text: `as_array` where there is nothing to quote."""
    return "{" + ",".join(map(str, values)) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def next_ids(session: Session, table: str, count: int) -> list[int]:
    """Draws bigint identities from a table's own sequence, so that rows can refer to each other before they exist."""
    if not count:
        return []
    on = cursor(session)
    # The sequence as a constant: looked up once, not once for each id.
    drawn = sql.SQL("SELECT array_agg(nextval({}::regclass)) FROM generate_series(1, {})")
    on.execute(drawn.format(sql.Literal(f"{table}_id_seq"), sql.Literal(count)))
    [ids] = on.fetchall()[0]
    return cast("list[int]", ids)


as_json: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
"""A value for a jsonb column in COPY. One encoder for all: making one for each value takes five times as long."""
