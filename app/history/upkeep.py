"""The upkeep of the database: statistics, space, indexes, checks, outside of transactions on both databases."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.jobs.maintenance import MaintenanceLevel


class Operation(StrEnum):
    """One step of the upkeep."""

    ANALYZE = "ANALYZE"
    VACUUM = "VACUUM"
    REINDEX = "REINDEX"
    WAL_CHECKPOINT = "wal_checkpoint(TRUNCATE)"
    OPTIMIZE = "optimize"
    INTEGRITY_CHECK = "integrity_check"
    VACUUM_FULL = "VACUUM FULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How large the database is. ``size`` is in bytes, without SQLite's write-ahead log."""

    tables: int
    indexes: int
    size: int


_STANDARD = (Operation.VACUUM, Operation.REINDEX, Operation.ANALYZE)
_SQLITE = {
    MaintenanceLevel.LIGHT: (Operation.ANALYZE,),
    MaintenanceLevel.STANDARD: _STANDARD,
    MaintenanceLevel.HEAVY: (
        *_STANDARD,
        Operation.WAL_CHECKPOINT,
        Operation.OPTIMIZE,
        Operation.INTEGRITY_CHECK,
    ),
}
_POSTGRESQL = {
    MaintenanceLevel.LIGHT: (Operation.ANALYZE,),
    MaintenanceLevel.STANDARD: _STANDARD,
    MaintenanceLevel.HEAVY: (Operation.VACUUM_FULL, *_STANDARD),
}

_OURS = "FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = current_schema()"
_TABLES = f"SELECT quote_ident(relname) {_OURS} AND relkind = 'r' ORDER BY relname"  # a constant
# What a REINDEX CONCURRENTLY that was killed has left behind.
_BROKEN = f"""
SELECT quote_ident(relname) {_OURS} AND relkind = 'i' AND relname ~ '_ccnew[0-9]*$'
AND pg_class.oid IN (SELECT indexrelid FROM pg_index WHERE NOT indisvalid)
"""  # noqa: S608  # a constant


def operations_of(dialect: str, level: MaintenanceLevel) -> Sequence[Operation]:
    """Return what a level does on a database, in order."""
    return (_SQLITE if dialect == "sqlite" else _POSTGRESQL)[level]


async def perform(database: Database, operation: Operation) -> str | None:
    """Do one step; return what the database says of it. Each may be repeated, and leaves the data as it is."""
    if operation is Operation.INTEGRITY_CHECK:  # a reader: it keeps no writer waiting
        async with database.read() as connection:
            return await _asked(connection, "PRAGMA integrity_check(10)")
    async with database.standalone() as connection:
        if database.dialect == "sqlite":
            return await _on_sqlite(connection, operation)
        await _on_postgresql(connection, operation)
        return None


async def measure(database: Database) -> Extent:
    """Read tables, indexes and size from the catalogue."""
    if database.dialect == "sqlite":
        query = """
        SELECT (SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'),
               (SELECT count(*) FROM sqlite_master WHERE type = 'index'),
               (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)
        """
    else:
        query = f"""
        SELECT (SELECT count(*) {_OURS} AND relkind = 'r'), (SELECT count(*) {_OURS} AND relkind = 'i'),
               pg_database_size(current_database())
        """  # a constant
    async with database.read() as connection:
        tables, indexes, size = (await connection.execute(sa.text(query))).one()
    return Extent(tables=tables, indexes=indexes, size=size)


async def _on_sqlite(connection: AsyncConnection, operation: Operation) -> str | None:
    match operation:
        case Operation.WAL_CHECKPOINT:
            busy, _, _ = (await connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
            return "some pages are still being read, and stay in the log" if busy else "ok"
        case Operation.OPTIMIZE:
            await connection.execute(sa.text("PRAGMA optimize"))
        case _:
            await connection.execute(sa.text(operation.value))
    return None


async def _on_postgresql(connection: AsyncConnection, operation: Operation) -> None:
    match operation:
        case Operation.ANALYZE | Operation.VACUUM | Operation.VACUUM_FULL:
            tables = ", ".join((await connection.execute(sa.text(_TABLES))).scalars())
            await connection.execute(sa.text(f"{operation.value} {tables}"))
        case Operation.REINDEX:
            for name in (await connection.execute(sa.text(_BROKEN))).scalars().all():
                await connection.execute(sa.text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
            schema = await _asked(connection, "SELECT quote_ident(current_schema())")
            await connection.execute(sa.text(f"REINDEX SCHEMA CONCURRENTLY {schema}"))
        case Operation.WAL_CHECKPOINT | Operation.OPTIMIZE | Operation.INTEGRITY_CHECK:
            raise NotImplementedError(f"{operation} is SQLite's")
        case other:
            assert_never(other)


async def _asked(connection: AsyncConnection, query: str) -> str:
    return "; ".join(str(row[0]) for row in await connection.execute(sa.text(query)))
