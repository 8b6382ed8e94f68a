"""PostgreSQL as the service needs it, whatever the server's own defaults are; what it takes back is tried again.

And a server that refuses to write, or is cut off in the middle of a commit, which is nobody's fault.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import sqlalchemy as sa

from app.database import Database, open_database
from app.errors import Unavailable
from app.history.reader import JobFilter, Reader
from app.history.writer import StartRequest, Writer
from app.jobs.status import Status
from app.settings import Settings
from tests.chaos.proxy import Mood, open_proxy
from tests.support.house import ending, new_job
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


@asynccontextmanager
async def read_only(settings: Settings, postgres: PostgresUnderTest, database: Database) -> AsyncIterator[None]:
    """Refuse every change of the database during the block, as a demoted server does, or one whose disk is full."""
    name = sa.make_url(settings.sql_url).database
    await asyncio.to_thread(postgres._execute, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await database.reads.dispose()  # what is connected already goes on as it began
    try:
        yield
    finally:
        await asyncio.to_thread(postgres._execute, f'ALTER DATABASE "{name}" RESET ALL')


async def test_a_database_that_refuses_changes_is_an_outage_and_left_for_one_that_takes_them(
    settings: Settings, postgres: PostgresUnderTest, database: Database
) -> None:
    job, writer = new_job(), Writer(database)
    await writer.accept([job])
    request = StartRequest(id=job.id, claim="mine", dead=None)
    (started,) = await writer.start([request], worker_id="w", now=job.due_at)

    async with read_only(settings, postgres, database):
        with pytest.raises(Unavailable):
            await writer.accept([new_job()])
        (refused,) = await writer.settle_all([ending(started)])

    assert isinstance(refused, Unavailable)  # and not a settlement that no row can hold
    assert await writer.settle(ending(started))  # by another connection than the one that refused
    await writer.close()


@pytest.mark.parametrize("state", ["53100", "53200", "55P03", "57014", "58030"])
async def test_what_the_server_has_no_means_for_is_no_statements_fault(database: Database, state: str) -> None:
    def fail(connection: sa.Connection) -> None:
        connection.execute(sa.text(f"DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{state}'; END $$"))

    with pytest.raises(Unavailable):
        await database.transact(fail)


async def test_a_change_that_deadlocks_again_and_again_is_an_outage(database: Database) -> None:
    runs = []

    def fail(connection: sa.Connection) -> None:
        runs.append(connection)
        connection.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$"))

    with pytest.raises(Unavailable):
        await database.transact(fail)
    assert len(runs) == 5


async def test_accepts_and_starts_whose_commit_is_cut_off_before_its_answer_are_sent_again(
    settings: Settings, database: Database
) -> None:
    url = sa.make_url(settings.sql_url)
    async with open_proxy(url.port or 5432, url.host or "127.0.0.1") as proxy:
        there = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        cut_off = open_database(settings.model_copy(update={"database_url": there}))
        writer, job = Writer(cut_off), new_job()
        committed: list[str] = []

        def cut(_connection: sa.Connection) -> None:
            if len(committed) in {0, 2}:
                proxy.become(Mood.RESET)
            committed.append("now")

        sa.event.listen(cut_off._writes.sync_engine, "commit", cut)
        try:
            await writer.accept([job])
            started = await writer.start([StartRequest(job.id, "mine", None)], worker_id="w", now=job.due_at)
        finally:
            await writer.close()
            await cut_off.close()

    assert len(committed) == 4
    assert [(one.id, one.attempts, one.interruptions) for one in started] == [(job.id, 1, 0)]
    assert await Reader(database).count(JobFilter()) == 1


async def test_what_must_not_run_twice_is_not_sent_again(settings: Settings, database: Database) -> None:
    runs = []

    def change(connection: sa.Connection) -> None:
        runs.append(connection)
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        await database.transact(change)
    assert len(runs) == 1


async def _is_waiting(settings: Settings) -> bool:
    connection = await foreign_connection(settings)
    try:
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(await connection.fetchval(blocked))
    finally:
        await connection.close()
