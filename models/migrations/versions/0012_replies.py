"""Replies to texts: kept in the inbox, a kind of case of their own, and each person's STOP and START"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

INBOX = ("order", "text_status", "courier_event")
KINDS = (
    "safeguarding",
    "correction",
    "identity",
    "reactive",
    "positive",
    "result_review",
    "order_review",
    "undelivered_text",
    "lab_row",
    "failed_sample",
    "results_overdue",
    "parcel",
    "partner_follow_up",
)


def _allow(table: str, column: str, words: Sequence[str]) -> None:
    allowed = ", ".join(f"'{word}'" for word in words)
    name = f"ck_{table}_{column}"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IN ({allowed}))")


def _word(name: str, *allowed: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def upgrade() -> None:
    _allow("inbox", "kind", (*INBOX, "text_reply"))
    _allow("clinic_case", "kind", (*KINDS, "reply"))
    op.create_table(
        "text_choice",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("choice", _word("choice", "opt_out", "opt_in"), nullable=False),
        sa.Column("source", _word("source", "reply", "provider"), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["person_id", "service_id"],
            ["person.id", "person.service_id"],
            name=op.f("fk_text_choice_person_id_service_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_text_choice")),
    )
    op.create_index("ix_text_choice_person_id", "text_choice", ["person_id", "id"])
    op.execute(f"GRANT SELECT, INSERT ON text_choice TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE text_choice_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("text_choice")
    _allow("clinic_case", "kind", KINDS)
    _allow("inbox", "kind", INBOX)
