"""Every change of a row is a guarded compare-and-set: who wins, who loses, and what is left alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import new_id, utc_now
from app.database import Database, open_database
from app.errors import Unavailable
from app.history.reader import JobFilter, Reader
from app.history.receipts import Receipt, Repeated
from app.history.rows import Job, NewJob
from app.history.writer import Settlement, Started, StartRequest, Writer
from app.jobs.status import FINAL, Status
from app.settings import Settings
from tests.support.house import OOPS, WORKER, ending, new_job, whole_ms
from tests.support.waiting import eventually

NOW = whole_ms(utc_now())
LATER = NOW + timedelta(minutes=5)

SURROGATE = "\ud800"


@pytest.fixture
def reader(database: Database) -> Reader:
    return Reader(database)


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    yield writer
    await writer.close()


async def row(reader: Reader, job: NewJob | Started) -> Job:
    found = await reader.get(job.id)
    assert found is not None
    return found


async def outcomes(reader: Reader, job: NewJob | Started) -> list[tuple[int, str]]:
    return [(attempt.attempt, attempt.outcome) for attempt in await reader.attempts(await row(reader, job))]


async def start(writer: Writer, *jobs: NewJob, claim: str = "mine", dead: str | None = None) -> list[Started]:
    return await writer.start(
        [StartRequest(id=job.id, claim=claim, dead=dead) for job in jobs], worker_id=WORKER, now=NOW
    )


async def start_one(writer: Writer, claim: str = "mine", **changes: Any) -> Started:
    job = new_job(**changes)
    await writer.accept([job])
    (started,) = await start(writer, job, claim=claim)
    return started


async def end(writer: Writer, status: Status) -> NewJob:
    """Bring a job to ``status``."""
    job = new_job()
    await writer.accept([job])
    if status is Status.CANCELLED:
        await writer.cancel(job.id, include_running=True, now=NOW)
    elif status is not Status.PENDING:
        (started,) = await start(writer, job, claim="a-former-claim")
        if status is not Status.RUNNING:
            await writer.settle(ending(started, status))
    return job


# --- accept ------------------------------------------------------------------------------------


async def test_an_accepted_job_is_pending_with_all_its_facts(writer: Writer, reader: Reader) -> None:
    job = new_job(
        user_id="eve",
        params={"text": "Grüße 😀 \0", "deep": [1, 2.5, None]},
        scheduled_for=NOW,
        expires_at=LATER,
        retried_from="another",
        schedule="hourly",
        tick_at=NOW,
    )

    await writer.accept([job])

    stored = await row(reader, job)
    assert NewJob(**{name: getattr(stored, name) for name in NewJob.__dataclass_fields__}) == job
    assert (stored.status, stored.attempts, stored.claim, stored.error) == (Status.PENDING, 0, None, None)


async def test_an_accept_can_be_sent_again(writer: Writer, reader: Reader) -> None:
    job = new_job()
    await writer.accept([job])
    await start(writer, job)

    await writer.accept([replace(job, priority=9), new_job()])

    assert await reader.count(JobFilter()) == 2
    assert (await row(reader, job)).status is Status.RUNNING
    assert (await row(reader, job)).priority == 5


async def test_an_accept_is_all_or_nothing(writer: Writer, reader: Reader) -> None:
    jobs = [new_job() for _ in range(1500)]

    with pytest.raises(sa.exc.IntegrityError):
        await writer.accept([*jobs, new_job(priority=11)])

    assert await reader.count(JobFilter()) == 0


async def test_nothing_to_accept_is_no_error(writer: Writer, reader: Reader) -> None:
    await writer.accept([])

    assert await reader.count(JobFilter()) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": SURROGATE},
        {"params": {"text": SURROGATE}},
        {"priority": 11},
        {"max_retries": 2**70},
        {"schedule": "hourly", "tick_at": NOW},
    ],
    ids=["surrogate", "surrogate-inside", "refused-by-a-check", "beyond-64-bits", "a-tick-that-exists"],
)
async def test_a_bad_row_never_takes_its_neighbours_along(writer: Writer, reader: Reader, bad: dict[str, Any]) -> None:
    await writer.accept([new_job(schedule="hourly", tick_at=NOW)])
    groups = [[new_job()], [new_job(**bad)], [new_job(), new_job()]]

    answers = await asyncio.gather(*(writer.accept(group) for group in groups), return_exceptions=True)

    assert [answer is None for answer in answers] == [True, False, True]
    assert not isinstance(answers[1], Unavailable)
    assert await reader.count(JobFilter()) == 3


@pytest.mark.databases("postgresql")
async def test_a_character_that_postgresql_has_not_fails_its_own_row_alone(writer: Writer, reader: Reader) -> None:
    groups = [[new_job()], [new_job(user_id="nul\0")], [new_job()]]

    answers = await asyncio.gather(*(writer.accept(group) for group in groups), return_exceptions=True)

    assert [answer is None for answer in answers] == [True, False, True]
    assert await reader.count(JobFilter()) == 2


# --- ticks -------------------------------------------------------------------------------------


async def test_a_tick_is_accepted_once_however_many_try(writer: Writer, reader: Reader) -> None:
    ticks = [new_job(schedule="hourly", tick_at=NOW) for _ in range(8)]

    wins = await asyncio.gather(*(writer.accept_tick(tick) for tick in ticks))

    assert sorted(wins) == [False] * 7 + [True]
    assert await reader.count(JobFilter(origin="cron")) == 1


async def test_another_tick_and_another_schedule_are_accepted(writer: Writer) -> None:
    await writer.accept_tick(new_job(schedule="hourly", tick_at=NOW))

    assert await writer.accept_tick(new_job(schedule="hourly", tick_at=LATER))
    assert await writer.accept_tick(new_job(schedule="daily", tick_at=NOW))


# --- start -------------------------------------------------------------------------------------


async def test_a_pending_job_that_is_due_starts(writer: Writer, reader: Reader) -> None:
    job = new_job(params={"text": "hello"}, user_id="eve", expires_at=LATER)
    await writer.accept([job])

    (started,) = await start(writer, job)

    assert (started.id, started.attempts, started.claim, started.started_at) == (job.id, 1, "mine", NOW)
    assert (started.params, started.user_id, started.due_at) == ({"text": "hello"}, "eve", job.due_at)
    stored = await row(reader, job)
    assert (stored.status, stored.attempts, stored.claim, stored.worker_id) == (Status.RUNNING, 1, "mine", WORKER)
    assert (stored.interruptions, stored.started_at) == (0, NOW)


async def test_a_job_starts_at_the_very_moment_it_is_due(writer: Writer) -> None:
    assert (await start_one(writer, due_at=NOW)).attempts == 1


async def test_a_job_that_is_not_yet_due_does_not_start(writer: Writer, reader: Reader) -> None:
    job = new_job(due_at=NOW + timedelta(milliseconds=1))
    await writer.accept([job])

    assert await start(writer, job) == []
    assert (await row(reader, job)).status is Status.PENDING


async def test_a_job_that_has_expired_does_not_start(writer: Writer) -> None:
    job = new_job(expires_at=NOW)
    await writer.accept([job])

    assert await start(writer, job) == []


@pytest.mark.parametrize(
    ("claim", "dead"),
    [("mine", None), ("mine", "a-former-claim"), ("a-former-claim", None)],
    ids=["new", "dead", "own"],
)
async def test_an_ended_job_never_starts_again(writer: Writer, reader: Reader, claim: str, dead: str | None) -> None:
    ended = [await end(writer, status) for status in sorted(FINAL)]
    before = await reader.get_many([job.id for job in ended])

    assert await start(writer, *ended, claim=claim, dead=dead) == []
    assert await reader.get_many([job.id for job in ended]) == before


async def test_a_job_without_a_row_does_not_start(writer: Writer) -> None:
    assert await start(writer, new_job()) == []


async def test_a_job_that_runs_under_another_claim_does_not_start(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    assert await start(writer, job, dead="a-third-claim") == []
    assert (await row(reader, job)).claim == "a-former-claim"
    assert await outcomes(reader, job) == [(1, "running")]


async def test_a_job_whose_claim_is_dead_starts_again_as_interrupted(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    (started,) = await start(writer, job, dead="a-former-claim")

    assert (started.attempts, started.interruptions, started.claim) == (2, 1, "mine")
    assert (await row(reader, job)).claim == "mine"
    first, second = await reader.attempts(await row(reader, job))
    assert (first.attempt, first.outcome, first.worker_id, first.ended_at) == (1, "interrupted", WORKER, NOW)
    assert first.error is not None
    assert first.error.code == "worker_lost"
    assert (second.attempt, second.outcome) == (2, "running")


async def test_a_job_that_ended_under_a_claim_that_died_later_was_not_interrupted(
    writer: Writer, reader: Reader
) -> None:
    job = await end(writer, Status.COMPLETED)

    await start(writer, job, dead="a-former-claim")

    assert await outcomes(reader, job) == [(1, "completed")]


async def test_a_request_that_comes_again_writes_nothing(writer: Writer, reader: Reader) -> None:
    receipt = Receipt(owner="ann", key="k", fingerprint="f", status=202, location=None, body="{}", created_at=NOW)

    answers = [await writer.accept_once([new_job()], receipt) for _ in range(2)]

    assert answers == [None, Repeated()]
    assert await reader.count(JobFilter()) == 1


async def test_a_suspect_that_is_not_started_in_company_was_not_interrupted_yet(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)
    (second,) = await start(writer, job, claim="second", dead="a-former-claim")
    late = StartRequest(id=job.id, claim="third", dead="second")

    assert await writer.start([late], worker_id=WORKER, now=NOW, in_company=True) == []

    assert await writer.settle(ending(second, Status.COMPLETED))  # its worker was slow, and not dead
    assert await outcomes(reader, job) == [(1, "interrupted"), (2, "completed")]


async def test_a_start_whose_reply_was_lost_wins_again_without_a_new_attempt(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)
    (first,) = await start(writer, job, dead="a-former-claim")

    (second,) = await start(writer, job, dead="a-former-claim")

    assert second == first
    assert await outcomes(reader, job) == [(1, "interrupted"), (2, "running")]


async def test_a_start_forgets_the_progress_of_the_attempt_before(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, Status.PENDING, due_at=NOW, progress=50.0, progress_message="half", stage="one"))

    await start(writer, new_job(id=job.id), claim="next")

    stored = await row(reader, job)
    assert (stored.progress, stored.progress_message, stored.stage) == (0, None, None)


async def test_winners_come_in_the_order_asked(writer: Writer) -> None:
    jobs = [new_job() for _ in range(50)]
    await writer.accept(jobs)
    asked = [*jobs[::-2], new_job(), *jobs[::2]]

    started = await start(writer, *asked)

    known = {job.id for job in jobs}
    assert [job.id for job in started] == [job.id for job in asked if job.id in known]


# --- settle ------------------------------------------------------------------------------------


async def test_a_completed_job_bears_its_result(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    assert await writer.settle(ending(job, ended_at=LATER, progress=100.0, progress_message="done", stage="end"))

    stored = await row(reader, job)
    assert (stored.status, stored.result, stored.completed_at) == (Status.COMPLETED, {"text": "done"}, LATER)
    assert (stored.progress, stored.progress_message, stored.stage) == (100.0, "done", "end")
    assert (stored.failures, stored.releases, stored.error) == (0, 0, None)


async def test_a_job_that_completes_at_once_needs_no_attempt_row(
    writer: Writer, reader: Reader, database: Database
) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job))

    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM task_attempts"))).scalar_one() == 0
    assert await outcomes(reader, job) == [(1, "completed")]


async def test_a_failed_job_bears_its_error_and_so_does_its_attempt(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.FAILED))

    stored = await row(reader, job)
    assert (stored.status, stored.error, stored.failures) == (Status.FAILED, OOPS, 1)
    (attempt,) = await reader.attempts(stored)
    assert (attempt.outcome, attempt.error) == ("failed", replace(OOPS, is_retryable=False))


async def test_a_retry_waits_for_its_due_time(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.PENDING, due_at=LATER))

    stored = await row(reader, job)
    assert (stored.status, stored.due_at, stored.completed_at) == (Status.PENDING, LATER, None)
    assert (stored.failures, stored.releases, stored.attempts) == (1, 0, 1)
    assert await outcomes(reader, job) == [(1, "failed")]


async def test_a_released_job_burns_no_failure_and_keeps_its_due_time(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.PENDING, outcome="released", error=None, due_at=None))

    stored = await row(reader, job)
    assert (stored.status, stored.failures, stored.releases, stored.due_at) == (Status.PENDING, 0, 1, job.due_at)
    assert await outcomes(reader, job) == [(1, "released")]


async def test_attempts_are_told_from_the_first_to_the_last(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, Status.PENDING, due_at=NOW))
    (second,) = await start(writer, new_job(id=job.id), claim="second")
    (third,) = await start(writer, new_job(id=job.id), claim="third", dead="second")

    await writer.settle(ending(third))

    assert (second.attempts, third.attempts) == (2, 3)
    assert await outcomes(reader, job) == [(1, "failed"), (2, "interrupted"), (3, "completed")]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.PENDING])
async def test_only_the_attempt_and_the_claim_that_run_can_settle(
    writer: Writer, reader: Reader, status: Status
) -> None:
    job = await start_one(writer)
    before = await row(reader, job)
    foreign: list[dict[str, Any]] = [{"attempts": 2}, {"attempts": 0}, {"claim": "stale"}, {"id": new_id()}]

    wins = await asyncio.gather(*(writer.settle(ending(job, status)._replace(**changes)) for changes in foreign))

    assert wins == [False] * 4
    assert await row(reader, job) == before
    assert await outcomes(reader, job) == [(1, "running")]


async def test_a_stale_worker_cannot_settle_a_rescued_job(writer: Writer, reader: Reader) -> None:
    stale = await start_one(writer, claim="stale")
    (rescuer,) = await start(writer, new_job(id=stale.id), claim="rescuer", dead="stale")

    assert not await writer.settle(ending(stale, Status.FAILED))
    assert await writer.settle(ending(rescuer))
    assert await outcomes(reader, stale) == [(1, "interrupted"), (2, "completed")]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.PENDING])
async def test_a_settle_whose_reply_was_lost_counts_as_won_and_changes_nothing(
    writer: Writer, reader: Reader, status: Status
) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, status))
    before = await row(reader, job)

    assert await writer.settle(ending(job, status))
    assert await row(reader, job) == before


@pytest.mark.parametrize("foreign", [{"attempts": 2}, {"claim": "stale"}, {"status": Status.FAILED}], ids=repr)
async def test_of_an_ended_job_only_the_settle_that_ended_it_counts_as_won(
    writer: Writer, foreign: dict[str, Any]
) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job))

    assert not await writer.settle(ending(job)._replace(**foreign))


async def test_a_settle_after_a_cancel_loses(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.cancel(job.id, include_running=True, now=NOW)

    assert not await writer.settle(ending(job))
    assert (await row(reader, job)).status is Status.CANCELLED


async def test_each_settle_of_a_batch_gets_its_own_answer(writer: Writer) -> None:
    jobs = [await start_one(writer, claim=f"claim-{at}") for at in range(5)]
    settlements = [ending(job, claim="stale") if at % 2 else ending(job, Status.FAILED) for at, job in enumerate(jobs)]

    assert await asyncio.gather(*map(writer.settle, settlements)) == [True, False, True, False, True]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: ending(job, stage=SURROGATE),
        lambda job: ending(job, Status.FAILED, error=replace(OOPS, message=SURROGATE)),
        lambda job: ending(job, attempts=2**70),
    ],
    ids=["surrogate", "surrogate-in-an-error", "beyond-64-bits"],
)
async def test_a_bad_settlement_never_takes_its_neighbours_along(
    writer: Writer, reader: Reader, spoil: Callable[[Started], Settlement]
) -> None:
    jobs = [await start_one(writer, claim=f"claim-{at}") for at in range(4)]
    settlements = [spoil(job) if at == 2 else ending(job) for at, job in enumerate(jobs)]

    answers = await asyncio.gather(*map(writer.settle, settlements), return_exceptions=True)

    assert [answer is True for answer in answers] == [True, True, False, True]
    assert not isinstance(answers[2], Unavailable)
    assert [(await row(reader, job)).status for job in jobs].count(Status.COMPLETED) == 3


# --- cancel, end, reprioritise -----------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
async def test_a_live_job_can_be_cancelled(writer: Writer, reader: Reader, status: Status) -> None:
    job = await end(writer, status)

    cancelled = await writer.cancel(job.id, include_running=True, now=LATER)

    assert cancelled == await row(reader, job)
    assert (cancelled.status, cancelled.completed_at) == (Status.CANCELLED, LATER)


async def test_a_running_job_is_spared_if_so_asked(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    assert await writer.cancel(job.id, include_running=False, now=NOW) is None
    assert (await row(reader, job)).status is Status.RUNNING


async def test_a_waiting_job_is_ended_with_its_error(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.PENDING)

    ended = await writer.end_pending(job.id, OOPS, now=LATER)

    assert ended == await row(reader, job)
    assert (ended.status, ended.error, ended.completed_at) == (Status.FAILED, OOPS, LATER)


async def test_a_waiting_job_changes_its_priority(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.PENDING)

    changed = await writer.reprioritise(job.id, priority=9)

    assert changed == await row(reader, job)
    assert (changed.priority, changed.status) == (9, Status.PENDING)


CHANGES: list[Callable[[Writer, str], Any]] = [
    lambda writer, job_id: writer.cancel(job_id, include_running=True, now=LATER),
    lambda writer, job_id: writer.end_pending(job_id, OOPS, now=LATER),
    lambda writer, job_id: writer.reprioritise(job_id, priority=9),
]


@pytest.mark.parametrize("change", CHANGES, ids=["cancel", "end_pending", "reprioritise"])
async def test_nothing_changes_an_ended_job(
    writer: Writer, reader: Reader, change: Callable[[Writer, str], Any]
) -> None:
    ended = [await end(writer, status) for status in sorted(FINAL)]
    before = await reader.get_many([job.id for job in ended])

    assert [await change(writer, job.id) for job in ended] == [None, None, None]
    assert await reader.get_many([job.id for job in ended]) == before


@pytest.mark.parametrize("change", CHANGES[1:], ids=["end_pending", "reprioritise"])
async def test_what_is_for_waiting_jobs_spares_a_running_one(
    writer: Writer, reader: Reader, change: Callable[[Writer, str], Any]
) -> None:
    job = await end(writer, Status.RUNNING)
    before = await row(reader, job)

    assert await change(writer, job.id) is None
    assert await row(reader, job) == before


async def test_a_job_that_is_not_there_cannot_be_changed(writer: Writer) -> None:
    assert [await change(writer, new_id()) for change in CHANGES] == [None, None, None]


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


# --- checkpoints -------------------------------------------------------------------------------


async def test_a_checkpoint_after_a_cancel_is_not_stored(writer: Writer, reader: Reader) -> None:
    started = await start_one(writer)
    await writer.cancel(started.id, include_running=True, now=NOW)

    assert not await writer.checkpoint(started, {"at": 1}, now=NOW)
    assert await reader.checkpoint(started.id) is None


async def test_a_checkpoint_of_another_claim_is_not_stored(writer: Writer, reader: Reader) -> None:
    started = await start_one(writer)

    assert not await writer.checkpoint(started._replace(claim="another"), {"at": 1}, now=NOW)
    assert await reader.checkpoint(started.id) is None
