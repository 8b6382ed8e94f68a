"""Unique keys, the answers to repeatable requests, and what was given up of the failed jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_UNIQUE = sa.text("unique_key IS NOT NULL AND status IN ('pending', 'running')")
_RETRY = sa.text("retried_from IS NOT NULL")


def upgrade() -> None:
    """Add ``unique_key``, and create ``idempotency_keys`` and ``discarded_tasks``."""
    op.add_column("background_tasks", sa.Column("unique_key", sa.Text))
    op.create_index(
        "uq_background_tasks_unique_key",
        "background_tasks",
        ["submitted_by", "unique_key"],
        unique=True,
        sqlite_where=_UNIQUE,
        postgresql_where=_UNIQUE,
    )
    op.create_index(
        "ix_background_tasks_retry",
        "background_tasks",
        ["retried_from"],
        sqlite_where=_RETRY,
        postgresql_where=_RETRY,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("location", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotency_keys"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "discarded_tasks",
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("discarded_at", _TIME, nullable=False),
        sa.Column("discarded_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_discarded_tasks"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Take them all back."""
    op.drop_table("discarded_tasks")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_background_tasks_retry", "background_tasks")
    op.drop_index("uq_background_tasks_unique_key", "background_tasks")
    op.drop_column("background_tasks", "unique_key")
