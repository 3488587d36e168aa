"""Lab messages that came one by one, over HTTP or MLLP: stored before they are answered, read as files later."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.lab import Form
from models.tables.columns import identity, recorded, reference, words


class WayIn(StrEnum):
    """How a message came."""

    HTTP = "http"
    MLLP = "mllp"


class MessageState(StrEnum):
    """How far a message got on its way to the readers."""

    WAITING = "waiting"
    FILING = "filing"
    """Its place among the lab's files is decided; whoever finds it puts it there."""
    FILED = "filed"


class LabMessageIn(SQLModel, table=True):
    """One message as a lab sent it. `key` is the lab's own name for it: correlation id or control id (MSH-10).

    A correlation id names one document, as HTTP's contract says. A control id is unique by promise only.
    """

    __tablename__ = "lab_message_in"
    __table_args__ = (
        sa.UniqueConstraint("way", "lab", "service_id", "key", "content_hmac"),
        sa.Index(
            "ix_lab_message_in_document",
            "lab",
            "service_id",
            "key",
            unique=True,
            postgresql_where=sa.text("way = 'http'"),
        ),
        sa.CheckConstraint("(state = 'waiting') = (object_key = '')", name="filed_somewhere"),
        sa.Index("ix_lab_message_in_open", "lab", "id", postgresql_where=sa.text("state <> 'filed'")),
        sa.Index("ix_lab_message_in_file", "object_key", postgresql_where=sa.text("object_key <> ''")),
    )

    id: int | None = identity()
    ref: str = reference()
    way: WayIn = words(WayIn, "way")
    lab: str = Field(max_length=40)
    service_id: str = Field(default="", max_length=40)
    """Whose contract the sender's key is for; '' where a connection speaks for the whole lab."""
    key: str = Field(max_length=200)
    form: Form = words(Form, "form")
    content_hmac: bytes
    body: bytes
    """Encrypted; blank once the message stands in a file of the store."""
    state: MessageState = words(MessageState, "state", default=MessageState.WAITING)
    object_key: str = Field(default="", max_length=400)
    """The file of the store that it was put into, with those that came beside it."""
    claimed_until: datetime | None = None
    """Machine time: a filing that fell silent is done by another process after this."""
    received_at: datetime
    recorded_at: datetime = recorded()
