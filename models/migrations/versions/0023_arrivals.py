"""Room for whatever name S3 allows, and what lies in the store and is not read"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

WHY = ("under_way", "not_whole", "alone", "misplaced", "not_taken")


def upgrade() -> None:
    op.alter_column("lab_file", "object_key", type_=sa.String(1024))
    op.alter_column("lab_file", "object_version", type_=sa.String(1024))
    op.create_table(
        "unread_object",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("lab", AutoString(length=40), nullable=False),
        sa.Column("object_key", AutoString(length=1024), nullable=False),
        sa.Column(
            "why", sa.Enum(*WHY, native_enum=False, create_constraint=True, length=40, name="why"), nullable=False
        ),
        sa.Column("lies_since", UTCDateTime(), nullable=False),
        sa.Column("gone_at", UTCDateTime(), nullable=True),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unread_object")),
        sa.UniqueConstraint("ref", name=op.f("uq_unread_object_ref")),
        sa.UniqueConstraint("object_key", name=op.f("uq_unread_object_object_key")),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON unread_object TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE unread_object_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("unread_object")
    op.alter_column("lab_file", "object_version", type_=sa.String(120))
    op.alter_column("lab_file", "object_key", type_=sa.String(400))
