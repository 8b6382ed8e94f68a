"""A task that is cancelled in the middle of a write leaves nothing locked."""

import asyncio
import fcntl
import random
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.database import Database, open_database
from app.settings import Settings
from app.sqlite import FileLock


async def write_two(database: Database) -> None:
    """Read, then write and read back, in one transaction."""
    async with database.write() as connection:
        await connection.execute(sa.text("SELECT task_id FROM task_checkpoints WHERE attempt = 2"))
        insert = "INSERT INTO discarded_tasks VALUES ('x', '2026-01-01T00:00:00Z', 'ada') ON CONFLICT DO NOTHING"
        await connection.execute(sa.text(f"{insert} RETURNING task_id"))


@pytest.mark.databases("sqlite")
async def test_a_cancelled_writer_leaves_the_database_to_the_others(database: Database) -> None:
    luck = random.Random(1)

    for _ in range(150):
        writers = [asyncio.create_task(write_two(database)) for _ in range(3)]
        await asyncio.sleep(luck.random() / 100)
        for writer in writers:
            if luck.random() < 0.5:
                writer.cancel()
        await asyncio.wait(writers)
        async with asyncio.timeout(5):
            await write_two(database)


_LONG_QUESTION = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT max(i) FROM n"
)


async def ask_and_be_cancelled_twice(settings: Settings) -> None:
    database, asks = open_database(settings), asyncio.Event()

    async def ask() -> None:
        async with database.read() as connection:
            asks.set()
            await connection.execute(sa.text(_LONG_QUESTION))

    asking = asyncio.create_task(ask())
    await asks.wait()
    for _ in range(2):
        await asyncio.sleep(0.05)  # SQLite computes; then SQLAlchemy closes the connection
        asking.cancel()
    await asyncio.wait([asking])
    await database.close()


@pytest.mark.timeout(20)  # it would never end
def test_an_event_loop_closes_after_a_reader_was_cancelled_twice(settings: Settings) -> None:
    threads = set(threading.enumerate())

    asyncio.run(ask_and_be_cancelled_twice(settings))

    for thread in set(threading.enumerate()) - threads:  # with an answer that nobody takes, which is no error
        thread.join()


async def hold(lock: FileLock, has_it: asyncio.Event, until: asyncio.Event) -> None:
    async with lock.held_async():
        has_it.set()
        await until.wait()


def is_free(path: Path) -> bool:
    with path.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def test_a_cancelled_wait_does_not_give_back_what_the_next_one_holds(tmp_path: Path) -> None:
    path, has_it, over = tmp_path / "lock", asyncio.Event(), asyncio.Event()
    ours, another = FileLock(path), FileLock(path)
    with another.held():
        first = asyncio.create_task(hold(ours, asyncio.Event(), over))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(hold(ours, has_it, over))
        await asyncio.sleep(0)

    await has_it.wait()
    await asyncio.get_running_loop().shutdown_default_executor()  # whoever waited in a thread has the lock, or had it
    for _ in range(10):  # it is told so, and tells others
        await asyncio.sleep(0)

    assert not is_free(path)
    over.set()
    await second
    assert is_free(path)
    ours.close()
    another.close()
