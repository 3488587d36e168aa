"""Who did or saw what. The application may only add to this table (law 10)."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import document, identity, recorded


class Audit(SQLModel, table=True):
    """One act: a decision, a read of a result, a send, an export. No names, numbers or addresses."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index("ix_audit_subject", "subject", "subject_id"),)

    id: int | None = identity()
    service_id: str = Field(default="", max_length=40)
    actor: str = Field(max_length=80)
    action: str = Field(max_length=60)
    subject: str = Field(max_length=40)
    subject_id: int = Field(sa_type=sa.BigInteger)
    because: str = Field(default="", max_length=400)
    detail: dict[str, object] = document(dict)
    occurred_at: datetime
    recorded_at: datetime = recorded()
