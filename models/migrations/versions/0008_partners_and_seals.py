"""Partners counted by type and stage, their follow-up as a case, and sealed records with who broke a seal"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

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
)
OUTCOMES = (
    "told_and_booked",
    "treated",
    "confirmed_positive",
    "confirmed_negative",
    "confirmation_declined",
    "referred",
    "told_no_action",
    "new_kit_sent",
    "released_after_review",
    "safeguarding_referred",
    "order_accepted",
    "order_refused",
    "resolved_with_lab",
    "reached_another_way",
    "no_further_action",
)
COUNTS = ("elicited", "contactable", "notified", "tested", "verified", "treated")


def _allow(table: str, column: str, words: Sequence[str]) -> None:
    allowed = ", ".join(f"'{word}'" for word in words)
    name = f"ck_{table}_{column}"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IN ({allowed}))")


def _who_and_when() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
    )


def upgrade() -> None:
    _allow("clinic_case", "kind", (*KINDS, "partner_follow_up"))
    for table in ("clinic_case", "case_ending"):
        _allow(table, "outcome", (*OUTCOMES, "partners_followed_up"))
    partner = sa.Enum(
        "established",
        "new",
        "occasional",
        "one_off",
        "sex_worker",
        native_enum=False,
        create_constraint=True,
        length=40,
        name="partner",
    )
    op.create_table(
        "partner_count",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("partner", partner, nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in COUNTS),
        *_who_and_when(),
        sa.CheckConstraint(
            "elicited >= contactable AND contactable >= notified AND notified >= tested "
            "AND notified >= treated AND tested >= verified AND verified >= 0 AND treated >= 0",
            name=op.f("ck_partner_count_no_more_than_before"),
        ),
        sa.ForeignKeyConstraint(["kit_id"], ["kit.id"], name=op.f("fk_partner_count_kit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partner_count")),
    )
    op.create_index(op.f("ix_partner_count_kit_id"), "partner_count", ["kit_id"])
    op.create_table(
        "person_seal",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        *_who_and_when(),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_person_seal_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_seal")),
    )
    op.create_table(
        "seal_break",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        *_who_and_when(),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_seal_break_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seal_break")),
    )
    for table in ("person_seal", "seal_break"):
        op.create_index(op.f(f"ix_{table}_person_id"), table, ["person_id"])
    for table in ("partner_count", "person_seal", "seal_break"):
        op.execute(f"GRANT SELECT, INSERT ON {table} TO {ROLE}")
        op.execute(f"GRANT USAGE, SELECT ON SEQUENCE {table}_id_seq TO {ROLE}")


def downgrade() -> None:
    for table in ("seal_break", "person_seal", "partner_count"):
        op.drop_table(table)
    _allow("clinic_case", "kind", KINDS)
    for table in ("clinic_case", "case_ending"):
        _allow(table, "outcome", OUTCOMES)
