"""What lies in the packing room, by lot, and which lots are in which kit."""

from datetime import date, datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import identity, link, recorded, reference


class StockLot(SQLModel, table=True):
    """One delivery of one component under its maker's lot number. `on_hand` is what its moves add up to."""

    __tablename__ = "stock_lot"
    __table_args__ = (
        sa.UniqueConstraint("service_id", "component", "lot"),
        sa.CheckConstraint("on_hand >= 0", name="never_less_than_nothing"),
    )

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    component: str = Field(max_length=40)
    lot: str = Field(max_length=40)
    expires_on: date
    """Last London date on which it may be used."""
    on_hand: int
    recalled_at: datetime | None = None
    created_at: datetime
    recorded_at: datetime = recorded()


class StockMove(SQLModel, table=True):
    """Pieces in or out of a lot, and why. Insert only."""

    __tablename__ = "stock_move"

    id: int | None = identity()
    lot_id: int = link("stock_lot.id")
    kit_id: int | None = link("kit.id", nullable=True)
    pieces: int
    because: str = Field(max_length=200)
    actor: str = Field(max_length=80)
    moved_at: datetime
    recorded_at: datetime = recorded()


class KitPart(SQLModel, table=True):
    """Pieces of one lot that are in one kit. A kit that is packed again hands its parts back: none of them are left."""

    __tablename__ = "kit_part"
    __table_args__ = (
        sa.PrimaryKeyConstraint("kit_id", "lot_id"),
        sa.CheckConstraint("pieces >= 0", name="never_less_than_nothing"),
    )

    kit_id: int = Field(sa_type=sa.BigInteger, foreign_key="kit.id")
    lot_id: int = link("stock_lot.id")
    pieces: int
    recorded_at: datetime = recorded()
