"""Who did or saw what. The application may only add to this table (law 10)."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import document, identity, recorded


class Audit(SQLModel, table=True):
    """One act: a decision, a read of a result, a send, an export. No names, numbers or addresses."""

    __tablename__ = "audit"
    __table_args__ = (
        sa.Index("ix_audit_subject", "subject", "subject_id"),
        sa.Index("ix_audit_transaction", "transaction", postgresql_using="brin"),
    )

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
    transaction: int = Field(
        default=None,
        sa_type=sa.BigInteger,
        nullable=False,
        sa_column_kwargs={"server_default": sa.text("((pg_current_xact_id())::text)::bigint")},
    )
    """Which transaction wrote it: what is older than every open one is complete, and can be sealed."""


class AuditSeal(SQLModel, table=True):
    """A sealed block: all entries of transactions `from_transaction` to before `to_transaction`. Insert only.

    `after_id` sets apart what an earlier server wrote, whose transactions had numbers of their own.
    """

    __tablename__ = "audit_seal"
    __table_args__ = (sa.CheckConstraint("from_transaction < to_transaction", name="goes_forward"),)

    number: int = Field(sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    """From 1, without a gap."""
    after_id: int = Field(sa_type=sa.BigInteger)
    last_id: int = Field(sa_type=sa.BigInteger)
    from_transaction: int = Field(sa_type=sa.BigInteger)
    to_transaction: int = Field(sa_type=sa.BigInteger)
    entries: int
    digest: str = Field(max_length=64)
    recorded_at: datetime = recorded()
