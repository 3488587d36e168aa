"""Duty texts are known by the provider's id, so that no restored backup takes them for texts it forgot"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("duty_notice", sa.Column("provider_id", AutoString(length=60), nullable=False, server_default=""))
    op.alter_column("duty_notice", "provider_id", server_default=None)
    op.create_index(op.f("ix_duty_notice_provider_id"), "duty_notice", ["provider_id"])


def downgrade() -> None:
    op.drop_column("duty_notice", "provider_id")
