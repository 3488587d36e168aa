"""Room for whatever name S3 allows: one that was longer stopped every laboratory"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.alter_column("lab_file", "object_key", type_=sa.String(1024))
    op.alter_column("lab_file", "object_version", type_=sa.String(1024))


def downgrade() -> None:
    op.alter_column("lab_file", "object_version", type_=sa.String(120))
    op.alter_column("lab_file", "object_key", type_=sa.String(400))
