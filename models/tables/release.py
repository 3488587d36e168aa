"""What was decided about a kit's results, on what, and by which rule. Insert only."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from models.rules.release import ReleaseKind
from models.tables.columns import document, identity, link, recorded, words


class ReleaseDecision(SQLModel, table=True):
    """One decision about one kit. The same inputs never decide twice for the same trigger (ruling 3)."""

    __tablename__ = "release_decision"
    __table_args__ = (
        sa.UniqueConstraint("kit_id", "digest", "trigger"),
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
    )

    id: int | None = identity()
    kit_id: int = Field(sa_type=sa.BigInteger)
    service_id: str = Field(max_length=40)
    kind: ReleaseKind = words(ReleaseKind, "kind")
    reasons: list[str] = Field(sa_type=ARRAY(sa.String(60)))
    digest: str = Field(max_length=64)
    """SHA-256 of the sorted (test, site, version id) it stands on."""
    inputs: list[object] = document()
    """[test, site, version id] of each result it stands on."""
    owes_text: str = Field(default="", max_length=40)
    """The purpose of the text it owes, or ''."""
    owes_case: bool
    trigger: str = Field(max_length=60)
    rule_version: str = Field(max_length=40)
    service_version_id: int = link("service_version.id", index=False)
    actor: str = Field(max_length=80)
    decided_at: datetime
    recorded_at: datetime = recorded()
