"""PostgreSQL as the service needs it, whatever the server's own defaults are; what it takes back is tried again."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import sqlalchemy as sa

from app.database import Database, open_database
from app.history.reader import Reader
from app.history.writer import StartRequest, Writer
from app.jobs.status import Status
from app.settings import Settings
from tests.support.house import new_job
from tests.support.postgres_server import PostgresUnderTest
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("postgresql")

SHOWN = ("synchronous_commit", "transaction_isolation")


@pytest.fixture
async def lax(settings: Settings, postgres: PostgresUnderTest) -> AsyncIterator[Database]:
    """A database whose own defaults would lose commits, and abort guarded writes that meet."""
    name = sa.make_url(settings.sql_url).database
    foreign = {"synchronous_commit": "off", "default_transaction_isolation": "serializable"}
    for setting, value in foreign.items():
        await asyncio.to_thread(postgres._execute, f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    database = open_database(settings)
    yield database
    await database.close()
    await asyncio.to_thread(postgres._execute, f'ALTER DATABASE "{name}" RESET ALL')


async def foreign_connection(settings: Settings) -> asyncpg.Connection:
    url = sa.make_url(settings.sql_url).set(drivername="postgresql")
    return await asyncpg.connect(url.render_as_string(hide_password=False), timeout=10)


async def test_the_foreign_defaults_are_there_for_others(lax: Database, settings: Settings) -> None:
    connection = await foreign_connection(settings)
    try:
        shown = [await connection.fetchval(f"SHOW {name}") for name in SHOWN]
    finally:
        await connection.close()

    assert shown == ["off", "serializable"]


async def test_accepts_starts_and_settles_are_synchronous_commits_whatever_the_default(lax: Database) -> None:
    shown: list[list[str]] = []

    def note(connection: sa.Connection) -> None:
        shown.append([connection.execute(sa.text(f"SHOW {name}")).scalar_one() for name in SHOWN])

    await lax.transact(note)  # the door of accept, start and settle
    async with lax.write() as connection:
        await connection.run_sync(note)

    assert shown == [["on", "read committed"]] * 2


async def test_a_deadlock_with_somebody_else_is_tried_again(settings: Settings, database: Database) -> None:
    first, second = sorted([new_job(), new_job()], key=lambda job: job.id)
    writer = Writer(database)
    await writer.accept([first, second])
    stranger = await foreign_connection(settings)
    try:
        await stranger.execute("SET deadlock_timeout = '30s'")  # the victim is ours
        await stranger.execute("BEGIN")
        await stranger.execute("SELECT 1 FROM background_tasks WHERE task_id = $1 FOR UPDATE", second.id)
        requests = [StartRequest(id=job.id, claim="mine", dead=None) for job in (first, second)]
        starting = asyncio.create_task(writer.start(requests, worker_id="w", now=second.due_at))
        await eventually(lambda: _is_waiting(settings))
        closing = asyncio.create_task(
            stranger.execute("UPDATE background_tasks SET stage = 'x' WHERE task_id = $1", first.id)
        )
        async with asyncio.timeout(20):
            await closing
            await stranger.execute("COMMIT")
            started = await starting
    finally:
        await stranger.close()
        await writer.close()

    assert [job.id for job in started] == [first.id, second.id]
    rows = await Reader(database).get_many([first.id, second.id])
    assert {(row.status, row.attempts) for row in rows.values()} == {(Status.RUNNING, 1)}


async def _is_waiting(settings: Settings) -> bool:
    connection = await foreign_connection(settings)
    try:
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(await connection.fetchval(blocked))
    finally:
        await connection.close()
