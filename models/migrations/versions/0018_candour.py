"""What somebody was told about a result that they had been told wrong, and a second signature under it"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"


def _who_and_when() -> list[sa.Column[object]]:
    return [
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
    ]


def upgrade() -> None:
    op.create_table(
        "case_candour",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column(
            "harm",
            sa.Enum("none", "possible", "known", native_enum=False, create_constraint=True, length=40, name="harm"),
            nullable=False,
        ),
        sa.Column("apologised", sa.Boolean(), nullable=False),
        sa.Column("offered_in_writing", sa.Boolean(), nullable=False),
        *_who_and_when(),
        sa.ForeignKeyConstraint(["case_id"], ["clinic_case.id"], name=op.f("fk_case_candour_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_case_candour")),
        sa.UniqueConstraint("ref", name=op.f("uq_case_candour_ref")),
    )
    op.create_index(op.f("ix_case_candour_case_id"), "case_candour", ["case_id"])
    op.create_table(
        "candour_signature",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("candour_id", sa.BigInteger(), nullable=False),
        *_who_and_when(),
        sa.ForeignKeyConstraint(["candour_id"], ["case_candour.id"], name=op.f("fk_candour_signature_candour_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candour_signature")),
        sa.UniqueConstraint("candour_id", name=op.f("uq_candour_signature_candour_id")),
    )
    op.execute(f"GRANT SELECT, INSERT ON case_candour, candour_signature TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE case_candour_id_seq, candour_signature_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("candour_signature")
    op.drop_table("case_candour")
