"""Parcels out and back, and what the courier said of them."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.vocabulary import ScanKind
from models.tables.columns import identity, link, recorded, words


class Direction(StrEnum):
    """Which way a parcel goes."""

    OUT = "out"
    BACK = "back"


class Parcel(SQLModel, table=True):
    """One parcel of one kit. `status` only moves forward, by rank (FEATURES 81)."""

    __tablename__ = "parcel"
    __table_args__ = (
        sa.UniqueConstraint("kit_id", "direction"),
        sa.Index(
            "ix_parcel_tracking_number",
            "tracking_number",
            unique=True,
            postgresql_where=sa.text("tracking_number <> ''"),
        ),
    )

    id: int | None = identity()
    kit_id: int = link("kit.id")
    service_id: str = Field(max_length=40)
    direction: Direction = words(Direction, "direction")
    code: str = Field(max_length=12, unique=True)
    """Random and printed on the outer label: leads to nothing without this table."""
    tracking_number: str = Field(default="", max_length=40)
    status: ScanKind = words(ScanKind, "status", default=ScanKind.LABELLED)
    first_scan_at: datetime | None = None
    last_scan_at: datetime | None = None
    polled_at: datetime | None = None
    created_at: datetime
    recorded_at: datetime = recorded()


class CourierEvent(SQLModel, table=True):
    """One courier event, kept in the courier's own words. Insert only; the same one twice is one row."""

    __tablename__ = "courier_event"
    __table_args__ = (sa.UniqueConstraint("parcel_id", "raw_code", "occurred_at"),)

    id: int | None = identity()
    parcel_id: int = link("parcel.id")
    kind: ScanKind = words(ScanKind, "kind")
    raw_code: str = Field(max_length=20)
    occurred_at: datetime
    recorded_at: datetime = recorded()
