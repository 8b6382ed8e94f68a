"""SQLite as several processes write it: its engines, the lock file they queue on, the writer of the hot path.

A process writes with ``BEGIN IMMEDIATE``, and the writers of several processes queue on a lock file instead of
polling SQLite's own lock, whose retry sleeps up to 100 ms.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_BEGIN_WRITE = "BEGIN IMMEDIATE"  # a read that turned into a write could find the lock taken


class FileLock:
    """The lock file on which writers of several processes, and both writers of one, queue for SQLite."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # a lock belongs to its own opening of the file
        self._turn = asyncio.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock in this thread, and hold it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @asynccontextmanager
    async def held_async(self) -> AsyncIterator[None]:
        """Wait for the lock beside the event loop, and hold it."""
        await self._turn.acquire()
        await self._wait()
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self) -> None:
        """Take the lock; on failure, give the turn on."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting = asyncio.ensure_future(asyncio.to_thread(fcntl.flock, self._fd, fcntl.LOCK_EX))
            try:
                await asyncio.shield(waiting)
            except (asyncio.CancelledError, OSError):
                # A thread that was left behind gets the lock all the same. Until it has, and has given it back, it
                # is nobody's turn: the next one would wait through the same opened file, and lose the lock to it.
                waiting.add_done_callback(lambda _: self._give_back())
                raise

    def _give_back(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._turn.release()

    def close(self) -> None:
        """Close the file, which gives the lock back."""
        os.close(self._fd)


class HotWriter:
    """SQLite's writer for the hot path: whole transactions in a thread of its own, on a connection that it keeps.

    Through aiosqlite every step of a transaction is a trip to a thread and back, and waits each time for
    the event loop's next turn; under load that took 25 ms of a transaction that needs 5. The driver begins and
    commits: by SQLAlchemy that cost as much as the statements of a single job.
    """

    def __init__(self, engine: sa.Engine, lock: FileLock) -> None:
        self._engine = engine  # begins no transaction, and keeps no connection
        self._lock = lock
        self._connection: sa.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hot-writer")

    async def run(self, changes: Sequence[Callable[[sa.Connection], Any]]) -> list[Any]:
        """Run changes in one transaction; return what each returned, once that is committed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, changes)

    def _run(self, changes: Sequence[Callable[[sa.Connection], Any]]) -> list[Any]:
        with self._lock.held(), self._transaction() as connection:
            return [change(connection) for change in changes]

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        self._connection = self._connection or self._engine.connect()
        driver = driver_of(self._connection)
        driver.execute(_BEGIN_WRITE)
        try:
            yield self._connection
            driver.execute("COMMIT")
        except BaseException:
            driver.rollback()
            raise

    def hang_up(self) -> None:
        """Close the connection; the next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the thread, and close the connection."""
        self._thread.shutdown()
        self.hang_up()
        self._lock.close()


def driver_of(connection: sa.Connection) -> sqlite3.Connection:
    """Return SQLite's own connection below SQLAlchemy's."""
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def make_engines(
    url: sa.URL, *, echo: bool, pool_size: int, max_overflow: int
) -> tuple[AsyncEngine, AsyncEngine, sa.Engine]:
    """Make the engines for reads, for writes, and for the hot writer. Connects on first use only."""
    once: dict[str, Any] = {"async_creator_fn": _connect}
    reads = create_async_engine(url, echo=echo, pool_size=pool_size, max_overflow=max_overflow, connect_args=once)
    tidy = once | {"factory": _TidyConnection}
    writes = create_async_engine(url, echo=echo, pool_size=1, max_overflow=0, connect_args=tidy)
    hot = sa.create_engine(url.set(drivername="sqlite+pysqlite"), echo=echo, poolclass=sa.NullPool)
    for engine in (reads.sync_engine, writes.sync_engine, hot):
        sa.event.listen(engine, "connect", _set_pragmas)
    for engine, begin in ((reads.sync_engine, "BEGIN"), (writes.sync_engine, _BEGIN_WRITE)):
        sa.event.listen(engine, "begin", lambda connection, sql=begin: connection.exec_driver_sql(sql))
    return reads, writes, hot


class _TidyConnection(sqlite3.Connection):
    """A connection whose end ends its transaction.

    SQLAlchemy closes the connection of a task that is cancelled in the middle of a statement. SQLite closes it
    only once the last cursor is gone, which a traceback may hold for long, and its transaction locks out all others.
    """

    def close(self) -> None:
        """Roll back what is open, and close."""
        if self.in_transaction:
            self.rollback()
        super().close()


class _Connection(aiosqlite.Connection):
    """A connection whose thread is told to end once: whoever told it a second time would wait for ever.

    SQLAlchemy does so with one that is closed for a task which is cancelled twice, and the event loop never closes.
    """

    def stop(self) -> "asyncio.Future[None] | None":
        """Let the thread end after what it was given."""
        return super().stop() if self._running else None


def _connect(path: str, **options: Any) -> _Connection:
    connection = _Connection(lambda: sqlite3.connect(path, **options), iter_chunk_size=64)
    connection._thread = Thread(target=_run_quietly, args=(connection._thread.run,), daemon=True)  # SQLAlchemy's too is
    return connection


def _run_quietly(run: Callable[[], None]) -> None:
    """Run the thread of a connection; once the event loop has closed, there is nobody to take its answers."""
    with suppress(RuntimeError):
        run()


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun in words, not by the driver on its own
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=10000",
        "cache_size=-2048",  # KiB, of each connection: the file is in the machine's memory anyway
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
