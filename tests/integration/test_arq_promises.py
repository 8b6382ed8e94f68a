"""What arq promises its users and we keep: a stock client and stock definitions work against our worker."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import sqlalchemy as sa
from arq.connections import ArqRedis
from arq.cron import cron
from arq.jobs import Job as ArqJob
from arq.jobs import JobStatus
from arq.worker import Retry
from arq.worker import Worker as ArqWorker

from app.clock import to_ms
from app.history.tables import jobs
from app.installation import Installation, open_installation
from app.jobs.schedules import Schedule
from app.jobs.status import Status
from app.queue import keys
from app.queue.wire import JobFailed
from app.settings import Settings
from tests.support.waiting import eventually
from tests.support.workplace import (
    Anything,
    Something,
    at_work,
    becomes,
    catalogue_of,
    give_back,
    make_worker,
    row,
    submit,
    trial_type,
)
from workers.context import Context
from workers.cron import Ticker, cron_jobs
from workers.worker import Worker

OVERRIDDEN_SHA256 = "5c9f63559e3771fd113ad43b79849a4925dafcb73bee20cb5360d2bdaa7c59b9"  # of arq 0.28.0

JOB = trial_type()
QUEUE = keys.queue("north", 5)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(JOB)) as installation:
        yield installation


async def enqueue(redis: ArqRedis, **options: Any) -> ArqJob:
    job = await redis.enqueue_job(JOB.kind, _queue_name=QUEUE, **options)
    assert job is not None
    return job


async def test_a_job_of_a_stock_client_gets_a_row_runs_and_returns_its_result(house: Installation) -> None:
    job = await enqueue(house.redis, value={"from": "arq"})

    async with at_work(make_worker(house, {JOB.kind: give_back})):
        result = await job.result(timeout=10, poll_delay=0.02)

    assert result == {"value": {"from": "arq"}}
    adopted = await row(house, job.job_id)
    assert (adopted.status, adopted.submitted_by, adopted.params) == (
        Status.COMPLETED,
        "arq",
        {"value": {"from": "arq"}},
    )


async def test_a_stock_client_is_told_why_its_job_cannot_run(house: Installation) -> None:
    job = await enqueue(house.redis, no_such_param=1)

    async with at_work(make_worker(house, {JOB.kind: give_back})):
        with pytest.raises(JobFailed, match="no_such_param"):
            await job.result(timeout=10, poll_delay=0.02)


async def test_a_deferred_job_waits_for_its_time(house: Installation) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.5)
    job = await enqueue(house.redis, value=1, _defer_until=due)

    async with at_work(make_worker(house, {JOB.kind: give_back})):
        await job.result(timeout=10, poll_delay=0.02)

    started_at = (await row(house, job.job_id)).started_at
    assert started_at is not None
    assert to_ms(started_at) >= to_ms(due)


async def test_the_same_job_id_is_enqueued_once(house: Installation) -> None:
    await enqueue(house.redis, _job_id="one-of-a-kind")

    again = await house.redis.enqueue_job(JOB.kind, _job_id="one-of-a-kind", _queue_name=QUEUE)

    assert again is None


async def test_an_id_that_had_its_job_is_refused_and_not_answered_with_the_old_result(house: Installation) -> None:
    async with at_work(make_worker(house, {JOB.kind: give_back})):
        first = await enqueue(house.redis, _job_id="refresh", value="first")
        await first.result(timeout=10, poll_delay=0.02)
        await age(house, "refresh")

        again = await enqueue(house.redis, _job_id="refresh", value="second")
        with pytest.raises(JobFailed, match="refresh was used before"):
            await again.result(timeout=10, poll_delay=0.02)

    assert (await row(house, "refresh")).result == {"value": "first"}


async def age(house: Installation, job_id: str) -> None:
    """Let the end of a job be so long ago that its result has faded."""
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(completed_at=long_ago))
    await house.redis.delete(keys.result(job_id))


async def test_status_and_info_follow_a_job_of_ours(house: Installation) -> None:
    go_on = asyncio.Event()

    async def wait(_ctx: Context, params: Anything) -> Something:
        await go_on.wait()
        return Something(value=params.value)

    job = ArqJob(await submit(house, JOB, 7), house.redis, QUEUE, house.redis.job_deserializer)
    seen = [await job.status()]
    waiting = await job.info()
    async with at_work(make_worker(house, {JOB.kind: wait})):
        await becomes(house, job.job_id, Status.RUNNING)
        seen.append(await job.status())
        go_on.set()
        await job.result(timeout=10, poll_delay=0.02)
    seen.append(await job.status())

    done = await job.result_info()
    assert seen == [JobStatus.queued, JobStatus.in_progress, JobStatus.complete]
    assert waiting is not None
    assert (waiting.function, waiting.kwargs) == (JOB.kind, {"value": 7})
    assert done is not None
    assert (done.success, done.result, done.job_try, done.queue_name) == (True, {"value": 7}, 1, QUEUE)


async def test_a_scheduled_job_of_ours_is_deferred_to_arq(house: Installation) -> None:
    job_id = await submit(house, JOB, scheduled_for=datetime.now(UTC) + timedelta(hours=1))

    status = await ArqJob(job_id, house.redis, QUEUE, house.redis.job_deserializer).status()

    assert status is JobStatus.deferred


async def test_abort_ends_a_running_job_cancelled(settings: Settings) -> None:
    hasty = settings.model_copy(update={"lease_s": 1.0})
    async with open_installation(hasty, catalogue_of(JOB)) as house:
        stopped = asyncio.Event()

        async def hang(_ctx: Context, _params: Anything) -> Something:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return Something()

        job = await enqueue(house.redis)
        async with at_work(make_worker(house, {JOB.kind: hang})):
            await eventually(lambda: _is_running(house, job.job_id))

            was_aborted = await job.abort(timeout=10, poll_delay=0.02)

        assert was_aborted
        assert stopped.is_set()
        assert (await row(house, job.job_id)).status is Status.CANCELLED


async def test_abort_of_a_waiting_job_keeps_it_from_ever_running(house: Installation) -> None:
    job_id = await submit(house, JOB, scheduled_for=datetime.now(UTC) + timedelta(hours=1))
    job = ArqJob(job_id, house.redis, QUEUE, house.redis.job_deserializer)

    async def never(_ctx: Context, _params: Anything) -> Something:
        raise AssertionError("it was aborted")

    async with at_work(make_worker(house, {JOB.kind: never})):
        was_aborted = await job.abort(timeout=10, poll_delay=0.02)

    assert was_aborted
    assert (await row(house, job_id)).status is Status.CANCELLED


async def test_a_job_that_is_claimed_in_the_middle_of_an_abort_is_aborted_all_the_same(house: Installation) -> None:
    """arq calls a scheduled job forward, and marks it after that."""
    job_id = await submit(house, JOB, scheduled_for=datetime.now(UTC) + timedelta(hours=1))
    await house.redis.zadd(QUEUE, {job_id: 1})
    claims = await house.queue.claim(["north"], want=1, token="too-early")
    assert await house.lifecycle.start(claims, worker_id="early") == []
    await house.redis.zadd(keys.ABORTS, {job_id: 1})

    async with at_work(make_worker(house, {JOB.kind: give_back})):
        await becomes(house, job_id, Status.CANCELLED)


async def test_a_job_that_was_called_forward_for_no_abort_goes_back_to_its_time(house: Installation) -> None:
    job_id = await submit(house, JOB, scheduled_for=datetime.now(UTC) + timedelta(hours=1))
    due_ms = await house.redis.zscore(QUEUE, job_id)
    await house.redis.zadd(QUEUE, {job_id: 1})

    async def is_put_back() -> bool:
        claims = await house.queue.claim(["north"], want=1, token="curious")
        assert await house.lifecycle.start(claims, worker_id="curious") == []
        return bool(await house.redis.zscore(QUEUE, job_id) == due_ms)

    await eventually(is_put_back)


async def _is_running(house: Installation, job_id: str) -> bool:
    job = await house.reader.get(job_id)
    return job is not None and job.status is Status.RUNNING


async def test_arqs_own_retry_is_obeyed_delay_and_all(house: Installation) -> None:
    async def retry_once(ctx: Context, _params: Anything) -> Something:
        if ctx.attempt == 1:
            raise Retry(defer=0.3)
        return Something(value=ctx.attempt)

    job = await enqueue(house.redis)
    async with at_work(make_worker(house, {JOB.kind: retry_once})):
        result = await job.result(timeout=10, poll_delay=0.02)

    first, second = await house.reader.attempts(await row(house, job.job_id))
    assert result == {"value": 2}
    assert first.ended_at is not None
    assert second.started_at is not None
    assert (second.started_at - first.ended_at).total_seconds() >= 0.29


async def test_a_failed_job_raises_for_the_stock_client(house: Installation) -> None:
    async def fail(_ctx: Context, _params: Anything) -> Something:
        raise ValueError("no such luck")

    job_id = await submit(house, JOB, max_retries=0)
    job = ArqJob(job_id, house.redis, QUEUE, house.redis.job_deserializer)
    async with at_work(make_worker(house, {JOB.kind: fail})):
        with pytest.raises(JobFailed, match="no such luck"):
            await job.result(timeout=10, poll_delay=0.02)


async def test_cron_definitions_submit_one_durable_job_a_tick_however_many_workers(house: Installation) -> None:
    schedule = Schedule(name="each-second", kind=JOB.kind)
    ticker = Ticker([schedule], house.catalogue, house.lifecycle)
    tick = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    definitions = [cron(_stock_coroutine, name="each-second", second=0, microsecond=0) for _ in range(3)]
    workers = [make_worker(house, {JOB.kind: give_back}, cron_jobs=[one], ticker=ticker) for one in definitions]
    for one in definitions:
        one.next_run = tick

    await asyncio.gather(*(worker.run_cron(tick + timedelta(milliseconds=10), 0) for worker in workers))

    page = await house.reader.live_page(before=None)
    assert len(page) == 1
    submitted = await row(house, page[0].id)
    assert (submitted.schedule, submitted.tick_at) == ("each-second", tick)
    assert {one.next_run for one in definitions} == {tick + timedelta(minutes=1)}


async def _stock_coroutine(ctx: dict[Any, Any]) -> None:
    """Stand for what a stock definition names; the schedule says which job type it is."""


async def test_a_window_that_was_missed_is_made_good_once(house: Installation) -> None:
    hourly = Schedule(name="hourly", kind=JOB.kind, minute=0)
    ticker = Ticker([hourly], house.catalogue, house.lifecycle)
    before = datetime(2026, 11, 22, 9, tzinfo=UTC)
    await ticker.tick("hourly", before)

    for _ in range(2):
        await ticker.catch_up(house.reader, before + timedelta(hours=5, minutes=30))

    assert await house.reader.last_ticks() == {"hourly": before + timedelta(hours=5)}
    assert len(await house.reader.live_page(before=None)) == 2


async def test_of_ticks_that_a_busy_worker_missed_only_the_latest_is_submitted(house: Installation) -> None:
    hourly = Schedule(name="hourly", kind=JOB.kind, minute=0)
    ticker, (definition,) = Ticker([hourly], house.catalogue, house.lifecycle), cron_jobs([hourly])
    definition.next_run = datetime(2026, 11, 22, 9, tzinfo=UTC)

    for _ in range(3):
        await ticker.run([definition], datetime(2026, 11, 22, 12, 30, tzinfo=UTC))

    assert await house.reader.last_ticks() == {"hourly": datetime(2026, 11, 22, 12, tzinfo=UTC)}
    assert len(await house.reader.live_page(before=None)) == 1


async def test_a_schedule_that_is_gone_is_not_caught_up(house: Installation) -> None:
    before = datetime(2026, 11, 22, 9, tzinfo=UTC)
    hourly = Schedule(name="hourly", kind=JOB.kind, minute=0)
    await Ticker([hourly], house.catalogue, house.lifecycle).tick("hourly", before)

    await Ticker([], house.catalogue, house.lifecycle).catch_up(house.reader, before + timedelta(hours=5))

    assert len(await house.reader.live_page(before=None)) == 1


async def test_a_schedule_may_ask_not_to_catch_up(house: Installation) -> None:
    hourly = Schedule(name="hourly", kind=JOB.kind, minute=0, catches_up=False)
    ticker = Ticker([hourly], house.catalogue, house.lifecycle)
    before = datetime(2026, 11, 22, 9, tzinfo=UTC)
    await ticker.tick("hourly", before)

    await ticker.catch_up(house.reader, before + timedelta(hours=5))

    assert await house.reader.last_ticks() == {"hourly": before}


def test_every_definition_of_the_schedule_is_arqs_own() -> None:
    schedule = Schedule(name="x", kind=JOB.kind, minute=frozenset({0, 30}))

    (definition,) = cron_jobs([schedule])

    assert (definition.name, definition.minute, definition.second, definition.microsecond) == ("x", {0, 30}, 0, 0)


def test_our_worker_is_arqs_and_what_it_overrides_is_as_it_was_read() -> None:
    overridden = ("__init__", "main", "close", "handle_sig", "handle_sig_wait_for_completion", "run_cron", "async_run")
    source = "".join(inspect.getsource(getattr(ArqWorker, name)) for name in overridden)

    assert issubclass(Worker, ArqWorker)
    assert sha256(source.encode()).hexdigest() == OVERRIDDEN_SHA256, "arq changed: read it again before the pin moves"
