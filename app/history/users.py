"""What is stored of users with a password, and of tickets that were used."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database
from app.history.credentials import api_keys, used_tickets, users


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with a password. Times are aware UTC."""

    id: str
    password_hash: str
    scopes: str
    generation: int
    created_at: datetime
    password_at: datetime
    disabled_at: datetime | None = None


async def insert_user(database: Database, user: User) -> bool:
    """Store a new user; return False if there is one of that name."""
    statement = _insert(database, users).values(asdict(user)).on_conflict_do_nothing()
    async with database.write() as connection:
        return (await connection.execute(statement)).rowcount == 1


async def find_user(database: Database, user_id: str) -> User | None:
    """Return a user."""
    async with database.read() as connection:
        row = (await connection.execute(sa.select(*_columns()).where(users.c.id == user_id))).mappings().first()
    return None if row is None else User(**row)


async def list_users(database: Database) -> list[User]:
    """Return every user, by name."""
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(*_columns()).order_by(users.c.id))).mappings().all()
    return [User(**row) for row in rows]


async def change_password(database: Database, user_id: str, password_hash: str, at: datetime) -> bool:
    """Set a password, which ends the user's tokens and sessions; return False if there is no such user."""
    return await _change(database, user_id, at, password_hash=password_hash, password_at=at)


async def change_access(database: Database, user_id: str, at: datetime, *, is_disabled: bool) -> bool:
    """Shut a user out, or let them in again; both end their tokens and sessions. False if there is no such user."""
    return await _change(database, user_id, at, disabled_at=at if is_disabled else None)


async def use_ticket(database: Database, ticket_id: str, *, expires_at: datetime, now: datetime) -> bool:
    """Use up a ticket; return False if somebody has used it already."""
    statement = _insert(database, used_tickets).values(id=ticket_id, expires_at=expires_at).on_conflict_do_nothing()
    async with database.write() as connection:
        await connection.execute(sa.delete(used_tickets).where(used_tickets.c.expires_at < now))
        return (await connection.execute(statement)).rowcount == 1


async def _change(database: Database, user_id: str, at: datetime, **values: Any) -> bool:
    changed = sa.update(users).where(users.c.id == user_id).values(generation=users.c.generation + 1, **values)
    is_session = sa.and_(api_keys.c.kind == "session", api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
    async with database.write() as connection:
        await connection.execute(sa.update(api_keys).where(is_session).values(revoked_at=at))
        return (await connection.execute(changed)).rowcount == 1


def _insert(database: Database, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    return sqlite.insert(table) if database.dialect == "sqlite" else postgresql.insert(table)


def _columns() -> list["sa.ColumnElement[Any]"]:
    return [column.label(column.key) for column in users.c]
