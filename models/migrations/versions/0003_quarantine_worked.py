"""Rows in quarantine can be worked: more reasons, read again, sent back, attached by two people

Also: a held file no longer stands in the way of the same bytes, and a file counts what it could not use.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

REASONS = (
    "unknown_token",
    "empty_value",
    "unknown_test",
    "not_requested",
    "unknown_status",
    "status_review",
    "cancelled_no_reason",
    "code_display_conflict",
    "flag_conflict",
    "conflicting_values",
    "combined_result",
    "site_unknown",
    "specimen_conflict",
    "date_implausible",
    "dated_in_future",
    "dated_before_dispatch",
    "too_old",
    "test_message",
    "bad_kit_id",
    "unknown_kit",
    "never_dispatched",
    "tube_mismatch",
    "identity_missing",
    "identity_mismatch",
    "identity_conflict",
    "crossed_samples",
    "second_accession",
    "malformed",
    "encoding",
    "incomplete_file",
    "header_changed",
    "control_id_reuse",
    "unsupported_format",
    "empty_file",
    "unknown_sender",
    "too_many_quarantined",
)
NEW = ("dated_in_future", "dated_before_dispatch", "crossed_samples")
BEFORE = (*(reason for reason in REASONS if reason not in NEW), "wrong_lab")


def _reasons(allowed: tuple[str, ...]) -> None:
    for table, column in (("lab_file", "held_because"), ("quarantined_row", "reason")):
        name = op.f(f"ck_{table}_{column}")
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, sa.column(column).in_(allowed))


def upgrade() -> None:
    _reasons(REASONS)
    op.drop_index("ix_lab_file_first_of_its_bytes", table_name="lab_file")
    op.create_index(
        "ix_lab_file_first_of_its_bytes",
        "lab_file",
        ["lab", "content_sha256"],
        unique=True,
        postgresql_where=sa.text("state NOT IN ('duplicate', 'held') AND content_sha256 <> ''"),
    )
    op.add_column("lab_file", sa.Column("rows_quarantined", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("lab_file", sa.Column("go_ahead_by", AutoString(length=80), nullable=False, server_default=""))
    op.drop_constraint(op.f("uq_quarantined_row_file_id_position_row_key_kit_id"), "quarantined_row", type_="unique")
    op.create_index(
        "ix_quarantined_row_waits_once",
        "quarantined_row",
        ["file_id", "position", "row_key", "kit_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.add_column("quarantined_row", sa.Column("sent_back_at", UTCDateTime(), nullable=True))
    op.add_column(
        "quarantined_row", sa.Column("sent_back_by", AutoString(length=80), nullable=False, server_default="")
    )
    op.create_check_constraint(
        op.f("ck_quarantined_row_sent_back_by_somebody"),
        "quarantined_row",
        "(sent_back_at IS NULL) = (sent_back_by = '')",
    )
    op.create_table(
        "row_attachment",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("row_id", sa.BigInteger(), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("tube_code", AutoString(length=11), nullable=False),
        sa.Column("proposed_by", AutoString(length=80), nullable=False),
        sa.Column("proposed_at", UTCDateTime(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("settled_by", AutoString(length=80), nullable=False),
        sa.Column("settled_at", UTCDateTime(), nullable=True),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "(settled_at IS NULL) = (settled_by = '')", name=op.f("ck_row_attachment_settled_by_somebody")
        ),
        sa.CheckConstraint(
            "NOT approved OR settled_by NOT IN ('', proposed_by)", name=op.f("ck_row_attachment_approved_by_another")
        ),
        sa.ForeignKeyConstraint(["row_id"], ["quarantined_row.id"], name=op.f("fk_row_attachment_row_id")),
        sa.ForeignKeyConstraint(["kit_id"], ["kit.id"], name=op.f("fk_row_attachment_kit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_attachment")),
    )
    op.create_index(op.f("ix_row_attachment_row_id"), "row_attachment", ["row_id"])
    op.create_index(
        "ix_row_attachment_open",
        "row_attachment",
        ["row_id"],
        unique=True,
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON row_attachment TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE row_attachment_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("row_attachment")
    op.drop_constraint(op.f("ck_quarantined_row_sent_back_by_somebody"), "quarantined_row", type_="check")
    op.drop_column("quarantined_row", "sent_back_by")
    op.drop_column("quarantined_row", "sent_back_at")
    op.drop_index("ix_quarantined_row_waits_once", table_name="quarantined_row")
    op.create_unique_constraint(
        op.f("uq_quarantined_row_file_id_position_row_key_kit_id"),
        "quarantined_row",
        ["file_id", "position", "row_key", "kit_id"],
        postgresql_nulls_not_distinct=True,
    )
    op.drop_column("lab_file", "go_ahead_by")
    op.drop_column("lab_file", "rows_quarantined")
    op.drop_index("ix_lab_file_first_of_its_bytes", table_name="lab_file")
    op.create_index(
        "ix_lab_file_first_of_its_bytes",
        "lab_file",
        ["lab", "content_sha256"],
        unique=True,
        postgresql_where=sa.text("state <> 'duplicate' AND content_sha256 <> ''"),
    )
    _reasons(BEFORE)
