"""Roles on duty are told by e-mail too"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ONCE = "uq_duty_notice_service_id_role_hour_at"


def upgrade() -> None:
    channel = sa.Enum("text", "mail", native_enum=False, create_constraint=True, length=40, name="channel")
    op.add_column("duty_notice", sa.Column("channel", channel, nullable=False, server_default="text"))
    op.alter_column("duty_notice", "channel", server_default=None)
    op.drop_constraint(ONCE, "duty_notice", type_="unique")
    op.create_unique_constraint(
        op.f(f"{ONCE}_channel"), "duty_notice", ["service_id", "role", "hour_at", "channel"]
    )


def downgrade() -> None:
    op.execute("DELETE FROM duty_notice WHERE channel <> 'text'")
    op.drop_constraint(f"{ONCE}_channel", "duty_notice", type_="unique")
    op.create_unique_constraint(op.f(ONCE), "duty_notice", ["service_id", "role", "hour_at"])
    op.drop_column("duty_notice", "channel")
