"""An HL7 control id may be used again, and what was noticed at the laboratories' doors is counted

Control ids (MSH-10) are unique by promise only: a message's key includes its content. Over HTTP an id still names one
document.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

_WAS = "uq_lab_message_in_way_lab_service_id_key"
_IS = "uq_lab_message_in_way_lab_service_id_key_content_hmac"
_REASONS = (
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


def _word(name: str, *allowed: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def upgrade() -> None:
    op.create_unique_constraint(op.f(_IS), "lab_message_in", ["way", "lab", "service_id", "key", "content_hmac"])
    op.create_index(
        "ix_lab_message_in_document",
        "lab_message_in",
        ["lab", "service_id", "key"],
        unique=True,
        postgresql_where=sa.text("way = 'http'"),
    )
    op.drop_constraint(op.f(_WAS), "lab_message_in", type_="unique")
    op.create_table(
        "lab_notice",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("lab", AutoString(length=40), nullable=False),
        sa.Column("way", _word("way", "http", "mllp"), nullable=False),
        sa.Column("reason", _word("reason", *_REASONS), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("content_hmac", sa.LargeBinary(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_at", UTCDateTime(), nullable=False),
        sa.Column("last_at", UTCDateTime(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_notice")),
        sa.UniqueConstraint("lab", "way", "reason", "content_hmac", name=op.f("uq_lab_notice_lab_way_reason_content_hmac")),
    )
    op.create_index("ix_lab_notice_lately", "lab_notice", ["lab", "last_at"])
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON lab_notice TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE lab_notice_id_seq TO {ROLE}")


def downgrade() -> None:
    """Refused by the database once a control id was used twice: one of the two messages would have to go."""
    op.drop_table("lab_notice")
    op.create_unique_constraint(op.f(_WAS), "lab_message_in", ["way", "lab", "service_id", "key"])
    op.drop_index("ix_lab_message_in_document", "lab_message_in")
    op.drop_constraint(op.f(_IS), "lab_message_in", type_="unique")
