"""What postage is owed, bought and cancelled: one row for each parcel that leaves with a code of its own."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.postage import PostageState, PostWay
from models.tables.columns import identity, recorded, words


class Postage(SQLModel, table=True):
    """Postage of one outbound parcel. `reference` is the parcel's code when its paper was released.

    New paper is a new code, and a new row: what was bought for the old one is cancelled.
    """

    __tablename__ = "postage"
    __table_args__ = (
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.CheckConstraint("(state = 'buying') = (claimed_until IS NOT NULL)", name="buying_on_a_lease"),
        sa.Index("ix_postage_kit", "kit_id"),
        sa.Index("ix_postage_batch", "batch"),
        sa.Index("ix_postage_open", "id", postgresql_where=sa.text("state IN ('owed', 'buying', 'unsure', 'bought')")),
    )

    id: int | None = identity()
    reference: str = Field(max_length=12, unique=True)
    service_id: str = Field(max_length=40)
    kit_id: int = Field(sa_type=sa.BigInteger)
    batch: str = Field(max_length=32)
    """The print batch whose release owed it."""
    way: PostWay = words(PostWay, "way")
    state: PostageState = words(PostageState, "state", default=PostageState.OWED)
    tries: int = 0
    lookups: int = 0
    """Look-ups since the last try that found nothing."""
    courier_id: str = Field(default="", max_length=40)
    label_key: str = Field(default="", max_length=120)
    """Where the label lies in the store: no name and no address stand in the key."""
    error_code: str = Field(default="", max_length=80)
    """Numbers and names of fields, never their values."""
    claimed_until: datetime | None = None
    """Machine time."""
    ask_at: datetime | None = None
    """Machine time at which the courier is asked about it: whether it was bought, or for its label."""
    owed_at: datetime
    bought_at: datetime | None = None
    recorded_at: datetime = recorded()
