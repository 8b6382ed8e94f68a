"""Lists, counts and the sweep's pages, on both databases: everything once, nothing twice."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import new_id, utc_now
from app.database import Database
from app.errors import BadRequest
from app.history.reader import JobFilter, LiveJob, Reader, Sort
from app.history.rows import Job, NewJob
from app.history.writer import StartRequest, Writer
from app.jobs.status import Status
from tests.support.house import OOPS, WORKER, count, ending, new_job, note, whole_ms

NOW = whole_ms(utc_now())
EVERYTHING = JobFilter(origin="all")

SORTS: dict[Sort, Callable[[NewJob], Any]] = {
    "created_at": lambda job: (job.created_at, job.id),
    "-created_at": lambda job: (job.created_at, job.id),
    "priority": lambda job: (job.priority, job.id),
    "-priority": lambda job: (job.priority, job.id),
}


@pytest.fixture
def reader(database: Database) -> Reader:
    return Reader(database)


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database)


def mixed_jobs(number: int) -> list[NewJob]:
    """Jobs of few different ages and priorities, so that ties abound."""
    dice = random.Random(7)
    return [
        new_job(created_at=NOW - timedelta(seconds=dice.randrange(4)), priority=dice.randint(1, 3))
        for _ in range(number)
    ]


async def run(writer: Writer, job: NewJob, status: Status) -> None:
    """Start a waiting job and settle it as ``status``."""
    request = StartRequest(id=job.id, claim="claim", dead=None)
    (started,) = await writer.start([request], worker_id=WORKER, now=NOW)
    if status is not Status.RUNNING:
        await writer.settle(ending(started, status, due_at=NOW if status is Status.PENDING else None))


def ids(jobs: list[Job] | list[NewJob]) -> list[str]:
    return [job.id for job in jobs]


# --- single jobs -------------------------------------------------------------------------------


async def test_of_many_ids_those_that_exist_are_found(reader: Reader, writer: Writer) -> None:
    jobs = [new_job(), new_job()]
    await writer.accept(jobs)

    found = await reader.get_many([*ids(jobs), new_id()])

    assert set(found) == set(ids(jobs))


async def test_an_unknown_id_is_none(reader: Reader) -> None:
    assert await reader.get(new_id()) is None


# --- lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", SORTS)
async def test_walking_by_pages_of_any_size_gives_the_whole_list_once(
    reader: Reader, writer: Writer, sort: Sort
) -> None:
    jobs = mixed_jobs(30)
    await writer.accept(jobs)

    walks = [await walk(reader, sort, limit) for limit in (1, 7, 30)]

    assert walks == [ids(sorted(jobs, key=SORTS[sort], reverse=sort.startswith("-")))] * 3


async def walk(reader: Reader, sort: Sort, limit: int) -> list[str]:
    page = await reader.page(EVERYTHING, sort=sort, limit=limit)
    walked = ids(page.jobs)
    while page.next_cursor is not None:
        page = await reader.page(EVERYTHING, sort=sort, limit=limit, cursor=page.next_cursor)
        walked += ids(page.jobs)
    return walked


async def test_a_list_can_also_be_read_by_offset(reader: Reader, writer: Writer) -> None:
    await writer.accept(mixed_jobs(10))
    whole = await reader.page(EVERYTHING)

    page = await reader.page(EVERYTHING, limit=3, offset=4)

    assert page.jobs == whole.jobs[4:7]


async def test_jobs_that_arrive_while_a_list_is_walked_neither_repeat_nor_hide_others(
    reader: Reader, writer: Writer
) -> None:
    jobs = [new_job(created_at=NOW - timedelta(seconds=at)) for at in range(4)]
    await writer.accept(jobs)
    first = await reader.page(EVERYTHING, limit=2)

    await writer.accept([new_job(created_at=NOW + timedelta(seconds=1))])

    second = await reader.page(EVERYTHING, limit=2, cursor=first.next_cursor)
    assert ids(first.jobs) + ids(second.jobs) == ids(jobs)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("sort", ["created_at", "priority"])
@pytest.mark.parametrize("cursor", ["nonsense", "W10", "W251bGwsMl0", "bnVsbA", "WzFlOTksMV0", "ä"])
async def test_a_cursor_that_no_list_answered_is_refused(reader: Reader, sort: Sort, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        await reader.page(EVERYTHING, sort=sort, cursor=cursor)


# --- filters -----------------------------------------------------------------------------------

PLAIN = new_job(created_at=NOW - timedelta(days=1), user_id="eve")
VARIED = {
    "owner": replace(PLAIN, id=new_id(), submitted_by="bob"),
    "task_type": replace(PLAIN, id=new_id(), task_type="maintenance"),
    "kind": replace(PLAIN, id=new_id(), kind=count.kind),
    "family": replace(PLAIN, id=new_id(), kind="tester.note"),
    "queue": replace(PLAIN, id=new_id(), queue="beta"),
    "user_id": replace(PLAIN, id=new_id(), user_id="mallory"),
    "priority": replace(PLAIN, id=new_id(), priority=9),
    "age": replace(PLAIN, id=new_id(), created_at=NOW),
    "cron": replace(PLAIN, id=new_id(), schedule="hourly", tick_at=NOW),
}
ALL = {"plain", *VARIED}


CASES: list[tuple[JobFilter, set[str]]] = [
    (JobFilter(), ALL - {"cron"}),
    (JobFilter(origin="all"), ALL),
    (JobFilter(origin="cron"), {"cron"}),
    (JobFilter(owner="bob"), {"owner"}),
    (JobFilter(task_type="maintenance"), {"task_type"}),
    (JobFilter(kind=count.kind), {"kind"}),
    (JobFilter(family="tester"), {"family"}),
    (JobFilter(family="test", origin="all"), ALL - {"family"}),
    (JobFilter(family="%"), set()),
    (JobFilter(queue="beta"), {"queue"}),
    (JobFilter(user_id="mallory"), {"user_id"}),
    (JobFilter(priority=9), {"priority"}),
    (JobFilter(created_after=NOW), {"age"}),
    (JobFilter(created_before=NOW), ALL - {"age", "cron"}),
    (JobFilter(q="MALL"), {"user_id"}),
    (JobFilter(q="est.cou"), {"kind"}),
    (JobFilter(q=VARIED["queue"].id[5:]), {"queue"}),
    (JobFilter(q="%"), set()),
    (JobFilter(q="_"), set()),
    (JobFilter(statuses=frozenset({Status.PENDING})), ALL - {"cron"}),
    (JobFilter(statuses=frozenset({Status.RUNNING, Status.FAILED})), set()),
    (JobFilter(statuses=frozenset()), set()),
    (JobFilter(owner="ada", user_id="mallory", kind=note.kind), {"user_id"}),
    (JobFilter(owner="bob", priority=9), set()),
    (JobFilter(was_tried=False), ALL - {"cron"}),
    (JobFilter(was_tried=True), set()),
]


async def test_a_filter_finds_and_counts_all_and_only_its_jobs(reader: Reader, writer: Writer) -> None:
    names = {job.id: name for name, job in {"plain": PLAIN, **VARIED}.items()}
    await writer.accept([PLAIN, *VARIED.values()])

    pages = [await reader.page(wanted) for wanted, _ in CASES]
    counts = [await reader.count(wanted) for wanted, _ in CASES]

    found = [{names[job.id] for job in page.jobs} for page in pages]
    assert [(wanted, names) for (wanted, _), names in zip(CASES, found, strict=True)] == CASES
    assert counts == [len(expected) for _, expected in CASES]


async def test_statuses_and_error_messages_are_searched(reader: Reader, writer: Writer) -> None:
    jobs = {status: new_job() for status in (Status.PENDING, Status.RUNNING, Status.FAILED, Status.COMPLETED)}
    await writer.accept(list(jobs.values()))
    for status, job in jobs.items():
        if status is not Status.PENDING:
            await run(writer, job, status)

    assert await reader.count(JobFilter(statuses=frozenset({Status.FAILED, Status.COMPLETED}))) == 2
    assert ids((await reader.page(JobFilter(q=OOPS.message.upper()))).jobs) == [jobs[Status.FAILED].id]


# --- attempts ----------------------------------------------------------------------------------


async def test_a_job_that_never_ran_has_no_attempts(reader: Reader, writer: Writer) -> None:
    job = new_job()
    await writer.accept([job])

    assert await attempts_of(reader, job) == []


async def test_attempts_are_told_in_order_and_the_latest_by_the_row(reader: Reader, writer: Writer) -> None:
    job = new_job()
    await writer.accept([job])
    for _ in range(11):
        await run(writer, job, Status.PENDING)

    await run(writer, job, Status.RUNNING)

    assert await attempts_of(reader, job) == [*((number, "failed") for number in range(1, 12)), (12, "running")]


async def test_an_attempt_that_ended_a_job_is_not_told_twice(reader: Reader, writer: Writer) -> None:
    job = new_job()
    await writer.accept([job])

    await run(writer, job, Status.FAILED)

    assert await attempts_of(reader, job) == [(1, "failed")]


async def test_attempts_of_other_jobs_are_not_told(reader: Reader, writer: Writer) -> None:
    mine, other = new_job(), new_job()
    await writer.accept([mine, other])

    await run(writer, other, Status.FAILED)

    assert await attempts_of(reader, mine) == []


async def attempts_of(reader: Reader, job: NewJob) -> list[tuple[int, str]]:
    stored = await reader.get(job.id)
    assert stored is not None
    return [(attempt.attempt, attempt.outcome) for attempt in await reader.attempts(stored)]


# --- for the workers ---------------------------------------------------------------------------


async def test_a_walk_over_live_jobs_finds_all_and_only_those(reader: Reader, writer: Writer) -> None:
    jobs = [new_job(priority=1 + at % 10) for at in range(30)]
    await writer.accept(jobs)
    for at, status in enumerate([Status.COMPLETED, Status.FAILED, Status.RUNNING, Status.PENDING]):
        await run(writer, jobs[5 * at], status)
    await writer.cancel(jobs[29].id, include_running=True, now=NOW)

    walked: list[LiveJob] = []
    while page := await reader.live_page(before=walked[-1] if walked else None, limit=4):
        walked += page

    ended = {jobs[0].id, jobs[5].id, jobs[29].id}
    youngest_first = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
    assert [job.id for job in walked] == [job_id for job_id in ids(youngest_first) if job_id not in ended]


async def test_a_live_job_is_told_with_its_place_in_redis(reader: Reader, writer: Writer) -> None:
    job = new_job(queue="beta", priority=3)
    await writer.accept([job])

    assert await reader.live_page(before=None) == [
        LiveJob(id=job.id, created_at=job.created_at, queue="beta", priority=3, due_at=job.due_at)
    ]


async def test_a_worker_learns_which_jobs_are_still_its_own(reader: Reader, writer: Writer) -> None:
    mine, waiting, ended = new_job(), new_job(), new_job()
    await writer.accept([mine, waiting, ended])
    await run(writer, mine, Status.RUNNING)
    await run(writer, ended, Status.COMPLETED)
    claims = dict.fromkeys(ids([mine, waiting, ended]), "claim")

    assert await reader.running_under(claims) == {mine.id}
    assert await reader.running_under(claims | {mine.id: "another"}) == set()


async def test_of_each_schedule_the_last_tick_is_known(reader: Reader, writer: Writer) -> None:
    for name, ago_s in (("hourly", 10), ("hourly", 5), ("hourly", 20), ("daily", 30)):
        await writer.accept_tick(new_job(schedule=name, tick_at=NOW - timedelta(seconds=ago_s)))
    await writer.accept([new_job()])

    ticks = await reader.last_ticks()

    assert ticks == {"hourly": NOW - timedelta(seconds=5), "daily": NOW - timedelta(seconds=30)}


# --- plans -------------------------------------------------------------------------------------


async def plan_of(database: Database, question: Callable[[], Any]) -> list[str]:
    """Return how SQLite answers a question of the reader's."""
    asked: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        asked.append((statement, values))

    sa.event.listen(database.reads.sync_engine, "before_cursor_execute", keep)
    await question()
    sa.event.remove(database.reads.sync_engine, "before_cursor_execute", keep)
    statement, values = next(one for one in asked if one[0].startswith("SELECT"))
    async with database.read() as connection:
        return [step.detail for step in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
