"""Sealed records: staff as patients, and whoever must not be looked at in passing (H26).

A seal hides a person's cases and kits from everybody until they break it with a reason, each for
themselves and for a shift. Every seal and every break is a row that nobody can change.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select

from models.actions import audit
from models.rules.errors import Code, ServiceError
from models.rules.staff import Actor
from models.tables.person import PersonSeal, SealBreak

OPEN_FOR: Final = timedelta(hours=8)
"""How long a broken seal lets its breaker look: a shift."""

LONGEST_REASON: Final = 400
SHORTEST_REASON: Final = 10


def is_sealed(session: Session, person_id: int) -> bool:
    """Whether this person's record is sealed: the newest word about it counts."""
    newest = select(PersonSeal.sealed).where(col(PersonSeal.person_id) == person_id)
    return bool(session.exec(newest.order_by(col(PersonSeal.id).desc()).limit(1)).first())


def is_shut(session: Session, person_id: int | None, by: Actor, now: datetime) -> bool:
    """Whether a person's record is sealed, and this member of staff has not broken the seal for a shift."""
    if person_id is None or not is_sealed(session, person_id):
        return False
    broken = select(SealBreak.id).where(
        col(SealBreak.person_id) == person_id,
        col(SealBreak.actor) == by.audit_name,
        col(SealBreak.occurred_at) > now - OPEN_FOR,
    )
    return session.exec(broken.limit(1)).first() is None


def check_unsealed(session: Session, person_id: int | None, by: Actor, now: datetime) -> None:
    """Raises ServiceError(SEALED) unless this person may be looked at by this member of staff now."""
    if is_shut(session, person_id, by, now):
        raise ServiceError(Code.SEALED, "This record is sealed: say why you must open it.")


def set_seal(session: Session, *, person_id: int, service_id: str, sealed: bool, by: Actor, now: datetime) -> None:
    """Seals a person's record, or takes the seal away."""
    session.add(PersonSeal(person_id=person_id, sealed=sealed, actor=by.audit_name, occurred_at=now))
    audit.record(
        session,
        action="record.sealed" if sealed else "record.unsealed",
        subject="person",
        subject_id=person_id,
        actor=by.audit_name,
        now=now,
        service_id=service_id,
    )


def break_seal(session: Session, *, person_id: int, service_id: str, because: str, by: Actor, now: datetime) -> None:
    """Opens a sealed record to one member of staff for a shift. Raises ServiceError(BAD_INPUT) without a reason."""
    because = because.strip()
    if not SHORTEST_REASON <= len(because) <= LONGEST_REASON:
        raise ServiceError(
            Code.BAD_INPUT, f"Say why, in {SHORTEST_REASON} to {LONGEST_REASON} characters and without a name."
        )
    session.add(SealBreak(person_id=person_id, actor=by.audit_name, occurred_at=now))
    audit.record(
        session,
        action="record.seal_broken",
        subject="person",
        subject_id=person_id,
        actor=by.audit_name,
        now=now,
        service_id=service_id,
        because=because,
    )
