"""Two more texts: it takes longer than usual, and it is time to order again"""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

PURPOSES = (
    "order_received",
    "kit_posted",
    "return_reminder",
    "received_at_lab",
    "kit_lapsed",
    "all_clear",
    "failed_sample",
    "swab_positive",
    "please_expect_our_call",
)


def _allow(purposes: Sequence[str]) -> None:
    allowed = ", ".join(f"'{purpose}'" for purpose in purposes)
    op.execute("ALTER TABLE text DROP CONSTRAINT ck_text_purpose")
    op.execute(f"ALTER TABLE text ADD CONSTRAINT ck_text_purpose CHECK (purpose IN ({allowed}))")


def upgrade() -> None:
    _allow((*PURPOSES, "delayed", "retest_due"))


def downgrade() -> None:
    _allow(PURPOSES)
