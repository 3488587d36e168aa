"""Leaves a line that nobody can edit: who did or saw what, when, and why (law 10)."""

from datetime import datetime

from sqlmodel import Session

from models.tables.audit import Audit


def record(
    session: Session,
    *,
    action: str,
    subject: str,
    subject_id: int,
    actor: str,
    now: datetime,
    service_id: str = "",
    because: str = "",
    **detail: object,
) -> None:
    """Adds one audit entry to the caller's transaction. `detail` holds ids, codes and counts only.

    Raises ValueError for an anonymous act: every entry names a person or a flow.
    """
    if not actor:
        raise ValueError("an audit entry needs an actor")
    session.add(
        Audit(
            service_id=service_id,
            actor=actor,
            action=action,
            subject=subject,
            subject_id=subject_id,
            because=because,
            detail=detail,
            occurred_at=now,
        )
    )
