"""Checkpoints of jobs, training examples and models."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``task_checkpoints``, ``training_examples`` and ``models``."""
    op.create_table(
        "task_checkpoints",
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_task_checkpoints"),
    )
    op.create_table(
        "training_examples",
        sa.Column("example_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("input_text", sa.Text, nullable=False),
        sa.Column("output_text", sa.Text, nullable=False),
        sa.Column("quality", sa.Float, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("task_type", sa.Text),
        sa.Column("source", sa.Text),
        sa.PrimaryKeyConstraint("example_id", name="pk_training_examples"),
    )
    _record_indexes("training_examples", "example_id")
    op.create_table(
        "models",
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("data_from", _TIME),
        sa.Column("data_until", _TIME),
        sa.PrimaryKeyConstraint("model_id", name="pk_models"),
    )
    _record_indexes("models", "model_id")


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("models")
    op.drop_table("training_examples")
    op.drop_table("task_checkpoints")


def _record_indexes(table: str, identity: str) -> None:
    op.create_index(f"ix_{table}_user_id_timestamp_{identity}", table, ["user_id", "timestamp", identity])
    op.create_index(f"ix_{table}_timestamp_{identity}", table, ["timestamp", identity])
