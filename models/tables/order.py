"""Orders and what was decided about each."""

from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from models.rules.order import OrderOutcome
from models.tables.columns import document, identity, link, recorded, reference, words


class Order(SQLModel, table=True):
    """One order as taken. Who ordered is in person and contact; only clinical answers stand here."""

    __tablename__ = "kit_order"
    __table_args__ = (
        sa.UniqueConstraint("service_id", "channel", "channel_ref"),
        sa.UniqueConstraint("id", "service_id"),
        sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    ref: str = reference()
    channel: str = Field(max_length=40)
    channel_ref: str = Field(max_length=80)
    inbox_id: int = link("inbox.id")
    person_id: int = Field(sa_type=sa.BigInteger, index=True)
    contact_id: int = link("contact.id")
    authority: str | None = Field(default=None, max_length=9)
    """GSS code of the local authority of residence; None where the postcode is not in the data."""
    last_risk_on: date | None = None
    answers: dict[str, object] = document()
    current_decision_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    received_at: datetime
    cancelled_at: datetime | None = None
    recorded_at: datetime = recorded()


class OrderDecision(SQLModel, table=True):
    """One decision about an order. Insert only; kit_order.current_decision_id says which one stands."""

    __tablename__ = "order_decision"

    id: int | None = identity()
    order_id: int = link("kit_order.id")
    service_id: str = Field(max_length=40)
    outcome: OrderOutcome = words(OrderOutcome, "outcome")
    reasons: list[str] = Field(sa_type=ARRAY(sa.String(60)))
    told: str = Field(max_length=60)
    """Key of what the person is told; the words are in templates/pages."""
    rule_version: str = Field(max_length=40)
    service_version_id: int = link("service_version.id", index=False)
    actor: str = Field(max_length=80)
    because: str = Field(default="", max_length=400)
    decided_at: datetime
    recorded_at: datetime = recorded()
