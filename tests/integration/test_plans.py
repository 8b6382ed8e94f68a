"""How both databases find what lists, the sweep and the figures ask for: by an index, in its order."""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import utc_now
from app.database import Database
from app.history.api_keys import list_keys
from app.history.credentials import api_keys
from app.history.dead_letters import DeadLetterFilter, dead_letters
from app.history.deliveries import list_deliveries
from app.history.figures import Stretch, count_by_queue, count_submitters, long_running
from app.history.reader import COUNTED, JobFilter, LiveJob, Reader
from app.history.receipts import accept_once
from app.history.retention import count_ended, delete_ended, delete_receipts
from app.history.rows import NewJob
from app.history.tables import jobs, receipts
from app.history.webhooks import deliveries, list_webhooks, webhooks
from app.history.writer import Started, StartRequest, Writer
from app.jobs.status import Status
from tests.support.house import ending, new_job

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STRETCH = Stretch(since=NOON, until=NOON + timedelta(minutes=5))
LAST = LiveJob(id="x", created_at=NOON, queue="alpha", priority=5, due_at=NOON)

pytestmark = pytest.mark.databases("sqlite", "postgresql")

Question = Callable[[Database], Awaitable[object]]


def count(database: Database, **wanted: Any) -> Awaitable[int]:
    return Reader(database).count(JobFilter(**wanted), limit=COUNTED)


def letters(database: Database, **wanted: Any) -> Awaitable[object]:
    return dead_letters(database, DeadLetterFilter(jobs=JobFilter(origin="all", **wanted)), now=NOON, limit=10)


async def retire(database: Database) -> list[int]:
    return [count async for count in delete_ended(database, Status.COMPLETED, NOON)]


def page(index: str, **wanted: Any) -> tuple[str, Question]:
    return index, lambda database: Reader(database).page(JobFilter(**wanted))


def status(*statuses: Status) -> dict[str, Any]:
    return {"statuses": frozenset(statuses)}


TABLES = (jobs, receipts, webhooks, deliveries, api_keys)
BY_KEY, OF_WHAT_RUNS = "Index Cond: (task_id = ", "Index Cond: (status = 'running'"  # in PostgreSQL's words
RANGE = {"created_after": NOON, "created_before": NOON + timedelta(days=1)}

LISTS: dict[str, tuple[str, Question]] = {
    "all": page("age"),
    "oldest first": ("age", lambda database: Reader(database).page(JobFilter(), sort="created_at")),
    "pending": page("live", **status(Status.PENDING)),
    "running": page("live", **status(Status.RUNNING)),
    "completed": page("age", **status(Status.COMPLETED)),
    "failed": page("dead", **status(Status.FAILED)),
    "cancelled": page("dead", **status(Status.CANCELLED)),
    "an owner's": page("owner", owner="ada"),
    "of a queue": page("queue", queue="alpha"),
    "of a type": page("type", task_type="system"),
    "of a time": page("age", **RANGE),
    "an owner's of a time": page("owner", owner="ada", **RANGE),
}

POINTED: dict[str, tuple[str, Question]] = {
    "an owner's pending": page("live", owner="ada", **status(Status.PENDING)),
    "an owner's failed": page("dead", owner="ada", **status(Status.FAILED)),
    "of a queue, pending": page("live", queue="alpha", **status(Status.PENDING)),
    "of a type, failed": page("dead", task_type="system", **status(Status.FAILED)),
    "counted pending": ("live", lambda database: count(database, **status(Status.PENDING))),
    "counted failed": ("dead", lambda database: count(database, **status(Status.FAILED))),
    "counted of a queue": ("queue", lambda database: count(database, queue="alpha")),
    "dead letters": ("dead", letters),
    "an owner's dead letters": ("dead", lambda database: letters(database, owner="ada")),
    "the sweep's page": ("live", lambda database: Reader(database).live_page(before=LAST)),
    "what runs for long": ("live", lambda database: long_running(database, NOON, longer_than=timedelta(hours=1))),
    "what ended lately": ("ended", lambda database: count_by_queue(database, STRETCH)),
    "who submitted lately": ("age", lambda database: count_submitters(database, STRETCH)),
    "what retention deletes": ("ended", retire),
    "what retention counts": ("ended", lambda database: count_ended(database, Status.COMPLETED, NOON)),
    "last ticks": ("tick", lambda database: Reader(database).last_ticks()),
    "an owner's quota": ("waiting", lambda database: Reader(database).count_waiting(["ada"], at_most=3)),
    "a unique key": ("unique_key", lambda database: accept_once(database, [replace(new_job(), unique_key="k")], None)),
    "a replay": ("retry", lambda database: accept_once(database, [new_job()], None, letter="x")),
}

# Of the smaller tables, by the name of the index.
BESIDE: dict[str, Question] = {
    "ix_idempotency_keys_created_at": lambda database: delete_receipts(database, NOON),
    "ix_webhook_deliveries_webhook_id": lambda database: list_deliveries(database, "w", after=None, limit=10),
    "ix_webhooks_owner": lambda database: list_webhooks(database, owner="ada"),
    "ix_api_keys_user_id": lambda database: list_keys(database, user_id="ada"),
}


@pytest.fixture
async def database(database: Database) -> Database:
    """Offer tables of no size on PostgreSQL, too: what other tests left behind in an index makes it dearer."""
    if database.dialect == "postgresql":
        async with database.write() as connection:
            await connection.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in TABLES)}")
    return database


async def test_every_common_list_is_read_in_the_order_of_an_index(database: Database) -> None:
    plans = {name: await plans_of(database, question) for name, (_, question) in LISTS.items()}

    assert {name: index for name, (index, _) in LISTS.items() if f"_{index}" not in plans[name][0]} == {}
    assert {name: plan for name, plan in plans.items() if is_sorted(plan[0])} == {}


async def test_every_other_question_is_read_from_its_index(database: Database) -> None:
    plans = {name: await plans_of(database, question) for name, (_, question) in POINTED.items()}

    scans = {name: plan for name, plan in plans.items() if any(map(is_scan, plan))}
    assert scans == {}
    if database.dialect == "sqlite":  # without statistics PostgreSQL chooses among equals as it likes
        named = {name: index for name, (index, _) in POINTED.items()}
        assert {
            name: index for name, index in named.items() if not any(f"_{index}" in plan for plan in plans[name])
        } == {}


async def test_every_index_is_there_for_a_question_and_every_question_finds_its_index(database: Database) -> None:
    asked = [question for _, question in (*LISTS.values(), *POINTED.values())]
    plans = [plan for question in (*asked, *BESIDE.values()) for plan in await plans_of(database, question, TABLES)]

    used = set(re.findall(r"\b(?:ix|uq)_\w+", "\n".join(plans)))
    names = {f"_{index}" for index, _ in (*LISTS.values(), *POINTED.values())}
    assert {name for name in names if not any(index.endswith(name) for index in used)} == set()
    used |= {"ix_webhooks_owner"} if database.dialect == "postgresql" else set()  # that few rows it reads by their key
    assert BESIDE.keys() - used == set()
    assert {str(index.name) for table in TABLES for index in table.indexes} - used == set()


@pytest.mark.databases("postgresql")  # SQLite's are in test_writer_databases.py
async def test_start_reads_by_key_and_settle_no_more_than_what_runs_on_postgresql(database: Database) -> None:
    writer, waiting = Writer(database), [new_job() for _ in range(12_000)]
    await writer.accept(waiting)
    started = await start(writer, waiting[:400])
    async with database.standalone() as connection:
        await connection.execute(sa.text("ANALYZE background_tasks"))

    starts = await plans_of(database, lambda _: start(writer, waiting[400:600]))
    ends = await plans_of(database, lambda _: writer.settle_all([ending(job) for job in started[:200]]))

    assert starts
    assert ends
    assert [plan for plan in starts if BY_KEY not in plan or is_scan(plan)] == []
    assert [plan for plan in ends if not (BY_KEY in plan or OF_WHAT_RUNS in plan) or is_scan(plan)] == []


def start(writer: Writer, waiting: list[NewJob]) -> Awaitable[list[Started]]:
    requests = [StartRequest(id=job.id, claim="mine", dead=None) for job in waiting]
    return writer.start(requests, worker_id="w", now=utc_now())


def is_sorted(plan: str) -> bool:
    return "TEMP B-TREE" in plan or "Sort" in plan or is_scan(plan)


def is_scan(plan: str) -> bool:
    """Tell whether a plan reads the whole table, or a whole index of it in no useful order."""
    lines = plan.splitlines()
    return "Seq Scan on background_tasks" in plan or any(line == "SCAN background_tasks" for line in lines)


async def plans_of(database: Database, question: Question, tables: Iterable[sa.Table] = (jobs,)) -> list[str]:
    """Return how the database answers each statement of a question about jobs, or other tables, but for new rows."""
    asked: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        asked.append((statement, values))

    engines = list(engines_of(database))
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", keep)
    await question(database)
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", keep)
    told = [(text, values) for text, values in asked if any(f" {table.name}" in text for table in tables)]
    told = [(text, values) for text, values in told if not re.match(r"INSERT INTO \w+ \(.*\) VALUES", text, re.DOTALL)]
    return [await explained(database, text, values) for text, values in told]


def engines_of(database: Database) -> Iterable[sa.Engine]:
    yield database.reads.sync_engine
    if database._writes is not database.reads:
        yield database._writes.sync_engine
    if database._hot is not None:
        yield database._hot._engine


async def explained(database: Database, statement: str, values: Any) -> str:
    async with database.read() as connection:
        if database.dialect == "sqlite":
            steps = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            return "\n".join(step.detail for step in steps)
        for unwanted in ("seqscan", "sort", "bitmapscan"):  # an empty table is scanned if that is possible at all
            await connection.exec_driver_sql(f"SET LOCAL enable_{unwanted} = off")
        return "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", values))
