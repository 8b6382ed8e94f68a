"""Interactions, epistemic debts and fact checks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``interactions``, ``edm_debts`` and ``fact_checks``."""
    op.create_table(
        "interactions",
        sa.Column("interaction_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("scanned_at", _TIME),
        sa.PrimaryKeyConstraint("interaction_id", name="pk_interactions"),
    )
    _create_lists("interactions", "interaction_id")
    op.create_table(
        "edm_debts",
        sa.Column("debt_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("claim", sa.Text, nullable=False),
        sa.Column("span", sa.Text),
        sa.Column("part", sa.Text),
        sa.Column("debt_type", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("interaction_id", sa.Text),
        sa.Column("seen_in", sa.Text, nullable=False),
        sa.Column("last_seen_at", _TIME),
        sa.Column("fact_check_status", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("evidence", sa.Text),
        sa.Column("resolved", sa.Boolean, nullable=False),
        sa.Column("resolution_method", sa.Text),
        sa.Column("resolved_at", _TIME),
        sa.PrimaryKeyConstraint("debt_id", name="pk_edm_debts"),
    )
    _create_lists("edm_debts", "debt_id")
    op.create_table(
        "fact_checks",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("claim", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("rating", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("publisher", sa.Text),
        sa.Column("url", sa.Text),
        sa.Column("date", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fact_checks"),
    )
    op.create_index("ix_fact_checks_date_id", "fact_checks", ["date", "id"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("fact_checks", "edm_debts", "interactions"):
        op.drop_table(table)


def _create_lists(table: str, identity: str) -> None:
    op.create_index(f"ix_{table}_user_id_timestamp_{identity}", table, ["user_id", "timestamp", identity])
    op.create_index(f"ix_{table}_timestamp_{identity}", table, ["timestamp", identity])
