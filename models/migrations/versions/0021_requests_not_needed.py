"""Requests that are not needed, because their kit was cancelled, and all requests of one file in whatever state"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("owed", "sending", "sent", "acknowledged", "unsure", "refused")
SETTLED = "state = 'acknowledged' AND error_code = 'not_needed'"
"""What the way down made of requests that are not needed."""


def _states(*allowed: str) -> None:
    name = op.f("ck_lab_request_state")
    op.drop_constraint(name, "lab_request", type_="check")
    op.create_check_constraint(name, "lab_request", sa.column("state").in_(allowed))


def upgrade() -> None:
    _states(*BEFORE, "not_needed")
    op.execute(f"UPDATE lab_request SET state = 'not_needed', acknowledged_at = NULL, error_code = '' WHERE {SETTLED}")
    op.create_index("ix_lab_request_batch", "lab_request", ["batch"])


def downgrade() -> None:
    """What is not needed becomes acknowledged: the one word under which older code neither sends it nor warns of it.

    Owed, a laboratory would be told of kits that were cancelled. A mark lets the way up find them again.
    """
    op.drop_index("ix_lab_request_batch", table_name="lab_request")
    op.execute(
        "UPDATE lab_request SET state = 'acknowledged', acknowledged_at = owed_at, error_code = 'not_needed' "
        "WHERE state = 'not_needed'"
    )
    _states(*BEFORE)
