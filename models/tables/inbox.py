"""What came from outside, stored as it came, before anything is read into it."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import identity, recorded, reference, words


class InboxKind(StrEnum):
    """What arrived."""

    ORDER = "order"
    TEXT_STATUS = "text_status"
    TEXT_REPLY = "text_reply"
    COURIER_EVENT = "courier_event"


class InboxState(StrEnum):
    """What became of it."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class Inbox(SQLModel, table=True):
    """One thing from outside. `key` is its identity as ruling 15 defines it; the body is encrypted."""

    __tablename__ = "inbox"
    __table_args__ = (
        sa.UniqueConstraint("kind", "service_id", "key"),
        sa.Index("ix_inbox_waiting", "kind", "id", postgresql_where=sa.text("state = 'waiting'")),
    )

    id: int | None = identity()
    ref: str = reference()
    kind: InboxKind = words(InboxKind, "kind")
    service_id: str = Field(default="", max_length=40)
    key: str = Field(max_length=200)
    content_hmac: bytes
    body: bytes
    state: InboxState = words(InboxState, "state", default=InboxState.WAITING)
    reason: str = Field(default="", max_length=200)
    received_at: datetime
    recorded_at: datetime = recorded()
