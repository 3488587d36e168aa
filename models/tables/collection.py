"""Parcels that are fetched at a counter."""

from datetime import date, datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.collection import CollectionState
from models.tables.columns import identity, recorded, words


class Collection(SQLModel, table=True):
    """One kit's way over one counter. The code itself is in the text alone; here is what recognises it."""

    __tablename__ = "collection"
    __table_args__ = (
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.CheckConstraint("(state = 'waiting') <= (hold_until IS NOT NULL)", name="waits_until_a_day"),
        sa.CheckConstraint("(state = 'collected') = (collected_at IS NOT NULL)", name="collected_at_a_time"),
        sa.Index(
            "ix_collection_code",
            "service_id",
            "code_digest",
            unique=True,
            postgresql_where=sa.text("state = 'waiting' AND code_digest IS NOT NULL"),
        ),
        sa.Index(
            "ix_collection_open",
            "service_id",
            "point",
            postgresql_where=sa.text("state IN ('on_the_way', 'waiting', 'not_collected')"),
        ),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    kit_id: int = Field(sa_type=sa.BigInteger, unique=True)
    point: str = Field(max_length=40)
    state: CollectionState = words(CollectionState, "state", default=CollectionState.ON_THE_WAY)
    code_digest: bytes | None = None
    """A keyed digest of the code that fetches it now."""
    codes: int = 0
    """How many codes it has had: a new one makes the last one worthless."""
    hold_until: date | None = None
    """The last London date on which it can be fetched."""
    dispatched_at: datetime
    arrived_at: datetime | None = None
    collected_at: datetime | None = None
    over_at: datetime | None = None
    """From when nobody might have it any more."""
    back_at: datetime | None = None
    recorded_at: datetime = recorded()
