"""What laboratories are owed, sent and have acknowledged: one request for each dispatched kit."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.lab_request import RequestState
from models.tables.columns import identity, recorded, reference, words


class LabRequest(SQLModel, table=True):
    """One kit of which a lab is told, once. Its first 20 characters of `ref` are the message's control id."""

    __tablename__ = "lab_request"
    __table_args__ = (
        sa.UniqueConstraint("kit_id"),
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.CheckConstraint("(state = 'acknowledged') = (acknowledged_at IS NOT NULL)", name="acknowledged_at_a_time"),
        sa.Index("ix_lab_request_open", "id", postgresql_where=sa.text("state <> 'acknowledged'")),
        sa.Index("ix_lab_request_batch", "batch"),
        sa.Index("ix_lab_request_control_id", "lab", sa.text("left(ref, 20)")),
    )

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    kit_id: int = Field(sa_type=sa.BigInteger)
    lab: str = Field(max_length=40)
    state: RequestState = words(RequestState, "state", default=RequestState.OWED)
    wants_answer: bool = False
    """Whether the contract has the lab acknowledge; otherwise its first result is the only word of it."""
    batch: str = Field(default="", max_length=32)
    """Which sending took it: names the file, so that a sending cut short makes the same file again."""
    claimed_until: datetime | None = None
    """Machine time: a sending that fell silent is looked at after this."""
    error_code: str = Field(default="", max_length=40)
    owed_at: datetime
    sent_at: datetime | None = None
    acknowledged_at: datetime | None = None
    recorded_at: datetime = recorded()
