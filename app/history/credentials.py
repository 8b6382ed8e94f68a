"""The tables of credentials: API keys and browser sessions, users with a password, tickets that were used.

None holds a secret: of a key its keyed digest, of a password its argon2 hash.
"""

import sqlalchemy as sa

from app.database import UtcTime, metadata

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.Text, key="id", primary_key=True),  # the public part of the key, by which it is found
    sa.Column("kind", sa.Text, nullable=False),  # key, or session: one that a browser holds as a cookie
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # joined by spaces
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
    sa.Column("last_used_at", UtcTime),  # to about a minute
    sa.Column("replaced_by", sa.Text),  # the key that a rotation put in its place
    sa.Column("parent", sa.Text),  # the key that opened a session, and with which it ends
    sa.CheckConstraint("kind IN ('key', 'session')", name="kind"),
    sqlite_with_rowid=False,
)
sa.Index("ix_api_keys_user_id", api_keys.c.user_id, api_keys.c.created_at)

users = sa.Table(
    "users",
    metadata,
    sa.Column("user_id", sa.Text, key="id", primary_key=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # joined by spaces
    sa.Column("generation", sa.Integer, nullable=False),  # rises with what makes older tokens worthless
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("password_at", UtcTime, nullable=False),  # when the password was set
    sa.Column("disabled_at", UtcTime),
    sqlite_with_rowid=False,
)

used_tickets = sa.Table(
    "used_tickets",
    metadata,
    sa.Column("ticket_id", sa.Text, key="id", primary_key=True),
    sa.Column("expires_at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)
