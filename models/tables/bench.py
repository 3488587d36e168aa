"""Every scan at a packing bench, and every code that is void for ever."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from models.tables.columns import identity, link, recorded


class BenchScan(SQLModel, table=True):
    """One scan: who, where, when, what, and what the packer was told. Insert only; `ref` makes a replay harmless."""

    __tablename__ = "bench_scan"

    id: int | None = identity()
    ref: str = Field(max_length=36, unique=True)
    """Made by the page that read the scanner, so that the same scan sent twice is one scan."""
    actor: str = Field(max_length=80)
    bench: str = Field(max_length=20)
    code: str = Field(max_length=20)
    """As stored elsewhere; '' for what is no code of ours: it may be anything."""
    kit_id: int | None = link("kit.id", nullable=True)
    fine: bool
    dispatched: bool
    sentence: str = Field(max_length=300)
    scanned_at: datetime
    """The world's time: an hour before `recorded_at` where the bench was offline."""
    recorded_at: datetime = recorded()


class VoidCode(SQLModel, table=True):
    """A code that was printed and must never be taken again. Insert only."""

    __tablename__ = "void_code"

    code: str = Field(max_length=40, primary_key=True)
    kit_id: int = link("kit.id")
    because: str = Field(max_length=400)
    actor: str = Field(max_length=80)
    voided_at: datetime
    recorded_at: datetime = recorded()
