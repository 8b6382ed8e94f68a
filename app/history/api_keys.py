"""What is stored of API keys and browser sessions, and every change of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from app.database import Database
from app.history.credentials import api_keys, users

KEPT = timedelta(days=7)  # how long a session that has ended can still be looked at

_LOCK = 0x6B657973  # "keys": one first key on a shared PostgreSQL

Kind = Literal["key", "session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key, or one session of a browser. Times are aware UTC."""

    id: str
    kind: Kind
    digest: str
    user_id: str
    name: str
    scopes: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    replaced_by: str | None = None
    parent: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether it was neither revoked nor has expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key, and whether the user it belongs to may use any."""

    key: ApiKey
    is_owner_disabled: bool


async def insert_key(database: Database, key: ApiKey) -> None:
    """Store a new key."""
    async with database.write() as connection:
        await connection.execute(api_keys.insert().values(asdict(key)))


async def insert_session(database: Database, session: ApiKey) -> None:
    """Store a new session, and let go of those that ended long ago."""
    old = sa.and_(api_keys.c.kind == "session", api_keys.c.expires_at < session.created_at - KEPT)
    async with database.write() as connection:
        await connection.execute(sa.delete(api_keys).where(old))
        await connection.execute(api_keys.insert().values(asdict(session)))


async def insert_first(database: Database, key: ApiKey) -> bool:
    """Store a key if there is neither a key nor a user yet; return whether it was. Of several processes, one wins."""
    any_key = sa.select(sa.literal(1)).select_from(api_keys).where(api_keys.c.kind == "key").limit(1)
    any_user = sa.select(sa.literal(1)).select_from(users).limit(1)
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = [(await connection.execute(query)).first() for query in (any_key, any_user)]
        if any(found):
            return False
        await connection.execute(api_keys.insert().values(asdict(key)))
    return True


async def find_key(database: Database, key_id: str) -> HeldKey | None:
    """Return a key by its public part."""
    query = (
        sa.select(*_columns(), users.c.disabled_at)
        .select_from(api_keys.outerjoin(users, users.c.id == api_keys.c.user_id))
        .where(api_keys.c.id == key_id)
    )
    async with database.read() as connection:
        row = (await connection.execute(query)).mappings().first()
    if row is None:
        return None
    return HeldKey(key=_key_from(row), is_owner_disabled=row["disabled_at"] is not None)


async def list_keys(
    database: Database, *, user_id: str | None = None, limit: int = 100, offset: int = 0
) -> tuple[list[ApiKey], int]:
    """Return keys, the newest first, and how many there are of this user's, or of everybody's; no sessions."""
    wanted = [api_keys.c.kind == "key", *([api_keys.c.user_id == user_id] if user_id is not None else [])]
    order = (api_keys.c.created_at.desc(), api_keys.c.id)
    query = sa.select(*_columns()).where(*wanted).order_by(*order).limit(limit).offset(offset)
    count = sa.select(sa.func.count()).select_from(api_keys).where(*wanted)
    async with database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
        total = int((await connection.execute(count)).scalar_one())
    return [_key_from(row) for row in rows], total


async def replace_key(database: Database, old: ApiKey, new: ApiKey, *, old_ends_at: datetime) -> bool:
    """Store ``new`` in the place of ``old``, which goes on until ``old_ends_at``; end what ``old`` had replaced.

    Return False, and change nothing, if somebody has revoked or replaced it in the meantime.
    """
    is_current = sa.and_(api_keys.c.id == old.id, api_keys.c.replaced_by.is_(None), api_keys.c.revoked_at.is_(None))
    handed_on = sa.update(api_keys).where(is_current).values(replaced_by=new.id, expires_at=old_ends_at)
    before = sa.select(api_keys.c.id).where(api_keys.c.replaced_by == old.id)
    async with database.write() as connection:
        if (await connection.execute(handed_on)).rowcount != 1:
            return False
        for predecessor in (await connection.execute(before)).scalars().all():
            await connection.execute(_revoked(predecessor, new.created_at))
        await connection.execute(api_keys.insert().values(asdict(new)))
    return True


async def revoke_key(database: Database, key_id: str, at: datetime) -> None:
    """End a key, or a session, and every session that was opened with it; what has ended keeps its time."""
    async with database.write() as connection:
        await connection.execute(_revoked(key_id, at))


async def note_uses(database: Database, uses: Mapping[str, datetime]) -> None:
    """Note when keys were used last."""
    noted = (
        sa.update(api_keys)
        .where(api_keys.c.id == sa.bindparam("used_id"))
        .values(last_used_at=sa.bindparam("used_at", type_=api_keys.c.last_used_at.type))
    )
    # In one order for everybody: two processes that note the same keys would deadlock otherwise.
    rows = [{"used_id": key_id, "used_at": at} for key_id, at in sorted(uses.items())]
    async with database.write() as connection:
        await connection.execute(noted, rows)


def _revoked(key_id: str, at: datetime) -> sa.Update:
    of_key = sa.or_(api_keys.c.id == key_id, api_keys.c.parent == key_id)
    return sa.update(api_keys).where(of_key, api_keys.c.revoked_at.is_(None)).values(revoked_at=at)


def _columns() -> list["sa.ColumnElement[Any]"]:
    return [column.label(column.key) for column in api_keys.c]


def _key_from(row: "sa.RowMapping") -> ApiKey:
    return ApiKey(**{name: row[name] for name in ApiKey.__dataclass_fields__})
