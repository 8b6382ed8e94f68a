"""The database as both history and records use it: engines, one write door, column types, batch rows.

SQLite by default, PostgreSQL for more than one machine; the same statements run on both.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.clock import iso, parse_iso
from app.errors import Misconfigured, Unavailable
from app.group import GroupCommit
from app.log import get_log
from app.settings import Settings
from app.sqlite import FileLock, HotWriter, make_engines

# The database did not answer; anything else is the statement's fault. SQLite's own errors come of begin and commit.
OUTAGES = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, sqlite3.Error, TimeoutError, OSError)

log = get_log()

R = TypeVar("R")
Change = Callable[[sa.Connection], R]

_POSTGRES = {  # whatever the server's, the role's or the database's own defaults are
    "synchronous_commit": "on",  # an answered accept, start or settle survives a crash
    "default_transaction_isolation": "read committed",  # a guarded write that waited sees what the other wrote
}
_TRIES = 5  # of a change that PostgreSQL took back for another's sake
_TAKEN_BACK = {"40P01", "40001"}  # deadlock, serialization failure: nothing was changed, and again may do
_READ_ONLY = "25006"  # it was demoted, say, or its disk is full
_AWAY = (  # states, and classes of states, that are no statement's fault: SQLAlchemy names asyncpg's no other way
    "55P03",  # a lock was not to be had in time
    "08",  # connections
    "53",  # full: the disk, the memory, the connections
    "57",  # an operator intervened
    "58",  # the system beneath it failed
)
_TOGETHER = 8  # changes in one transaction; each may be a batch of hundreds of rows

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(sa.TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` on PostgreSQL, sortable ISO-8601 text on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the column type."""
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write."""
        return iso(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read."""
        return parse_iso(value) if isinstance(value, str) else value


class Json(sa.TypeDecorator[Any]):
    """Any JSON value, stored as compact text on both databases so that stored bytes can be reused."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write."""
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read."""
        return None if value is None else orjson.loads(value)


class Database:
    """The engines of one process: ``reads`` for queries, :meth:`write` and :meth:`transact` for changes."""

    def __init__(
        self, reads: AsyncEngine, writes: AsyncEngine, lock: FileLock | None = None, hot: HotWriter | None = None
    ) -> None:
        self.reads = reads
        self._writes = writes
        self._lock = lock
        self._hot = hot
        self._changes: GroupCommit[Change[Any], Any] = GroupCommit(self._run_together, limit=_TOGETHER)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._writes.dialect.name

    @property
    def file(self) -> Path | None:
        """The file of SQLite's database; None on PostgreSQL."""
        return Path(str(self._writes.url.database)) if self.dialect == "sqlite" else None

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open one write transaction; commits at the end of the block, rolls back when it raises."""
        async with self._lock.held_async() if self._lock else nullcontext():
            with _outages_told():
                async with self._writes.begin() as connection:
                    yield connection

    async def transact(self, change: Change[R], *, is_repeatable: bool = False) -> R:
        """Run ``change`` in a write transaction and return what it returns, once that is committed.

        On SQLite, whose commits cost a sync to disk and exclude each other, the changes that come while
        one commits share the next transaction; one that is refused is tried again without the others.
        PostgreSQL may commit and be cut off before it says so: a change that ``is_repeatable``, because it does
        and returns the same a second time, is then run once more.
        """
        if self._hot is None:
            return await self._transact_again(change, is_repeatable=is_repeatable)
        result: R = await self._changes(change)
        return result

    async def _transact_again(self, change: Change[R], *, is_repeatable: bool) -> R:
        for tried in range(1, _TRIES + 1):
            has_begun = False
            try:
                async with self.write() as connection:
                    has_begun = True
                    return await connection.run_sync(change)
            except exc.DBAPIError as error:
                if _state_of(error) not in _TAKEN_BACK:
                    raise
                if tried == _TRIES:
                    raise Unavailable from error
                log.warning("transaction_tried_again", tried=tried, reason=str(error.orig))
            except Unavailable:
                if not (has_begun and is_repeatable):
                    raise
                is_repeatable = False
            await asyncio.sleep(random.uniform(0, 0.02) * 2**tried)  # noqa: S311  # jitter, not a secret
        raise AssertionError("the last try returns or raises")

    async def _run_together(self, changes: Sequence[Change[Any]]) -> list[Any]:
        assert self._hot is not None  # noqa: S101  # transact has looked
        with _outages_told():
            return await self._hot.run(changes)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for queries."""
        with _outages_told():
            async with self.reads.connect() as connection:
                yield connection

    @asynccontextmanager
    async def standalone(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection of its own, on which each statement stands alone: in no transaction, with no time limit.

        For VACUUM and its like, and for locks that end with their connection. SQLite's writers wait meanwhile.
        """
        engine = create_async_engine(self._writes.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        async with self._lock.held_async() if self._lock else nullcontext():
            with _outages_told():
                async with engine.connect() as connection:
                    yield connection

    async def ping(self) -> None:
        """Ask the database something trivial; raise Unavailable if it does not answer."""
        async with self.read() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection of this process."""
        await self.reads.dispose()
        await self._writes.dispose()
        await self._changes.close()
        if self._hot is not None:
            self._hot.close()
        if self._lock is not None:
            self._lock.close()


@contextmanager
def _outages_told() -> Iterator[None]:
    """Raise Unavailable for a database that is away; what a statement itself is to blame for passes."""
    try:
        yield
    except (exc.DBAPIError, *OUTAGES) as error:
        if not _is_outage(error):
            raise
        raise _unavailable(error) from error


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, exc.DBAPIError) and not isinstance(error, OUTAGES):
        has_connected = error.statement is not None  # a PostgreSQL that starts up or is full refuses to
        return error.connection_invalidated or not has_connected or _state_of(error).startswith(_AWAY)
    return True


def _state_of(error: exc.DBAPIError) -> str:
    """Return PostgreSQL's SQLSTATE; empty where there is none."""
    return getattr(error.orig, "sqlstate", None) or ""


def _leave_read_only(context: sa.engine.ExceptionContext) -> None:
    """Drop the connections to a server that has become read-only: behind the same name another may write by now."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _unavailable(error: BaseException) -> Unavailable:
    if "no such table" in str(error):  # SQLite calls that an operational error, like an outage
        return Unavailable("The database has no tables yet: run 'python -m app db upgrade'.")
    return Unavailable()


def open_database(settings: Settings) -> Database:
    """Make the engines that ``settings`` describe. Connects on first use only. Raises Misconfigured."""
    try:
        url = sa.make_url(settings.sql_url)
    except exc.ArgumentError as error:
        raise Misconfigured("DATABASE_URL is no URL, like postgresql+asyncpg://user:password@host/database.") from error
    match url.drivername:
        case "sqlite+aiosqlite":
            return _open_sqlite(url, settings)
        case "postgresql+asyncpg":
            engine = create_async_engine(
                url,
                echo=settings.db_echo,
                pool_size=settings.db_pool_size,
                max_overflow=settings.db_max_overflow,
                pool_pre_ping=True,
                connect_args={"timeout": 10, "command_timeout": 60, "server_settings": dict(_POSTGRES)},
            )
            sa.event.listen(engine.sync_engine, "handle_error", _leave_read_only)
            return Database(engine, engine)
        case other:
            raise Misconfigured(
                f"DATABASE_URL starts with {other}://, but it takes sqlite+aiosqlite:// or postgresql+asyncpg://."
            )


def _open_sqlite(url: sa.URL, settings: Settings) -> Database:
    if not url.database or url.database == ":memory:":
        raise Misconfigured("DATABASE_URL must name a file: several processes share the database.")
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    reads, writes, hot = make_engines(
        url, echo=settings.db_echo, pool_size=settings.db_pool_size, max_overflow=settings.db_max_overflow
    )
    lock_file = path.with_name(path.name + ".lock")
    return Database(reads, writes, FileLock(lock_file), HotWriter(hot, FileLock(lock_file)))


class Rows:
    """A batch of rows as a table expression: one statement text for every batch size.

    ``unnest`` of one array per column on PostgreSQL, ``json_each`` of one document on SQLite.
    """

    def __init__(self, **columns: str) -> None:
        self._columns = columns  # name → PostgreSQL type, out of text, integer, timestamptz, double precision
        self.names = tuple(columns)

    def sql(self, dialect: str) -> str:
        """Return ``(SELECT …) AS v`` with a column per name, for use in FROM."""
        if dialect == "sqlite":
            picks = ", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(self._columns))
            return f"(SELECT {picks} FROM json_each(:rows)) AS v"  # noqa: S608  # names of our own columns
        arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in self._columns.items())
        return f"unnest({arrays}) AS v({', '.join(self._columns)})"

    def values(self, dialect: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        """Return the bind parameters for :meth:`sql`; every row has a value per column, in their order."""
        if dialect == "sqlite":
            return {"rows": orjson.dumps(rows, default=iso, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()}
        return {name: [row[at] for row in rows] for at, name in enumerate(self._columns)}
