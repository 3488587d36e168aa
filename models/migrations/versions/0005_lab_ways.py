"""Ways in and out for laboratories: messages that came one by one, requests owed at dispatch, names for receipts"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0005"
down_revision: str | None = "0004"
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
    op.add_column("quarantined_row", sa.Column("message_id", AutoString(length=80), nullable=False, server_default=""))
    op.create_table(
        "lab_message_in",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("way", _word("way", "http", "mllp"), nullable=False),
        sa.Column("lab", AutoString(length=40), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("key", AutoString(length=200), nullable=False),
        sa.Column("form", _word("form", "hl7", "fhir", "csv"), nullable=False),
        sa.Column("content_hmac", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", _word("state", "waiting", "filing", "filed"), nullable=False),
        sa.Column("object_key", AutoString(length=400), nullable=False),
        sa.Column("claimed_until", UTCDateTime(), nullable=True),
        sa.Column("received_at", UTCDateTime(), nullable=False),
        _recorded(),
        sa.CheckConstraint(
            "(state = 'waiting') = (object_key = '')", name=op.f("ck_lab_message_in_filed_somewhere")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_message_in")),
        sa.UniqueConstraint("ref", name=op.f("uq_lab_message_in_ref")),
        sa.UniqueConstraint("way", "lab", "service_id", "key", name=op.f("uq_lab_message_in_way_lab_service_id_key")),
    )
    op.create_index(
        "ix_lab_message_in_open", "lab_message_in", ["lab", "id"], postgresql_where=sa.text("state <> 'filed'")
    )
    op.create_index(
        "ix_lab_message_in_file", "lab_message_in", ["object_key"], postgresql_where=sa.text("object_key <> ''")
    )
    op.create_table(
        "lab_request",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("lab", AutoString(length=40), nullable=False),
        sa.Column(
            "state", _word("state", "owed", "sending", "sent", "acknowledged", "unsure", "refused"), nullable=False
        ),
        sa.Column("wants_answer", sa.Boolean(), nullable=False),
        sa.Column("batch", AutoString(length=32), nullable=False),
        sa.Column("claimed_until", UTCDateTime(), nullable=True),
        sa.Column("error_code", AutoString(length=40), nullable=False),
        sa.Column("owed_at", UTCDateTime(), nullable=False),
        sa.Column("sent_at", UTCDateTime(), nullable=True),
        sa.Column("acknowledged_at", UTCDateTime(), nullable=True),
        _recorded(),
        sa.CheckConstraint(
            "(state = 'acknowledged') = (acknowledged_at IS NOT NULL)",
            name=op.f("ck_lab_request_acknowledged_at_a_time"),
        ),
        sa.ForeignKeyConstraint(
            ["kit_id", "service_id"], ["kit.id", "kit.service_id"], name=op.f("fk_lab_request_kit_id_service_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_request")),
        sa.UniqueConstraint("ref", name=op.f("uq_lab_request_ref")),
        sa.UniqueConstraint("kit_id", name=op.f("uq_lab_request_kit_id")),
    )
    op.create_index("ix_lab_request_open", "lab_request", ["id"], postgresql_where=sa.text("state <> 'acknowledged'"))
    op.create_index("ix_lab_request_control_id", "lab_request", ["lab", sa.text('"left"(ref, 20)')])
    for table in ("lab_message_in", "lab_request"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {ROLE}")
        op.execute(f"GRANT USAGE, SELECT ON SEQUENCE {table}_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("lab_request")
    op.drop_table("lab_message_in")
    op.drop_column("quarantined_row", "message_id")
