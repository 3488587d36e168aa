"""Parcels that are fetched at a counter, and the text that carries their code"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"
PURPOSES = (
    "order_received",
    "kit_posted",
    "return_reminder",
    "received_at_lab",
    "kit_lapsed",
    "delayed",
    "retest_due",
    "all_clear",
    "failed_sample",
    "swab_positive",
    "please_expect_our_call",
)


def _allow(purposes: Sequence[str]) -> None:
    allowed = ", ".join(f"'{purpose}'" for purpose in purposes)
    op.execute("ALTER TABLE text DROP CONSTRAINT ck_text_purpose")
    op.execute(f"ALTER TABLE text ADD CONSTRAINT ck_text_purpose CHECK (purpose IN ({allowed}))")


def upgrade() -> None:
    _allow((*PURPOSES, "kit_ready"))
    op.add_column("contact", sa.Column("collection_point", AutoString(length=40), server_default="", nullable=False))
    op.create_table(
        "collection",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("point", AutoString(length=40), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "on_the_way",
                "waiting",
                "collected",
                "not_collected",
                "back",
                native_enum=False,
                create_constraint=True,
                length=40,
                name="state",
            ),
            nullable=False,
        ),
        sa.Column("code_digest", sa.LargeBinary(), nullable=True),
        sa.Column("codes", sa.Integer(), nullable=False),
        sa.Column("hold_until", sa.Date(), nullable=True),
        sa.Column("dispatched_at", UTCDateTime(), nullable=False),
        sa.Column("arrived_at", UTCDateTime(), nullable=True),
        sa.Column("collected_at", UTCDateTime(), nullable=True),
        sa.Column("over_at", UTCDateTime(), nullable=True),
        sa.Column("back_at", UTCDateTime(), nullable=True),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "(state = 'waiting') <= (hold_until IS NOT NULL)", name=op.f("ck_collection_waits_until_a_day")
        ),
        sa.CheckConstraint(
            "(state = 'collected') = (collected_at IS NOT NULL)", name=op.f("ck_collection_collected_at_a_time")
        ),
        sa.ForeignKeyConstraint(
            ["kit_id", "service_id"], ["kit.id", "kit.service_id"], name=op.f("fk_collection_kit_id_service_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("kit_id", name=op.f("uq_collection_kit_id")),
    )
    op.create_index(
        "ix_collection_code",
        "collection",
        ["service_id", "code_digest"],
        unique=True,
        postgresql_where=sa.text("state = 'waiting' AND code_digest IS NOT NULL"),
    )
    op.create_index(
        "ix_collection_open",
        "collection",
        ["service_id", "point"],
        postgresql_where=sa.text("state IN ('on_the_way', 'waiting', 'not_collected')"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON collection TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE collection_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("collection")
    op.drop_column("contact", "collection_point")
    _allow(PURPOSES)
