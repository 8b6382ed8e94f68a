"""Stored records: upsert, pages, counts and removal, for every record kind, on both databases."""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import iso, parse_iso
from app.database import Database, UtcTime
from app.errors import BadRequest, Conflict
from app.records.record import AnyRecordType, Record, RecordType

BATCH = 1_000  # rows of one statement

T = TypeVar("T", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some records, newest first, and where the next page begins."""

    records: list[T]
    next_cursor: str | None  # None on the last page


class Cursor(NamedTuple):
    """The place after one record in the order of the lists. Clients see it as opaque text."""

    at: datetime
    id: str

    def encode(self) -> str:
        """Write it as URL-safe text."""
        return base64.urlsafe_b64encode(orjson.dumps([iso(self.at), self.id])).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read what :meth:`encode` wrote; raise BadRequest for anything else."""
        try:
            at, record_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(parse_iso(at), str(record_id))
        except (ValueError, TypeError, OverflowError) as error:
            raise BadRequest("This cursor is not one of ours; begin without one.", cursor=text) from error


class Records:
    """The records of all kinds in one database. ``user_id`` never narrows kinds that belong to nobody."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def upsert(self, record_type: RecordType[T], records: Sequence[T]) -> int:
        """Store records by id in one transaction and return how many: all or none, repeatable, last of an id wins.

        Raise Conflict, naming them, when ids exist already as another user's.
        """
        rows = {row[record_type.id_field]: row for row in record_type.batch.dump_python(list(records))}
        # In one order for everybody: two concurrent upserts of the same ids would deadlock otherwise.
        ordered = iter(sorted(rows.items()))
        statement = self._upsert(record_type)
        async with self.database.write() as connection:
            while batch := dict(islice(ordered, BATCH)):
                await connection.execute(statement, list(batch.values()))
                await self._refuse_foreign(connection, record_type, batch)
        return len(rows)

    async def get(self, record_type: RecordType[T], record_id: str, *, user_id: str | None = None) -> T | None:
        """Return one record; None when there is none, or it is not the user's."""
        found = await self._fetch(record_type, _one(record_type, record_id, user_id))
        return found[0] if found else None

    async def change(
        self, record_type: RecordType[T], record_id: str, change: Callable[[T], T], *, user_id: str | None = None
    ) -> T | None:
        """Store what ``change`` makes of one record, in one transaction, and return that; None as of :meth:`get`.

        Nobody else changes the record meanwhile. What ``change`` raises leaves it as it was.
        """
        async with self.database.write() as connection:
            chosen = _one(record_type, record_id, user_id).with_for_update()
            row = (await connection.execute(chosen)).mappings().first()
            if row is None:
                return None
            (stored,) = record_type.batch.validate_python([dict(row)])
            changed = change(stored)
            if changed != stored:
                (values,) = record_type.batch.dump_python([changed])
                identity = record_type.table.c[record_type.id_field]
                await connection.execute(sa.update(record_type.table).where(identity == record_id).values(values))
        return changed

    async def page(
        self,
        record_type: RecordType[T],
        *,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[T]:
        """Return up to ``limit`` records with since ≤ time < until, newest first, ids descending where times are equal.

        ``after`` is the cursor of the page before; raise BadRequest when it is not one.
        """
        time, identity = record_type.table.c[record_type.time_field], record_type.table.c[record_type.id_field]
        query = sa.select(record_type.table).where(*_window(record_type, user_id, since, until))
        if after is not None:
            at, last_id = Cursor.decode(after)
            query = query.where(sa.tuple_(time, identity) < sa.tuple_(sa.literal(at, UtcTime), sa.literal(last_id)))
        found = await self._fetch(record_type, query.order_by(time.desc(), identity.desc()).limit(limit + 1))
        records = found[:limit]
        return Page(records=records, next_cursor=_cursor(record_type, records[-1]) if len(found) > limit else None)

    async def count(
        self,
        record_type: AnyRecordType,
        *,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Return the number of records with since ≤ time < until."""
        query = sa.select(sa.func.count()).select_from(record_type.table)
        async with self.database.read() as connection:
            return (await connection.execute(query.where(*_window(record_type, user_id, since, until)))).scalar_one()

    async def delete(self, record_type: AnyRecordType, ids: Sequence[str], *, user_id: str | None = None) -> int:
        """Delete records (at most 1,000) in one transaction; return how many were there, and the user's."""
        identity = record_type.table.c[record_type.id_field]
        chosen = sa.delete(record_type.table).where(identity.in_(ids), *_window(record_type, user_id))
        async with self.database.write() as connection:
            return (await connection.execute(chosen)).rowcount

    async def delete_user(self, record_type: AnyRecordType, user_id: str) -> int:
        """Delete a user's records and return how many; none of a kind that belongs to nobody.

        Goes in transactions of 1,000 rows, so that other writers get their turn; when interrupted, call again.
        """
        if record_type.user_field is None:
            return 0
        identity = record_type.table.c[record_type.id_field]
        some = sa.select(identity).where(*_window(record_type, user_id)).limit(BATCH)
        deleted = 0
        while True:
            async with self.database.write() as connection:
                gone = (await connection.execute(sa.delete(record_type.table).where(identity.in_(some)))).rowcount
            deleted += gone
            if gone < BATCH:
                return deleted

    async def delete_before(self, record_type: AnyRecordType, cutoff: datetime) -> AsyncIterator[int]:
        """Delete the records from before a time; yield how many went, in transactions of 1,000 rows."""
        identity = record_type.table.c[record_type.id_field]
        time = record_type.table.c[record_type.time_field]
        some = sa.select(identity).where(time < cutoff).order_by(time).limit(BATCH)
        gone = BATCH
        while gone == BATCH:
            async with self.database.write() as connection:
                gone = (await connection.execute(sa.delete(record_type.table).where(identity.in_(some)))).rowcount
            yield gone

    def _upsert(self, record_type: AnyRecordType) -> sa.Insert:
        insert = sqlite.insert if self.database.dialect == "sqlite" else postgresql.insert
        statement = insert(record_type.table)
        owner = record_type.user_field
        return statement.on_conflict_do_update(
            index_elements=[record_type.id_field],
            set_={name: new for name, new in statement.excluded.items() if name != record_type.id_field},
            where=None if owner is None else ~record_type.table.c[owner].is_distinct_from(statement.excluded[owner]),
        )

    async def _refuse_foreign(
        self, connection: AsyncConnection, record_type: AnyRecordType, rows: dict[str, dict[str, Any]]
    ) -> None:
        # After the write, not before: a row that another transaction has just committed is then seen too.
        if record_type.user_field is None:
            return
        identity, owner = record_type.table.c[record_type.id_field], record_type.table.c[record_type.user_field]
        stored = await connection.execute(sa.select(identity, owner).where(identity.in_(list(rows))))
        foreign = sorted(found for found, user_id in stored if user_id != rows[found][record_type.user_field])
        if foreign:
            named = ", ".join(foreign[:10]) + (" …" if len(foreign) > 10 else "")
            raise Conflict(f"These ids belong to another user: {named}. Use ids of your own.", ids=foreign)

    async def _fetch(self, record_type: RecordType[T], query: "sa.Select[Any]") -> list[T]:
        async with self.database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return record_type.batch.validate_python([dict(row) for row in rows])


def _one(record_type: AnyRecordType, record_id: str, user_id: str | None) -> "sa.Select[Any]":
    identity = record_type.table.c[record_type.id_field]
    return sa.select(record_type.table).where(identity == record_id, *_window(record_type, user_id))


def _window(
    record_type: AnyRecordType, user_id: str | None, since: datetime | None = None, until: datetime | None = None
) -> list["sa.ColumnElement[bool]"]:
    columns = record_type.table.c
    conditions: list[sa.ColumnElement[bool]] = []
    if user_id is not None and record_type.user_field is not None:
        conditions.append(columns[record_type.user_field] == user_id)
    if since is not None:
        conditions.append(columns[record_type.time_field] >= since)
    if until is not None:
        conditions.append(columns[record_type.time_field] < until)
    return conditions


def _cursor(record_type: AnyRecordType, record: Record) -> str:
    return Cursor(getattr(record, record_type.time_field), getattr(record, record_type.id_field)).encode()
