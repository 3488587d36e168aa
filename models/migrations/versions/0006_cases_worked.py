"""Cases worked: rests, endings with their details, treatment signed for, identity ticked, duty phones told"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

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
TREATMENTS = ("in_clinic", "by_post", "at_pharmacy", "elsewhere")


def _word(name: str, *allowed: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def _id() -> sa.Column[object]:
    return sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False)


def _who_and_when() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        _recorded(),
    )


def _recorded() -> sa.Column[object]:
    return sa.Column(
        "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
    )


def _of_case(table: str) -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(["case_id"], ["clinic_case.id"], name=op.f(f"fk_{table}_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )


def upgrade() -> None:
    op.add_column("clinic_case", sa.Column("touched_at", UTCDateTime(), nullable=True))
    op.add_column(
        "case_attempt", sa.Column("identity_checked", JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb"))
    )
    op.alter_column("case_attempt", "identity_checked", server_default=None)
    op.create_table(
        "case_snooze",
        _id(),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "reason",
            _word("reason", "asked_for_another_time", "waits_for_clinic", "waits_for_lab", "person_is_away"),
            nullable=False,
        ),
        sa.Column("until_at", UTCDateTime(), nullable=False),
        *_who_and_when(),
        *_of_case("case_snooze"),
    )
    op.create_table(
        "case_ending",
        _id(),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome", _word("outcome", *OUTCOMES), nullable=False),
        sa.Column("place", sa.LargeBinary(), nullable=True),
        sa.Column("happened_on", sa.Date(), nullable=True),
        sa.Column("treatment", _word("treatment", *TREATMENTS), nullable=True),
        *_who_and_when(),
        *_of_case("case_ending"),
        sa.UniqueConstraint("ref", name=op.f("uq_case_ending_ref")),
    )
    op.create_table(
        "treatment_request",
        _id(),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("way", _word("way", *TREATMENTS), nullable=False),
        sa.Column("answers", JSONB(), nullable=False),
        sa.Column("stands_on", AutoString(length=64), nullable=False),
        *_who_and_when(),
        *_of_case("treatment_request"),
        sa.CheckConstraint("way IN ('by_post', 'at_pharmacy')", name=op.f("ck_treatment_request_without_a_visit")),
    )
    op.create_table(
        "treatment_signature",
        _id(),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        *_who_and_when(),
        sa.ForeignKeyConstraint(
            ["request_id"], ["treatment_request.id"], name=op.f("fk_treatment_signature_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_treatment_signature")),
        sa.UniqueConstraint("request_id", name=op.f("uq_treatment_signature_request_id")),
    )
    op.create_table(
        "duty_notice",
        _id(),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("role", AutoString(length=40), nullable=False),
        sa.Column("hour_at", UTCDateTime(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("state", _word("state", "owed", "sending", "sent", "failed", "unsure"), nullable=False),
        sa.Column("claimed_until", UTCDateTime(), nullable=True),
        sa.Column("error_code", AutoString(length=20), nullable=False),
        sa.Column("owed_at", UTCDateTime(), nullable=False),
        sa.Column("settled_at", UTCDateTime(), nullable=True),
        _recorded(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duty_notice")),
        sa.UniqueConstraint("ref", name=op.f("uq_duty_notice_ref")),
        sa.UniqueConstraint("service_id", "role", "hour_at", name=op.f("uq_duty_notice_service_id_role_hour_at")),
    )
    op.create_index(
        "ix_duty_notice_open", "duty_notice", ["id"], postgresql_where=sa.text("state IN ('owed', 'sending')")
    )
    for table in ("case_snooze", "case_ending", "treatment_request"):
        op.create_index(op.f(f"ix_{table}_case_id"), table, ["case_id"])
    for table in ("case_snooze", "case_ending", "treatment_request", "treatment_signature", "duty_notice"):
        op.execute(f"GRANT SELECT, INSERT ON {table} TO {ROLE}")
        op.execute(f"GRANT USAGE, SELECT ON SEQUENCE {table}_id_seq TO {ROLE}")
    op.execute(f"GRANT UPDATE ON duty_notice TO {ROLE}")


def downgrade() -> None:
    for table in ("duty_notice", "treatment_signature", "treatment_request", "case_ending", "case_snooze"):
        op.drop_table(table)
    op.drop_column("case_attempt", "identity_checked")
    op.drop_column("clinic_case", "touched_at")
