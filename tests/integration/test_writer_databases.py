"""Under the writers: each row is won once and locked in one order, commits are synced, rows are found by their key."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from app.database import Database, open_database
from app.errors import Unavailable
from app.history.reader import Reader
from app.history.writer import Writer
from app.jobs.status import Status
from app.settings import Settings
from tests.support.house import ending, new_job
from tests.support.waiting import eventually
from tests.support.writing import row, start, start_one


@pytest.fixture
def reader(database: Database) -> Reader:
    return Reader(database)


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    yield writer
    await writer.close()


# --- several writers ---------------------------------------------------------------------------


@pytest.fixture
async def other(database: Database, settings: Settings) -> AsyncIterator[Writer]:
    """A writer of another process, as far as the database can tell."""
    database = open_database(settings)
    writer = Writer(database)
    yield writer
    await writer.close()
    await database.close()


async def test_of_two_writers_that_start_the_same_jobs_each_is_won_once(writer: Writer, other: Writer) -> None:
    jobs = [new_job() for _ in range(200)]
    await writer.accept(jobs)

    won = await asyncio.gather(start(writer, *jobs, claim="one"), start(other, *jobs[::-1], claim="two"))

    assert sorted(job.id for started in won for job in started) == sorted(job.id for job in jobs)


async def test_two_writers_with_the_same_rows_in_opposite_orders_never_deadlock(
    writer: Writer, other: Writer, reader: Reader
) -> None:
    jobs = [new_job() for _ in range(150)]
    await writer.accept(jobs)

    for turn in range(8):
        tokens = {"claim": f"claim-{turn}", "dead": f"claim-{turn - 1}"}
        ours, theirs = await asyncio.gather(start(writer, *jobs, **tokens), start(other, *jobs[::-1], **tokens))
        assert {job.id for job in ours} == {job.id for job in theirs}
        renewals = [ending(job, Status.RUNNING, outcome="released", error=None, result=None) for job in ours]
        await asyncio.gather(writer.settle_all(renewals), other.settle_all(renewals[::-1]))

    assert {(await row(reader, job)).attempts for job in jobs[::50]} == {8}


_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_LOCK = sa.text("SELECT 1 FROM background_tasks WHERE task_id = :id FOR UPDATE SKIP LOCKED")


def look_rows_up(database: Database) -> None:
    """Let PostgreSQL join by looking up row after row of a batch: it takes them in the order that they are named in."""
    for join in ("hashjoin", "mergejoin", "seqscan"):
        sa.event.listen(
            database.reads.sync_engine,
            "begin",
            lambda connection, join=join: connection.exec_driver_sql(f"SET LOCAL enable_{join} = off"),
        )


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("what", ["start", "settle"])
async def test_rows_are_locked_in_one_order_however_a_batch_names_them(
    what: str, database: Database, writer: Writer
) -> None:
    many = sorted([new_job() for _ in range(1000)], key=lambda job: job.id)
    first, last = many[0], many[-1]
    await writer.accept(many)
    started = {job.id: job for job in await start(writer, *many)} if what == "settle" else {}
    async with database.write() as connection:
        await connection.execute(sa.text("ANALYZE background_tasks"))
    look_rows_up(database)

    async def change() -> None:
        if what == "start":
            await start(writer, last, first)
        else:
            await writer.settle_all([ending(started[job.id]) for job in (last, first)])

    async def is_blocked() -> bool:
        async with database.read() as onlooker:
            return bool((await onlooker.execute(sa.text(_BLOCKED))).scalar_one())

    async with database.write() as connection:
        assert (await connection.execute(_LOCK, {"id": last.id})).all()
        changing = asyncio.create_task(change())
        await eventually(is_blocked)
        async with database.read() as onlooker:
            assert not (await onlooker.execute(_LOCK, {"id": first.id})).all()
    await changing


async def test_two_writers_that_settle_the_same_attempt_agree(writer: Writer, other: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    wins = await asyncio.gather(writer.settle(ending(job)), other.settle(ending(job, Status.FAILED)))

    assert sorted(wins) == [False, True]
    assert (await row(reader, job)).status is (Status.COMPLETED if wins[0] else Status.FAILED)


# --- the databases themselves ------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_sqlite_writes_ahead_and_syncs_every_commit(database: Database) -> None:
    pragmas = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")

    def read(connection: sa.Connection) -> list[Any]:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas]

    async with database.write() as connection:
        values = await connection.run_sync(read)

    assert values == await database.transact(read) == ["wal", 2, 10000, 1]


@pytest.mark.databases("postgresql")
async def test_a_connection_that_breaks_is_an_outage_and_nobodys_fault(writer: Writer, database: Database) -> None:
    async def write_until_the_connection_breaks() -> None:
        async with database.write() as connection:
            await connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        await write_until_the_connection_breaks()
    await writer.accept([new_job()])


@pytest.mark.databases("sqlite")
async def test_start_and_settle_search_rows_by_their_key(writer: Writer, database: Database) -> None:
    sql = writer._sql
    statements = (sql.start, sql.started, sql.interrupted, sql.note, sql.complete, sql.settle, sql.settled)
    plans = [await explain(database, statement.text) for statement in statements]

    assert [plan for plan in plans if not any("USING PRIMARY KEY (task_id=?)" in step for step in plan)] == []
    assert [step for plan in plans for step in plan if "SCAN background_tasks" in step] == []


async def explain(database: Database, statement: str) -> list[str]:
    values = {"rows": "[]", "now": "", "worker": "", "alone_from": 0, "alone_until": 0}
    used = {name: value for name, value in values.items() if f":{name}" in statement}
    async with database.read() as connection:
        steps = await connection.execute(sa.text(f"EXPLAIN QUERY PLAN {statement}"), used)
        return [step.detail for step in steps]
