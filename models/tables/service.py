"""Councils' choices as versions, the installation's two clocks, and the switches a person may throw."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import document, identity, recorded


class Installation(SQLModel, table=True):
    """One row: whether this database was made for a demo, and how far its service time is shifted (ruling 12)."""

    __tablename__ = "installation"
    __table_args__ = (
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.CheckConstraint("demo OR service_time_offset_seconds = 0", name="only_a_demo_shifts_time"),
        sa.CheckConstraint("service_time_offset_seconds >= 0", name="forward_only"),
    )

    id: int = Field(default=1, primary_key=True)
    demo: bool = False
    service_time_offset_seconds: int = Field(default=0, sa_type=sa.BigInteger)
    sending_stopped: bool = False
    """The kill switch: no text leaves while it is set (FEATURES 79)."""
    text_provider: str = Field(default="", max_length=20, sa_column_kwargs={"server_default": ""})
    """Whom a person chose to send new texts through; empty: the one that the settings name."""
    sender_runs: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})
    """How many runs of the sender there were. Written outside too: fewer here than there is a restored backup (H29)."""
    sender_ran_at: datetime | None = None
    """Machine time of the last one."""
    restored_from: datetime | None = None
    """Machine time since when texts may have left of which this database knows nothing; None: there are none."""
    created_at: datetime = recorded()


class ServiceVersion(SQLModel, table=True):
    """One council's configuration as it stood; decisions cite it. Insert only."""

    __tablename__ = "service_version"
    __table_args__ = (sa.UniqueConstraint("service_id", "content_sha256"),)

    id: int | None = identity()
    service_id: str = Field(max_length=40, index=True)
    content_sha256: str = Field(max_length=64)
    content: dict[str, object] = document()
    loaded_at: datetime = recorded()


class LabMapVersion(SQLModel, table=True):
    """One laboratory's map as it stood; result versions cite it. Insert only."""

    __tablename__ = "lab_map_version"
    __table_args__ = (sa.UniqueConstraint("lab", "content_sha256"),)

    id: int | None = identity()
    lab: str = Field(max_length=40, index=True)
    content_sha256: str = Field(max_length=64)
    loaded_at: datetime = recorded()
