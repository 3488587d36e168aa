"""Fewer index entries for each result that is read: none that another index serves, and ranges for rows of one file"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Nobody asks for the versions of a series: they are asked for by kit.
    op.drop_index("ix_result_version_series_id", "result_version")
    # The rows of a file stand together, as they came.
    op.drop_index("ix_result_version_file_id", "result_version")
    op.create_index(
        "ix_result_version_file_id",
        "result_version",
        ["file_id"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    # The unique key begins with the kit.
    op.drop_index("ix_release_decision_kit_id", "release_decision")
    # Hardly any kit waits.
    op.drop_index("ix_kit_hold_until", "kit")
    op.create_index("ix_kit_hold_until", "kit", ["hold_until"], postgresql_where=sa.text("hold_until IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_kit_hold_until", "kit")
    op.create_index("ix_kit_hold_until", "kit", ["hold_until"])
    op.create_index("ix_release_decision_kit_id", "release_decision", ["kit_id"])
    op.drop_index("ix_result_version_file_id", "result_version")
    op.create_index("ix_result_version_file_id", "result_version", ["file_id"])
    op.create_index("ix_result_version_series_id", "result_version", ["series_id"])
