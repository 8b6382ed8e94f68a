"""Webhooks, what was delivered to them, and the webhook that a submit names."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_JSON = sa.Text()


def upgrade() -> None:
    """Create ``webhooks`` and ``webhook_deliveries``, and add ``webhook_id``."""
    op.add_column("background_tasks", sa.Column("webhook_id", sa.Text))
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("is_for_all", sa.Boolean, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("events", _JSON, nullable=False),
        sa.Column("filters", _JSON, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("old_secret", sa.Text),
        sa.Column("old_secret_ends_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("failures", sa.Integer, server_default="0", nullable=False),
        sa.Column("failing_since", _TIME),
        sa.PrimaryKeyConstraint("webhook_id", name="pk_webhooks"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        sa.Column("last_attempt_at", _TIME),
        sa.Column("status_code", sa.Integer),
        sa.Column("duration_s", sa.Float),
        sa.Column("error", sa.Text),
        sa.Column("delivered_at", _TIME),
        sa.PrimaryKeyConstraint("delivery_id", name="pk_webhook_deliveries"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_webhook_deliveries_webhook_id", "webhook_deliveries", ["webhook_id", "created_at", "delivery_id"]
    )


def downgrade() -> None:
    """Take them all back."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_column("background_tasks", "webhook_id")
