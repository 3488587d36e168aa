"""The packing room: every bench scan, codes void for ever, stock by lot, kits in the stead of others"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

STATES = (
    "to_pack", "printed", "quarantined", "dispatched", "coming_back", "at_lab", "reported", "closed", "cancelled",
    "lapsed", "returned_to_sender", "replaced",
)  # fmt: skip
BEFORE = tuple(state for state in STATES if state != "quarantined")


def _recorded() -> sa.Column[object]:
    return sa.Column(
        "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
    )


def _key(column: str, target: str, table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_{table}_{column}"))


def _states(*words: str) -> None:
    listed = ", ".join(f"'{word}'" for word in words)
    early = ", ".join(f"'{word}'" for word in words if word in {"to_pack", "printed", "quarantined", "cancelled"})
    op.execute("ALTER TABLE kit DROP CONSTRAINT ck_kit_state")
    op.execute(f"ALTER TABLE kit ADD CONSTRAINT ck_kit_state CHECK (state IN ({listed}))")
    op.execute("ALTER TABLE kit DROP CONSTRAINT ck_kit_dispatched_before_return")
    op.execute(
        "ALTER TABLE kit ADD CONSTRAINT ck_kit_dispatched_before_return "
        f"CHECK (state IN ({early}) OR dispatched_at IS NOT NULL)"
    )


def upgrade() -> None:
    _states(*STATES)
    op.add_column("kit", sa.Column("replaces_kit_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_kit_replaces_kit_id"), "kit", "kit", ["replaces_kit_id"], ["id"])
    op.add_column("kit", sa.Column("reminder_arm", AutoString(length=20), nullable=False, server_default=""))
    op.drop_constraint("uq_kit_order_id", "kit")
    op.create_index(
        "ix_kit_of_order", "kit", ["order_id"], unique=True, postgresql_where=sa.text("state <> 'replaced'")
    )
    op.create_table(
        "bench_scan",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=36), nullable=False),
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("bench", AutoString(length=20), nullable=False),
        sa.Column("code", AutoString(length=20), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=True),
        sa.Column("fine", sa.Boolean(), nullable=False),
        sa.Column("dispatched", sa.Boolean(), nullable=False),
        sa.Column("sentence", AutoString(length=300), nullable=False),
        sa.Column("scanned_at", UTCDateTime(), nullable=False),
        _recorded(),
        _key("kit_id", "kit.id", "bench_scan"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bench_scan")),
        sa.UniqueConstraint("ref", name=op.f("uq_bench_scan_ref")),
    )
    op.create_index(op.f("ix_bench_scan_kit_id"), "bench_scan", ["kit_id"])
    op.create_table(
        "void_code",
        sa.Column("code", AutoString(length=40), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("because", AutoString(length=400), nullable=False),
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("voided_at", UTCDateTime(), nullable=False),
        _recorded(),
        _key("kit_id", "kit.id", "void_code"),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_void_code")),
    )
    op.create_index(op.f("ix_void_code_kit_id"), "void_code", ["kit_id"])
    op.create_table(
        "stock_lot",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("ref", AutoString(length=32), nullable=False),
        sa.Column("service_id", AutoString(length=40), nullable=False),
        sa.Column("component", AutoString(length=40), nullable=False),
        sa.Column("lot", AutoString(length=40), nullable=False),
        sa.Column("expires_on", sa.Date(), nullable=False),
        sa.Column("on_hand", sa.Integer(), nullable=False),
        sa.Column("recalled_at", UTCDateTime(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        _recorded(),
        sa.CheckConstraint("on_hand >= 0", name=op.f("ck_stock_lot_never_less_than_nothing")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_lot")),
        sa.UniqueConstraint("ref", name=op.f("uq_stock_lot_ref")),
        sa.UniqueConstraint("service_id", "component", "lot", name=op.f("uq_stock_lot_service_id_component_lot")),
    )
    op.create_table(
        "stock_move",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("kit_id", sa.BigInteger(), nullable=True),
        sa.Column("pieces", sa.Integer(), nullable=False),
        sa.Column("because", AutoString(length=200), nullable=False),
        sa.Column("actor", AutoString(length=80), nullable=False),
        sa.Column("moved_at", UTCDateTime(), nullable=False),
        _recorded(),
        _key("lot_id", "stock_lot.id", "stock_move"),
        _key("kit_id", "kit.id", "stock_move"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_move")),
    )
    op.create_index(op.f("ix_stock_move_lot_id"), "stock_move", ["lot_id"])
    op.create_index(op.f("ix_stock_move_kit_id"), "stock_move", ["kit_id"])
    op.create_table(
        "kit_part",
        sa.Column("kit_id", sa.BigInteger(), nullable=False),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("pieces", sa.Integer(), nullable=False),
        _recorded(),
        sa.CheckConstraint("pieces >= 0", name=op.f("ck_kit_part_never_less_than_nothing")),
        _key("kit_id", "kit.id", "kit_part"),
        _key("lot_id", "stock_lot.id", "kit_part"),
        sa.PrimaryKeyConstraint("kit_id", "lot_id", name=op.f("pk_kit_part")),
    )
    op.create_index(op.f("ix_kit_part_lot_id"), "kit_part", ["lot_id"])
    op.execute(f"GRANT SELECT, INSERT ON bench_scan, void_code, stock_lot, stock_move, kit_part TO {ROLE}")
    op.execute(f"GRANT UPDATE (on_hand, recalled_at) ON stock_lot TO {ROLE}")
    op.execute(f"GRANT UPDATE (pieces) ON kit_part TO {ROLE}")
    # Paper that is printed again gets new codes: those of a kit that has not left may change, nothing else of it.
    op.execute(f"GRANT UPDATE (tube_code) ON kit_sample, kit_test TO {ROLE}")
    op.execute(f"GRANT UPDATE (date_of_birth, family_name) ON kit_identity TO {ROLE}")
    for table in ("bench_scan", "stock_lot", "stock_move"):
        op.execute(f"GRANT USAGE, SELECT ON SEQUENCE {table}_id_seq TO {ROLE}")


def downgrade() -> None:
    for table in ("kit_part", "stock_move", "stock_lot", "void_code", "bench_scan"):
        op.drop_table(table)
    op.execute(f"REVOKE UPDATE (tube_code) ON kit_sample, kit_test FROM {ROLE}")
    op.execute(f"REVOKE UPDATE (date_of_birth, family_name) ON kit_identity FROM {ROLE}")
    op.drop_index("ix_kit_of_order", "kit")
    op.create_unique_constraint(op.f("uq_kit_order_id"), "kit", ["order_id"])
    op.drop_constraint("fk_kit_replaces_kit_id", "kit")
    op.drop_column("kit", "replaces_kit_id")
    op.drop_column("kit", "reminder_arm")
    _states(*BEFORE)
