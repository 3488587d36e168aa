"""Whether a file on a laboratory's server is still being written, seen by looking twice (lab-messages.md 8)."""

from collections.abc import Collection
from typing import Final

from sqlmodel import Session

from models.tables.bulk import cursor

STILL_SECONDS: Final = 60
"""Machine time between two looks at a file that must find it the same. Source: lab-messages.md 8."""


def has_lain_still(session: Session, *, lab: str, look: bytes) -> bool:
    """Whether a file was seen just as it is now a minute ago or longer. The first look is remembered."""
    on = cursor(session)
    on.execute("INSERT INTO lab_drop_look (lab, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING", (lab, look))
    on.execute(
        """
        SELECT recorded_at <= clock_timestamp() - make_interval(secs => %s) FROM lab_drop_look
        WHERE lab = %s AND digest = %s
        """,
        (STILL_SECONDS, lab, look),
    )
    found = on.fetchone()
    return found is not None and bool(found[0])


def forget_looks(session: Session, *, lab: str, but: Collection[bytes]) -> None:
    """Only what this visit saw again counts at the next one: a file that changed, or was away, is new."""
    cursor(session).execute("DELETE FROM lab_drop_look WHERE lab = %s AND NOT digest = ANY(%s)", (lab, list(but)))
