"""What waits, by its owner: for the quota of waiting tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_WAITING = sa.text("status = 'pending'")


def upgrade() -> None:
    """Create the index of waiting tasks."""
    op.create_index(
        "ix_background_tasks_waiting",
        "background_tasks",
        ["submitted_by", "status"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_background_tasks_waiting", "background_tasks")
