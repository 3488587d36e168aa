"""Files on laboratories' servers that must be seen twice before they are taken

The application may delete here: a look is a memory of one visit for the next, and no record of the past.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"


def upgrade() -> None:
    op.create_table(
        "lab_drop_look",
        sa.Column("lab", AutoString(length=40), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("lab", "digest", name=op.f("pk_lab_drop_look")),
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON lab_drop_look TO {ROLE}")


def downgrade() -> None:
    op.drop_table("lab_drop_look")
