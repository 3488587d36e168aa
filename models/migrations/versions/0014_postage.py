"""Postage of outbound parcels: owed when paper is released, bought or handed over, cancelled with its paper"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"


def _word(name: str, *allowed: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def upgrade() -> None:
    op.create_table(
        "postage",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("reference", AutoString(length=12), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("batch", AutoString(length=32), nullable=False),
        sa.Column("way", _word("way", "none", "click_and_drop", "file"), nullable=False),
        sa.Column(
            "state", _word("state", "owed", "buying", "unsure", "bought", "refused", "cancelled"), nullable=False
        ),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("lookups", sa.Integer(), nullable=False),
        sa.Column("courier_id", AutoString(length=40), nullable=False),
        sa.Column("label_key", AutoString(length=120), nullable=False),
        sa.Column("error_code", AutoString(length=80), nullable=False),
        sa.Column("claimed_until", UTCDateTime(), nullable=True),
        sa.Column("ask_at", UTCDateTime(), nullable=True),
        sa.Column("owed_at", UTCDateTime(), nullable=False),
        sa.Column("bought_at", UTCDateTime(), nullable=True),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "(state = 'buying') = (claimed_until IS NOT NULL)", name=op.f("ck_postage_buying_on_a_lease")
        ),
        sa.ForeignKeyConstraint(
            ["kit_id", "service_id"], ["kit.id", "kit.service_id"], name=op.f("fk_postage_kit_id_service_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_postage")),
        sa.UniqueConstraint("reference", name=op.f("uq_postage_reference")),
    )
    op.create_index("ix_postage_kit", "postage", ["kit_id"])
    op.create_index("ix_postage_batch", "postage", ["batch"])
    op.create_index(
        "ix_postage_open",
        "postage",
        ["id"],
        postgresql_where=sa.text("state IN ('owed', 'buying', 'unsure', 'bought')"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON postage TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE postage_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("postage")
