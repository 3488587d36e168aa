"""Who has said STOP to texts, and not START since: asked wherever a text is owed, claimed or about to leave (H24).

The floor of every stage that owes texts. A choice is by person, whatever number or order it came through.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlmodel import Session

from models.tables.bulk import as_array, cursor
from models.tables.person import ChoiceOfTexts, ChoiceSource, TextChoice

OPTED_OUT: Final = (
    "coalesce((SELECT choice FROM text_choice WHERE person_id = {} ORDER BY id DESC LIMIT 1), '') = 'opt_out'"
)
"""SQL that is true of a person who has opted out. To be formatted with the column that holds the person's id."""


def opted_out(session: Session, person_ids: Collection[int]) -> frozenset[int]:
    """Those of these people who want no texts."""
    if not person_ids:
        return frozenset()
    on = cursor(session)
    asked = f"SELECT id FROM unnest(%s::bigint[]) AS asked (id) WHERE {OPTED_OUT.format('asked.id')}"  # noqa: S608 - a constant
    on.execute(asked, (as_array(sorted(person_ids)),))
    return frozenset(person_id for (person_id,) in on.fetchall())


def record_choice(
    session: Session, *, service_id: str, person_id: int, choice: ChoiceOfTexts, source: ChoiceSource, at: datetime
) -> None:
    """Keeps one STOP or START. Whoever never said STOP needs no START, and nobody needs STOP twice."""
    if (choice is ChoiceOfTexts.OPT_OUT) == (person_id in opted_out(session, [person_id])):
        return
    session.add(TextChoice(service_id=service_id, person_id=person_id, choice=choice, source=source, occurred_at=at))
    session.flush()
