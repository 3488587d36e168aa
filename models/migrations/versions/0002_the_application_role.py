"""The application's own role: it may add everywhere, change what has a state, and edit no record of the past

Decisions, result versions, events, attempts and the audit can only be added to, so that no bug and
no stolen connection of the product can rewrite what was said or done (law 10; ruling 18).
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROLE = "kitpost_app"

CHANGES = (
    "inbox",
    "person_index",
    "mobile_holder",
    "kit_order",
    "print_batch",
    "kit",
    "parcel",
    "lab_file",
    "result_series",
    "quarantined_row",
    "text",
    "text_attempt",
    "clinic_case",
)
"""Tables whose rows have a state. Every other table is insert-only for the application."""


def upgrade() -> None:
    op.execute(
        f"""
        DO $$ BEGIN
            CREATE ROLE {ROLE} LOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        """
    )
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    op.execute(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {ROLE}")
    op.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
    op.execute(f"REVOKE INSERT ON alembic_version, installation FROM {ROLE}")
    op.execute(f"GRANT UPDATE ON {', '.join(CHANGES)} TO {ROLE}")
    op.execute(f"GRANT UPDATE (service_time_offset_seconds, sending_stopped) ON installation TO {ROLE}")


def downgrade() -> None:
    op.execute(f"DROP OWNED BY {ROLE}")
