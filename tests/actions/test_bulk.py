"""Rows by COPY: whatever a cell holds comes back as it was."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.tables.bulk import NULL, copy_text, next_ids

cells = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"\x00{NULL}"), max_size=20)
    | st.text('\\\t\n\r.N{}"', max_size=6)
    | st.none()
)


@given(st.lists(st.tuples(cells, cells), max_size=30))
@example([("plain", "")] * 1_001 + [("\\x00", None)])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cell_comes_back_as_it_was(begin, rows):
    written = [tuple(NULL if cell is None else cell for cell in row) for row in rows]
    with begin() as session:
        session.execute(text("CREATE TEMP TABLE cells (first text, second text) ON COMMIT DROP"))
        copy_text(session, "cells", ("first", "second"), written)
        read = session.execute(text("SELECT first, second FROM cells")).all()
    assert [tuple(row) for row in read] == rows


def test_ids_are_drawn_once_each(begin):
    with begin() as session:
        drawn = (
            next_ids(session, "kit_event", 3) + next_ids(session, "kit_event", 0) + next_ids(session, "kit_event", 2)
        )
    assert len(set(drawn)) == len(drawn) == 5
