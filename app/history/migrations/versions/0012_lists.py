"""Indexes for lists over a long history: what lives and what is dead by status, and by queue and type."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_LIVE = "status IN ('pending', 'running')"
_DEAD = "status IN ('failed', 'cancelled')"


def upgrade() -> None:
    """Lead the partial indexes by status, and add one for each common filter."""
    for name, column in (("queue", "queue"), ("type", "task_type")):
        op.create_index(f"ix_background_tasks_{name}", "background_tasks", [column, "created_at", "task_id"])
    # Last: of two indexes that promise as much, SQLite takes the younger, and these are the shorter ones.
    for name, where in (("live", _LIVE), ("dead", _DEAD)):
        op.drop_index(f"ix_background_tasks_{name}", "background_tasks")
        _partial_index(name, ["status", "created_at", "task_id"], where)


def downgrade() -> None:
    """Lead them by id and by age again."""
    for name in ("dead", "live", "type", "queue"):
        op.drop_index(f"ix_background_tasks_{name}", "background_tasks")
    _partial_index("live", ["task_id"], _LIVE)
    _partial_index("dead", ["created_at", "task_id"], _DEAD)


def _partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        f"ix_background_tasks_{name}",
        "background_tasks",
        columns,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
