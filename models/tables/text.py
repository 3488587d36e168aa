"""Texts owed to residents, the attempts at sending them, and what the provider said. The row is the outbox."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.text import TextClass, TextPurpose
from models.rules.vocabulary import DeliveryStatus
from models.tables.columns import identity, link, recorded, reference, words


class TextState(StrEnum):
    """Where a text is. OWED is the outbox; SENDING and UNSURE are never sent again blindly (law 7)."""

    OWED = "owed"
    SENDING = "sending"
    UNSURE = "unsure"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    """A person took over: a clinic case stands in its place."""


class Text(SQLModel, table=True):
    """One text to one person. Unique by what it tells (ruling 3); the body is never stored."""

    __tablename__ = "text"
    __table_args__ = (
        sa.UniqueConstraint("order_id", "purpose", "tells"),
        sa.ForeignKeyConstraint(["order_id", "service_id"], ["kit_order.id", "kit_order.service_id"]),
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.CheckConstraint("(state = 'cancelled') = (cancelled_because <> '')", name="cancelled_with_a_reason"),
        sa.Index("ix_text_due", "not_before", postgresql_where=sa.text("state = 'owed'")),
        sa.Index("ix_text_unsettled", "state", postgresql_where=sa.text("state IN ('sending', 'unsure', 'accepted')")),
        sa.Index("ix_text_kit", "kit_id"),
    )

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    order_id: int = Field(sa_type=sa.BigInteger)
    kit_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    contact_id: int = link("contact.id", index=False)
    purpose: TextPurpose = words(TextPurpose, "purpose")
    tells: str = Field(max_length=64)
    """A result text: the digest of the versions it tells. A journey text: its occurrence."""
    decision_id: int | None = link("release_decision.id", nullable=True)
    values: bytes
    """Encrypted JSON of the template's values: never a name, number or address."""
    template_version: str = Field(default="", max_length=64)
    body_hmac: bytes | None = None
    state: TextState = words(TextState, "state", default=TextState.OWED)
    status: DeliveryStatus | None = words(DeliveryStatus, "status", nullable=True)
    error_code: str = Field(default="", max_length=20)
    attempts: int = 0
    not_before: datetime
    """Service time: the first moment its window is open."""
    retry_at: datetime | None = None
    """Machine time: after a call that certainly sent nothing, not tried again before this."""
    held_at: datetime | None = None
    """Service time since when it is part of a burst that waits for a person's release (H11; FEATURES 79)."""
    released_by: str | None = Field(default=None, max_length=80)
    """The person who let it go after a hold."""
    owed_at: datetime
    sent_at: datetime | None = None
    settled_at: datetime | None = None
    cancelled_because: str = Field(default="", max_length=60)
    recorded_at: datetime = recorded()


class AttemptState(StrEnum):
    """What one call to the provider came to."""

    STARTED = "started"
    ACCEPTED = "accepted"
    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNSURE = "unsure"
    NEVER_ARRIVED = "never_arrived"


class TextAttempt(SQLModel, table=True):
    """One call to the provider, committed before it was made. `ref` rides in the callback's URL."""

    __tablename__ = "text_attempt"
    __table_args__ = (sa.Index("ix_text_attempt_ask", "ask_at", postgresql_where=sa.text("ask_at IS NOT NULL")),)

    id: int | None = identity()
    ref: str = Field(max_length=32, index=True)
    text_id: int = link("text.id")
    number: int
    provider: str = Field(max_length=20)
    state: AttemptState = words(AttemptState, "state", default=AttemptState.STARTED)
    provider_id: str = Field(default="", max_length=60, index=True)
    status: DeliveryStatus | None = words(DeliveryStatus, "status", nullable=True)
    error_code: str = Field(default="", max_length=20)
    """The first one that the provider gave."""
    ask_at: datetime | None = None
    """Machine time at which the provider is asked about it next, or told to blank it; None: nothing left to ask."""
    lookups: int = 0
    """How often it was asked since its state last changed."""
    redacted_at: datetime | None = None
    """Machine time at which the provider blanked the body."""
    started_at: datetime
    """Machine time."""
    lease_until: datetime
    """Machine time: after this a started attempt is unsure, and is looked up."""
    finished_at: datetime | None = None
    recorded_at: datetime = recorded()


class TextStop(SQLModel, table=True):
    """The kill switch of one class of texts of one service (FEATURES 79)."""

    __tablename__ = "text_stop"
    __table_args__ = (sa.UniqueConstraint("service_id", "text_class"),)

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    text_class: TextClass = words(TextClass, "text_class")
    stopped: bool
