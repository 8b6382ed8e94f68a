"""FFE goals and blocks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``ffe_goals`` and ``ffe_blocks``."""
    op.create_table(
        "ffe_goals",
        sa.Column("goal_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("importance", sa.BigInteger, nullable=False),
        sa.Column("complexity", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("deadline", _TIME),
        sa.Column("parent", sa.Text),
        sa.PrimaryKeyConstraint("goal_id", name="pk_ffe_goals"),
    )
    op.create_index("ix_ffe_goals_user_id_timestamp_goal_id", "ffe_goals", ["user_id", "timestamp", "goal_id"])
    op.create_index("ix_ffe_goals_timestamp_goal_id", "ffe_goals", ["timestamp", "goal_id"])
    op.create_table(
        "ffe_blocks",
        sa.Column("block_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("goal_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("done_criterion", sa.Text, nullable=False),
        sa.Column("size", sa.Text, nullable=False),
        sa.Column("estimated_minutes", sa.BigInteger, nullable=False),
        sa.Column("depends_on", sa.Text, nullable=False),
        sa.Column("scheduled_start", _TIME),
        sa.Column("actual_minutes", sa.Float),
        sa.Column("completed_at", _TIME),
        sa.Column("prior_minutes", sa.Float),
        sa.Column("path", sa.Text),
        sa.PrimaryKeyConstraint("block_id", name="pk_ffe_blocks"),
    )
    op.create_index("ix_ffe_blocks_user_id_timestamp_block_id", "ffe_blocks", ["user_id", "timestamp", "block_id"])
    op.create_index("ix_ffe_blocks_timestamp_block_id", "ffe_blocks", ["timestamp", "block_id"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("ffe_blocks")
    op.drop_table("ffe_goals")
