"""Jobs and their attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``background_tasks`` and ``task_attempts``."""
    op.create_table(
        "background_tasks",
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("task_name", sa.Text, nullable=False),
        sa.Column("task_type", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("submitted_by", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("max_retries", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("scheduled_for", _TIME),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("claim", sa.Text),
        sa.Column("worker_id", sa.Text),
        *(
            sa.Column(name, sa.Integer, nullable=False, server_default="0")
            for name in ("attempts", "failures", "interruptions", "releases")
        ),
        sa.Column("started_at", _TIME),
        sa.Column("completed_at", _TIME),
        sa.Column("progress", sa.Float, nullable=False, server_default="0"),
        sa.Column("progress_message", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.Column("is_retryable", sa.Boolean),
        sa.Column("retried_from", sa.Text),
        sa.Column("schedule", sa.Text),
        sa.Column("tick_at", _TIME),
        sa.PrimaryKeyConstraint("task_id", name="pk_background_tasks"),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_background_tasks_status"),
        ),
        sa.CheckConstraint("priority BETWEEN 1 AND 10", name=op.f("ck_background_tasks_priority")),
        sqlite_with_rowid=False,
    )
    _partial_index("ix_background_tasks_live", ["task_id"], "status IN ('pending', 'running')")
    _partial_index("ix_background_tasks_dead", ["created_at", "task_id"], "status IN ('failed', 'cancelled')")
    _partial_index("uq_background_tasks_tick", ["schedule", "tick_at"], "schedule IS NOT NULL", unique=True)
    op.create_index("ix_background_tasks_age", "background_tasks", ["created_at", "task_id"])
    op.create_index("ix_background_tasks_owner", "background_tasks", ["submitted_by", "created_at", "task_id"])
    op.create_table(
        "task_attempts",
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Text),
        sa.Column("started_at", _TIME),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.PrimaryKeyConstraint("task_id", "attempt", name="pk_task_attempts"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("task_attempts")
    op.drop_table("background_tasks")


def _partial_index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name,
        "background_tasks",
        columns,
        unique=unique,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
