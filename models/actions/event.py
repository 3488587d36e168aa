"""Writes what happened to a kit: the one place from which its timeline is read."""

from datetime import datetime

from sqlmodel import Session

from models.tables.kit import KitEvent


def record(
    session: Session,
    *,
    kit_id: int,
    service_id: str,
    kind: str,
    actor: str,
    at: datetime,
    **detail: object,
) -> None:
    """Adds one event in the world's time to the caller's transaction. `detail` holds codes and ids only."""
    session.add(KitEvent(kit_id=kit_id, service_id=service_id, kind=kind, detail=detail, actor=actor, occurred_at=at))
