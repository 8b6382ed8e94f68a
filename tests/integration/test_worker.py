"""The worker on a real Redis and a real database, with job types that the tests make up."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Discard, Retry
from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs.contract import Limits, RetryPolicy
from app.jobs.status import Status
from app.live.events import follow
from app.live.workers import alive_workers
from app.queue import keys
from app.settings import Settings
from tests.support.waiting import eventually
from tests.support.workplace import (
    Anything,
    Something,
    at_work,
    becomes,
    catalogue_of,
    drain,
    give_back,
    make_worker,
    row,
    submit,
    trial_type,
)
from workers.context import Context

JOB = trial_type()
SOUTH = trial_type("other", queue="south")
SHORT = trial_type("short", limits=Limits(hard_s=2.0, soft_s=0.3), retry=RetryPolicy(max_retries=0))

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(JOB, SOUTH, SHORT)) as installation:
        yield installation


@pytest.mark.databases("sqlite")
async def test_what_a_job_was_given_is_gone_with_it_and_not_left_to_the_garbage_collector(house: Installation) -> None:
    given: list[weakref.ref[Context]] = []

    async def note(ctx: Context, _params: Anything) -> Something:
        given.append(weakref.ref(ctx))
        await ctx.progress(50, "half")
        return Something()

    await submit(house, JOB)
    gc.disable()
    try:
        await drain(make_worker(house, {JOB.kind: note}, burst=True))
        left = [context() for context in given]
    finally:
        gc.enable()

    assert left == [None]


async def test_jobs_start_by_priority_then_in_the_order_they_came_across_queues(house: Installation) -> None:
    chance, started, submitted = random.Random(7), [], []
    for number in range(200):
        priority, job_type = chance.randint(1, 10), chance.choice([JOB, SOUTH])
        submitted.append((priority, number))
        await submit(house, job_type, number, priority=priority)

    async def note(_ctx: Context, params: Anything) -> Something:
        started.append(params.value)
        return Something()

    works = {JOB.kind: note, SOUTH.kind: note}
    await drain(make_worker(house, works, slots=1, queues=("north", "south"), burst=True))

    assert started == [number for _, number in sorted(submitted, key=lambda job: (-job[0], job[1]))]


async def test_a_job_ends_completed_with_what_its_work_returned(house: Installation) -> None:
    job_id = await submit(house, JOB, {"x": [1, 2]})

    await drain(make_worker(house, {JOB.kind: give_back}, burst=True))

    job = await row(house, job_id)
    assert (job.status, job.result, job.attempts, job.progress) == (Status.COMPLETED, {"value": {"x": [1, 2]}}, 1, 100)


async def test_an_idle_worker_wakes_at_once(house: Installation) -> None:
    loop = asyncio.get_running_loop()
    started: asyncio.Queue[float] = asyncio.Queue()

    async def note(_ctx: Context, _params: Anything) -> Something:
        await started.put(loop.time())
        return Something()

    async with at_work(make_worker(house, {JOB.kind: note})):
        await asyncio.wait_for(_one_through(house, started), 10)
        waits = []
        for _ in range(20):
            before = loop.time()
            await submit(house, JOB)
            waits.append(await asyncio.wait_for(started.get(), 5) - before)

    assert sorted(waits)[10] < 0.5  # a poll comes every five seconds


async def _one_through(house: Installation, started: "asyncio.Queue[float]") -> float:
    await submit(house, JOB)
    return await started.get()


async def test_a_failing_job_is_retried_with_growing_delays_and_ends_failed_with_its_traceback(
    house: Installation,
) -> None:
    starts: list[float] = []

    async def fail(_ctx: Context, _params: Anything) -> Something:
        starts.append(asyncio.get_running_loop().time())
        raise ValueError("no such luck")

    growing = trial_type("job", retry=RetryPolicy(max_retries=3, base_s=0.2))
    house.catalogue._by_kind[JOB.kind] = growing
    job_id = await submit(house, growing)
    async with at_work(make_worker(house, {JOB.kind: fail})):
        job = await becomes(house, job_id, Status.FAILED)

    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert len(starts) == 4
    assert all(gap >= 0.2 * 2**retry * 0.8 for retry, gap in enumerate(gaps))
    assert (job.attempts, job.failures) == (4, 4)
    assert job.error is not None
    assert (job.error.type, job.error.message) == ("ValueError", "no such luck")
    assert 'raise ValueError("no such luck")' in (job.error.traceback or "")
    told = await house.reader.attempts(job)
    assert [(attempt.attempt, attempt.outcome) for attempt in told] == [(n, "failed") for n in (1, 2, 3, 4)]


async def test_a_job_may_ask_for_its_own_delay_and_its_own_end(house: Installation) -> None:
    async def choose(ctx: Context, params: Anything) -> Something:
        if params.value == "discard":
            raise Discard("not worth it")
        if ctx.attempt == 1:
            raise Retry(after=0.1)
        return Something(value=ctx.attempt)

    again, never = await submit(house, JOB, "again"), await submit(house, JOB, "discard")
    async with at_work(make_worker(house, {JOB.kind: choose})):
        retried, discarded = await becomes(house, again, Status.COMPLETED), await becomes(house, never, Status.FAILED)

    assert retried.result == {"value": 2}
    assert (discarded.attempts, discarded.error and discarded.error.code) == (1, "discarded")


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", "x" * 2**20, 2**70])
async def test_a_result_that_cannot_be_stored_ends_failed_and_the_worker_goes_on(
    house: Installation, value: Any
) -> None:
    async def answer(_ctx: Context, params: Anything) -> Something:
        return Something.model_construct(value=value if params.value == "odd" else params.value)

    odd, plain = await submit(house, JOB, "odd"), await submit(house, JOB, "plain")
    await drain(make_worker(house, {JOB.kind: answer}, burst=True))

    job = await row(house, odd)
    assert (job.status, job.attempts, job.error and job.error.code) == (Status.FAILED, 1, "result_invalid")
    assert (await row(house, plain)).result == {"value": "plain"}


async def test_an_error_that_no_database_stores_as_it_is_still_ends_its_job(house: Installation) -> None:
    async def fail(_ctx: Context, _params: Anything) -> Something:
        raise Discard("nul \0 and half a pair \ud800")

    job_id = await submit(house, JOB)
    await drain(make_worker(house, {JOB.kind: fail}, burst=True))

    job = await row(house, job_id)
    assert job.error is not None
    assert job.error.message == "nul \N{REPLACEMENT CHARACTER} and half a pair ?"


async def test_an_attempt_that_has_ended_leaves_nothing_to_the_collector(house: Installation) -> None:
    contexts: list[weakref.ref[Context]] = []

    async def note(ctx: Context, _params: Anything) -> Something:
        contexts.append(weakref.ref(ctx))
        return Something()

    async with at_work(make_worker(house, {JOB.kind: note})), _without_collector():
        await becomes(house, await submit(house, JOB), Status.COMPLETED)

        await eventually(lambda: contexts[0]() is None)


@asynccontextmanager
async def _without_collector() -> AsyncIterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_the_soft_limit_may_be_caught_and_the_hard_limit_ends_the_job(house: Installation) -> None:
    async def work(ctx: Context, params: Anything) -> Something:
        if params.value == "deaf":
            await asyncio.Event().wait()
        try:
            while True:
                await ctx.sleep(0.02)
        except Exception as error:  # what the job sees is what is asked
            await ctx.progress(50, "it is told once")
            return Something(value=type(error).__name__)

    mild, deaf = await submit(house, SHORT, "mild"), await submit(house, SHORT, "deaf")
    async with at_work(make_worker(house, {SHORT.kind: work})):
        partial, ended = await becomes(house, mild, Status.COMPLETED), await becomes(house, deaf, Status.FAILED)

    assert partial.result == {"value": "SoftTimeLimitExceeded"}
    assert ended.error is not None
    assert ended.error.code == "timeout"


async def test_a_kind_that_no_worker_knows_is_given_back_first_and_fails_in_the_end(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.attempt._UNKNOWN_KIND_PAUSE_S", 0.05)
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {SOUTH.kind: give_back})):

        async def is_given_back() -> Job | None:
            job = await row(house, job_id)
            return job if job.releases else None

        given_back = await eventually(is_given_back)
        monkeypatch.setattr("workers.attempt._UNKNOWN_KIND_LIMIT_S", 0.0)
        failed = await becomes(house, job_id, Status.FAILED)

    assert given_back.failures == 0
    assert failed.error is not None
    assert failed.error.code == "unknown_task"


async def test_progress_never_goes_back_and_its_last_word_is_kept(house: Installation) -> None:
    async def report(ctx: Context, _params: Anything) -> Something:
        for percent in (10, 50, 30, 80):
            await ctx.progress(percent, f"at {percent}", stage="counting")
        raise Discard("here")

    job_id = await submit(house, JOB)
    await drain(make_worker(house, {JOB.kind: report}, burst=True))

    job = await row(house, job_id)
    assert (job.progress, job.progress_message, job.stage) == (80, "at 80", "counting")


async def test_every_step_of_a_life_is_told_in_order(house: Installation) -> None:
    async def report(ctx: Context, _params: Anything) -> Something:
        await ctx.progress(40, "half way")
        if ctx.attempt == 1:
            raise RuntimeError("once")
        return Something()

    told: list[str] = []
    await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: report})), asyncio.timeout(10):
        async for batch in follow(house.redis, "0-0"):
            told += [one.event.type for one in batch if one.event.job_id]
            if "task.completed" in told:
                break

    one_attempt = ["task.started", "task.progress"]
    assert told == ["task.submitted", *one_attempt, "task.retrying", *one_attempt, "task.completed"]


async def test_a_job_of_a_silent_worker_runs_again_elsewhere(settings: Settings) -> None:
    hasty = settings.model_copy(update={"lease_s": 1.0})
    async with open_installation(hasty, catalogue_of(JOB)) as house:
        job_id = await submit(house, JOB, "hello")
        claims = await house.queue.claim(["north"], want=1, token="a-worker-that-dies")
        await house.lifecycle.start(claims, worker_id="a-worker-that-dies")

        async with at_work(make_worker(house, {JOB.kind: give_back})):
            job = await becomes(house, job_id, Status.COMPLETED)

    assert (job.attempts, job.interruptions, job.failures) == (2, 1, 0)
    assert job.result == {"value": "hello"}


async def test_a_job_longer_than_its_lease_keeps_it(settings: Settings) -> None:
    hasty = settings.model_copy(update={"lease_s": 1.0})
    async with open_installation(hasty, catalogue_of(JOB)) as house:

        async def wait(ctx: Context, _params: Anything) -> Something:
            await ctx.sleep(2.5)
            return Something(value=ctx.attempt)

        job_id = await submit(house, JOB)
        async with at_work(make_worker(house, {JOB.kind: wait})), at_work(make_worker(house, {JOB.kind: wait})):
            job = await becomes(house, job_id, Status.COMPLETED)

    assert (job.attempts, job.result) == (1, {"value": 1})


async def test_a_job_that_lost_five_leases_is_not_run_again(settings: Settings) -> None:
    hasty = settings.model_copy(update={"lease_s": 1.0})
    async with open_installation(hasty, catalogue_of(JOB)) as house:
        job_id = await submit(house, JOB)
        for life in range(5):

            async def claimed(life: int = life) -> bool:
                claims = await house.queue.claim(["north"], want=1, token=f"life-{life}")
                return bool(claims.claims and await house.lifecycle.start(claims, worker_id=f"life-{life}"))

            await eventually(claimed)
            await house.redis.zadd(keys.LEASES, {job_id: 1})
            await house.redis.delete(keys.holder(job_id))
        async with at_work(make_worker(house, {JOB.kind: give_back})):
            job = await becomes(house, job_id, Status.FAILED)

    assert (job.interruptions, job.attempts, job.error and job.error.code) == (5, 6, "worker_lost")


async def test_a_worker_is_known_before_its_first_job_runs(house: Installation) -> None:
    async def look(_ctx: Context, _params: Anything) -> Something:
        return Something(value=[worker.id for worker in await alive_workers(house.redis)])

    job_id = await submit(house, JOB)
    worker = make_worker(house, {JOB.kind: look}, burst=True)
    worker._pulse.run = asyncio.Event().wait  # type: ignore[assignment, method-assign]  # later beats are of no account
    await drain(worker)

    assert (await row(house, job_id)).result == {"value": [worker.id]}


async def test_an_attempt_that_broke_frees_its_slot(house: Installation) -> None:
    broken = make_worker(house, {JOB.kind: give_back})
    attempt: Any = SimpleNamespace(job=SimpleNamespace(id="a-job", claim="a-claim"), task=None)
    broken._attempts["a-job"] = attempt

    async def break_down() -> None:
        raise RuntimeError("a defect of ours")

    attempt.task = broken._running.keep(break_down())
    await asyncio.wait([attempt.task])
    await eventually(lambda: not broken._attempts)
