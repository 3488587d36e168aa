"""What was noticed at the doors by which laboratories send messages one by one: counts, and never what was sent."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.vocabulary import Quarantine
from models.tables.columns import identity, recorded, words
from models.tables.lab_message import WayIn


class LabNotice(SQLModel, table=True):
    """Something that was refused, or that was taken under an id used before. The same again is counted, not added."""

    __tablename__ = "lab_notice"
    __table_args__ = (
        sa.UniqueConstraint("lab", "way", "reason", "content_hmac"),
        sa.Index("ix_lab_notice_lately", "lab", "last_at"),
    )

    id: int | None = identity()
    lab: str = Field(max_length=40)
    way: WayIn = words(WayIn, "way")
    reason: Quarantine = words(Quarantine, "reason")
    refused: bool
    """Whether nothing of it was kept; else it was stored and is read like any other."""
    content_hmac: bytes
    """Tells a retry from another message. Of what was not read, of nothing."""
    times: int
    first_at: datetime
    last_at: datetime
    recorded_at: datetime = recorded()
