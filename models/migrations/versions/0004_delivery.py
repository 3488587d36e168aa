"""Delivery of texts: which provider, a switch for each class, what a restored backup knows, numbers proved by code"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"


def _word(allowed: tuple[str, ...], name: str) -> sa.Enum:
    return sa.Enum(*allowed, native_enum=False, create_constraint=True, length=40, name=name)


def _recorded() -> sa.Column[object]:
    return sa.Column(
        "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
    )


def upgrade() -> None:
    op.add_column("installation", sa.Column("text_provider", AutoString(length=20), nullable=False, server_default=""))
    op.add_column("installation", sa.Column("sender_runs", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("installation", sa.Column("sender_ran_at", UTCDateTime(), nullable=True))
    op.add_column("installation", sa.Column("restored_from", UTCDateTime(), nullable=True))
    op.execute(f"GRANT UPDATE (text_provider, sender_runs, sender_ran_at, restored_from) ON installation TO {ROLE}")

    op.create_table(
        "text_stop",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column(
            "text_class",
            _word(("result", "routine", "reminder", "code"), "text_class"),
            nullable=False,
        ),
        sa.Column("stopped", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_text_stop")),
        sa.UniqueConstraint("service_id", "text_class", name=op.f("uq_text_stop_service_id_text_class")),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON text_stop TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE text_stop_id_seq TO {ROLE}")

    op.create_table(
        "mobile_verification",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("channel", AutoString(length=40), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("code_hmac", sa.LargeBinary(), nullable=False),
        sa.Column(
            "state",
            _word(("sending", "sent", "not_sent", "confirmed"), "state"),
            nullable=False,
        ),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("provider", AutoString(length=20), nullable=False),
        sa.Column("provider_id", AutoString(length=60), nullable=False),
        sa.Column("asked_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("confirmed_at", UTCDateTime(), nullable=True),
        _recorded(),
        sa.CheckConstraint(
            "(state = 'confirmed') = (confirmed_at IS NOT NULL)",
            name=op.f("ck_mobile_verification_confirmed_at_a_time"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mobile_verification")),
        sa.UniqueConstraint("ref", name=op.f("uq_mobile_verification_ref")),
    )
    op.create_index("ix_mobile_verification_number", "mobile_verification", ["service_id", "digest", "asked_at"])
    op.create_index("ix_mobile_verification_channel", "mobile_verification", ["service_id", "channel", "asked_at"])
    op.create_index(op.f("ix_mobile_verification_provider_id"), "mobile_verification", ["provider_id"])
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON mobile_verification TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON SEQUENCE mobile_verification_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("mobile_verification")
    op.drop_table("text_stop")
    for column in ("restored_from", "sender_ran_at", "sender_runs", "text_provider"):
        op.drop_column("installation", column)
