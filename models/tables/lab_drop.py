"""What was seen on laboratories' own servers and not taken yet."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import recorded


class LabDropLook(SQLModel, table=True):
    """A file that lay on a laboratory's server, as it was at the last visits. Gone with the file, or once it changes.

    `digest` is a SHA-256 over name and bytes: neither can be read from it.
    """

    __tablename__ = "lab_drop_look"
    __table_args__ = (sa.PrimaryKeyConstraint("lab", "digest"),)

    lab: str = Field(max_length=40)
    digest: bytes
    recorded_at: datetime = recorded()
    """Machine time of the first look at it as it is."""
