"""Audit entries, alerts, the switches of schedules, and an index on when jobs ended."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_ENDED = sa.text("completed_at IS NOT NULL")


def upgrade() -> None:
    """Create ``audit_entries``, ``alerts`` and ``schedules``, and index ``background_tasks`` by its ends."""
    op.create_table(
        "audit_entries",
        sa.Column("entry_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("component", sa.Text),
        sa.Column("details", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("ip_address", sa.Text),
        sa.Column("resource", sa.Text),
        sa.PrimaryKeyConstraint("entry_id", name="pk_audit_entries"),
    )
    op.create_index(
        "ix_audit_entries_user_id_timestamp_entry_id", "audit_entries", ["user_id", "timestamp", "entry_id"]
    )
    op.create_index("ix_audit_entries_timestamp_entry_id", "audit_entries", ["timestamp", "entry_id"])
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("episode", sa.BigInteger, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("raised_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("occurrences", sa.BigInteger, nullable=False),
        sa.Column("resolved_at", _TIME),
        sa.PrimaryKeyConstraint("alert_id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_raised_at_alert_id", "alerts", ["raised_at", "alert_id"])
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedules"),
    )
    op.create_index(
        "ix_background_tasks_ended",
        "background_tasks",
        ["completed_at", "task_id"],
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    )


def downgrade() -> None:
    """Drop them all."""
    op.drop_index("ix_background_tasks_ended", "background_tasks")
    op.drop_table("schedules")
    op.drop_table("alerts")
    op.drop_table("audit_entries")
