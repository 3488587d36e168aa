"""Puts together what a laboratory is told of a finished file.

Reads only: the receipt that is owed is derived from rows, and comes out the same however often it is made.
"""

from typing import Final

from sqlmodel import Session

from models.rules.lab_receipt import Receipt, RefusedRow
from models.rules.vocabulary import Quarantine
from models.tables.bulk import cursor

_FILE: Final = """
    SELECT f.lab, f.object_key, f.content_sha256, f.size_bytes, f.control_id, f.arrived_at, f.finished_at,
           f.held_because, f.detail, coalesce(known.object_key, ''), coalesce(known.content_sha256, ''),
           f.messages_read, f.rows_read, f.rows_detail, f.rows_replayed
    FROM lab_file f LEFT JOIN lab_file known ON known.id = f.duplicate_of_id
    WHERE f.id = %s AND f.finished_at IS NOT NULL
"""
# A row that names two kits waits once for each, and is refused once.
_REFUSED: Final = """
    SELECT DISTINCT ON (position, row_key) position, message_id, accession, reason, detail
    FROM quarantined_row WHERE file_id = %s ORDER BY position, row_key, id
"""


def receipt_of(session: Session, file_id: int) -> Receipt:
    """What became of one finished file, in its laboratory's own identifiers."""
    on = cursor(session)
    on.execute(_FILE, (file_id,))
    found = on.fetchone()
    assert found is not None, "only finished files have a receipt"
    lab, key, sha256, size, control_id, received_at, finished_at, because, detail, known, known_sha256 = found[:11]
    messages, rows, supporting, known_before = found[11:]
    on.execute(_REFUSED, (file_id,))
    return Receipt(
        lab=lab,
        file=_name(key),
        sha256=sha256 or known_sha256,
        size_bytes=size,
        control_id=control_id,
        received_at=received_at,
        finished_at=finished_at,
        held_because=Quarantine(because) if because else None,
        detail=detail,
        known_as=_name(known),
        messages=messages,
        rows=rows,
        supporting=supporting,
        known_before=known_before,
        refused=[
            RefusedRow(line, message, accession, Quarantine(reason), why)
            for line, message, accession, reason, why in on
        ],
    )


def finished_file(session: Session, *, lab: str, digest: str) -> int | None:
    """The newest finished file of a lab whose SHA-256 begins so; None while it waits or was never seen."""
    on = cursor(session)
    on.execute(
        """
        SELECT id FROM lab_file WHERE lab = %s AND left(content_sha256, %s) = %s AND finished_at IS NOT NULL
        ORDER BY id DESC LIMIT 1
        """,
        (lab, len(digest), digest),
    )
    found = on.fetchone()
    return int(found[0]) if found else None


def verdicts_changed(session: Session, *, lab: str) -> set[str]:
    """The SHA-256 of every file with a later verdict than a hold: let go on by a person, or sent again as it was."""
    on = cursor(session)
    on.execute(
        """
        SELECT DISTINCT held.content_sha256 FROM lab_file held JOIN lab_file later USING (lab, content_sha256)
        WHERE lab = %s AND held.state = 'held' AND later.id > held.id AND later.finished_at IS NOT NULL
        """,
        (lab,),
    )
    return {sha256 for (sha256,) in on}


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]
