"""Cases handed over to a clinic's own record, and what the clinic says since"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"


def _word(name: str, *allowed: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def _recorded() -> sa.Column[object]:
    return sa.Column(
        "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
    )


def upgrade() -> None:
    op.create_table(
        "referral",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("clinic", AutoString(length=40), nullable=False),
        sa.Column("asked", _word("asked", "confirmation", "treatment", "assessment"), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=True),
        sa.Column("bell", _word("bell", "none", "owed", "ringing", "rung", "given_up"), nullable=False),
        sa.Column("rings", sa.Integer(), nullable=False),
        sa.Column("ring_at", UTCDateTime(), nullable=True),
        sa.Column("claimed_until", UTCDateTime(), nullable=True),
        sa.Column("error_code", AutoString(length=40), nullable=False),
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("made_at", UTCDateTime(), nullable=False),
        sa.Column("fetched_at", UTCDateTime(), nullable=True),
        _recorded(),
        sa.CheckConstraint(
            "(bell = 'ringing') = (claimed_until IS NOT NULL)", name=op.f("ck_referral_ringing_on_a_lease")
        ),
        sa.ForeignKeyConstraint(["case_id"], ["clinic_case.id"], name=op.f("fk_referral_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_referral")),
        sa.UniqueConstraint("ref", name=op.f("uq_referral_ref")),
    )
    op.create_index(op.f("ix_referral_case_id"), "referral", ["case_id"])
    op.create_index(
        "ix_referral_bell", "referral", ["id"], postgresql_where=sa.text("bell IN ('owed', 'ringing')")
    )
    op.create_index(
        "ix_referral_waiting", "referral", ["service_id", "clinic"], postgresql_where=sa.text("fetched_at IS NULL")
    )
    op.create_table(
        "clinic_word",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("clinic", AutoString(length=40), nullable=False),
        sa.Column("key", AutoString(length=200), nullable=False),
        sa.Column("referral_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "says", _word("says", "booked", "attended", "treated", "did_not_attend", "cancelled"), nullable=False
        ),
        sa.Column("happened_at", UTCDateTime(), nullable=False),
        sa.Column("of_the_person", sa.Boolean(), nullable=False),
        sa.Column("heard_at", UTCDateTime(), nullable=False),
        _recorded(),
        sa.ForeignKeyConstraint(["referral_id"], ["referral.id"], name=op.f("fk_clinic_word_referral_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clinic_word")),
        sa.UniqueConstraint("service_id", "clinic", "key", name=op.f("uq_clinic_word_service_id_clinic_key")),
    )
    op.create_index(op.f("ix_clinic_word_referral_id"), "clinic_word", ["referral_id"])
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON referral TO {ROLE}")
    op.execute(f"GRANT SELECT, INSERT ON clinic_word TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE referral_id_seq, clinic_word_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("clinic_word")
    op.drop_table("referral")
