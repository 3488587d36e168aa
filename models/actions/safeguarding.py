"""What staff learn about somebody's safety: kept apart and encrypted, and given to whoever leads on safeguarding."""

import secrets
from datetime import datetime
from typing import Final

from sqlmodel import Session

from models.actions import owed
from models.actions.case import changed, locked, order_of
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.secrets import Cipher
from models.rules.service import Service
from models.rules.staff import Actor
from models.tables.person import SafeguardingNote

LONGEST_NOTE: Final = 2000


def note_concern(
    session: Session, ref: str, *, by: Actor, version: int, note: str, now: datetime, service: Service, cipher: Cipher
) -> None:
    """Writes a safeguarding note about the person of a case, and opens a safeguarding case unless this is one.

    Whoever works the case may write one, and only who leads on safeguarding reads it.
    Raises ServiceError(BAD_INPUT) for a note without words, ServiceError(NOT_NOW) where the case is about no person.
    """
    case = locked(session, ref, by, version, now=now)
    order = order_of(session, case)
    if order is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no person: hand it over, and say why.")
    if not note.strip() or len(note) > LONGEST_NOTE:
        raise ServiceError(Code.BAD_INPUT, f"Say what you learnt, in up to {LONGEST_NOTE} characters.")
    note_ref = secrets.token_hex(16)
    session.add(
        SafeguardingNote(
            service_id=case.service_id,
            person_id=order.person_id,
            order_id=order.id,
            ref=note_ref,
            flags=1,
            note=cipher.encrypt("safeguarding_note", "note", note_ref, note.strip()),
        )
    )
    if case.kind is not CaseKind.SAFEGUARDING:
        concern = owed.OwedCase(
            f"safeguarding_note:{case.ref}", CaseKind.SAFEGUARDING, order_id=order.id, detail={"why": "staff_concern"}
        )
        owed.owe_cases(session, [concern], service=service, now=now, actor=by.audit_name)
    changed(session, case, "case.safeguarding_noted", by, now)
