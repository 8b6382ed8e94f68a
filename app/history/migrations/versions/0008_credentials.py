"""API keys, users with a password, and tickets that were used."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``api_keys``, ``users`` and ``used_tickets``."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.Column("replaced_by", sa.Text),
        sa.Column("parent", sa.Text),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
        sa.CheckConstraint("kind IN ('key', 'session')", name=op.f("ck_api_keys_kind")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id", "created_at"])
    op.create_table(
        "users",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("password_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.PrimaryKeyConstraint("user_id", name="pk_users"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "used_tickets",
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name="pk_used_tickets"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop them all."""
    op.drop_table("used_tickets")
    op.drop_table("users")
    op.drop_table("api_keys")
