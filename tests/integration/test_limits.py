"""What a job may not do to its worker: outlast its limits, return or say too much, or keep a thread."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from app.errors import BadRequest, Discard, InsufficientData, JobNotFound, NotFound, Retry
from app.history.tables import jobs
from app.installation import Installation, open_installation
from app.jobs.contract import Limits, RetryPolicy
from app.jobs.status import Status
from app.live.control import tell_drain
from app.live.workers import alive_workers
from app.orders import Order
from app.queue import keys
from app.settings import Settings
from tests.support.poison import be_deaf
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
from workers.worker import Worker

ONCE = RetryPolicy(max_retries=0)
JOB = trial_type(retry=ONCE)
SHORT = trial_type("short", limits=Limits(hard_s=0.5, soft_s=0.2), retry=ONCE)
AGAIN = trial_type("again", limits=Limits(hard_s=0.3, soft_s=0.3), retry=RetryPolicy(max_retries=1, base_s=0.05))


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(JOB, SHORT, AGAIN)) as installation:
        yield installation


async def is_let_go(house: Installation, job_id: str) -> bool:
    return not await house.redis.exists(keys.holder(job_id))


# --- coroutines that ignore their end ------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_job_that_ignores_its_hard_limit_ends_within_two_seconds_of_it(house: Installation) -> None:
    job_id = await submit(house, SHORT, 4)
    async with at_work(make_worker(house, {SHORT.kind: be_deaf}, slots=1)) as worker:
        job = await becomes(house, job_id, Status.FAILED)
        await eventually(lambda: is_let_go(house, job_id))
        assert not worker._attempts
        assert worker.limits.stubborn == 1
        await eventually(lambda: worker.limits.stubborn == 0, within=10)  # it returned a result at last
    assert worker.jobs_failed == 1

    assert job.error is not None
    assert job.error.code == "timeout"
    assert job.started_at is not None
    assert job.completed_at is not None
    assert (job.completed_at - job.started_at).total_seconds() <= SHORT.limits.hard_s + 2
    assert await row(house, job_id) == job


async def test_a_job_that_ignores_a_cancel_frees_its_slot_within_two_seconds(house: Installation) -> None:
    job_id = await submit(house, JOB, 4)
    async with at_work(make_worker(house, {JOB.kind: be_deaf}, slots=1)) as worker:
        await becomes(house, job_id, Status.RUNNING)
        before = time.monotonic()
        await house.lifecycle.cancel(job_id)
        await eventually(lambda: not worker._attempts)
        took_s = time.monotonic() - before
        await eventually(lambda: is_let_go(house, job_id))

    assert took_s <= 2
    assert (await row(house, job_id)).status is Status.CANCELLED


async def test_stubborn_work_that_ends_at_last_does_not_end_the_next_attempt_of_its_job(house: Installation) -> None:
    runs: list[int] = []

    async def deaf_once(ctx: Context, _params: Anything) -> Something:
        runs.append(ctx.attempt)
        if ctx.attempt == 1:
            return await be_deaf(ctx, Anything(value=2.6))
        await asyncio.sleep(0.2)
        await eventually(lambda: worker.limits.stubborn == 0)
        return Something(value=len(worker._attempts))

    patient = trial_type("again", limits=Limits(hard_s=0.3, soft_s=0.3), retry=AGAIN.retry)
    house.catalogue._by_kind[AGAIN.kind] = patient
    job_id = await submit(house, patient)
    worker = make_worker(house, {AGAIN.kind: deaf_once})
    async with at_work(worker):
        await eventually(lambda: worker.limits.stubborn == 1)
        object.__setattr__(patient, "limits", Limits(hard_s=20, soft_s=20))
        job = await becomes(house, job_id, Status.COMPLETED)

    assert (runs, job.result) == ([1, 2], {"value": 1})


async def test_what_stubborn_work_reports_later_is_ignored(house: Installation) -> None:
    refused: list[str] = []

    async def talk_on(ctx: Context, _params: Anything) -> Something:
        try:
            await be_deaf(ctx, Anything(value=3))
            await ctx.progress(99, "still here")
            await ctx.checkpoint("too late")
        except Exception as error:  # what the job sees is what is asked
            refused.append(type(error).__name__)
        return Something()

    job_id = await submit(house, SHORT)
    async with at_work(make_worker(house, {SHORT.kind: talk_on})):
        await becomes(house, job_id, Status.FAILED)
        await eventually(lambda: refused)

    assert refused in (["AttemptLost"], ["SoftTimeLimitExceeded"])
    assert (await row(house, job_id)).progress == 0
    assert not await house.redis.exists(keys.progress(job_id))


async def test_a_worker_with_more_than_three_stubborn_jobs_drains(house: Installation) -> None:
    worker = make_worker(house, {SHORT.kind: be_deaf, JOB.kind: give_back})
    three = [await submit(house, SHORT, 6) for _ in range(3)]
    task = asyncio.create_task(worker.async_run())
    for job_id in three:
        await becomes(house, job_id, Status.FAILED)
    still_served = await submit(house, JOB)
    await becomes(house, still_served, Status.COMPLETED)

    await submit(house, SHORT, 6)

    async with asyncio.timeout(20):
        await task
    assert worker.limits.has_too_many
    await eventually(lambda: worker.limits.stubborn == 0, within=10)


async def test_a_worker_drains_when_it_is_told_to_and_others_do_not(house: Installation) -> None:
    release = asyncio.Event()

    async def wait(_ctx: Context, _params: Anything) -> Something:
        await release.wait()
        return Something(value="finished")

    running = await submit(house, JOB)
    worker, other = (make_worker(house, {JOB.kind: wait}, slots=1) for _ in range(2))
    object.__setattr__(house, "settings", house.settings.model_copy(update={"worker_grace_s": 0.0}))
    task = asyncio.create_task(worker.async_run())
    await becomes(house, running, Status.RUNNING)
    async with at_work(other):
        await eventually(lambda: _listeners(house, 2))

        assert await tell_drain(house.redis, worker.id)

        await eventually(lambda: worker._is_stopping)
        late = await submit(house, JOB)
        await becomes(house, late, Status.RUNNING)
        assert not task.done()  # the grace period is none, and a drain does not count it
        release.set()
        async with asyncio.timeout(10):
            await task
        done = await becomes(house, late, Status.COMPLETED)

    assert (await row(house, running)).result == {"value": "finished"}
    assert done.attempts == 1
    assert (await row(house, late)).worker_id == other.id


async def _listeners(house: Installation, count: int) -> bool:
    return bool((await house.redis.pubsub_numsub(keys.CONTROL))[0][1] == count)


async def test_nonsense_on_the_control_channel_harms_no_worker(house: Installation) -> None:
    async with at_work(make_worker(house, {JOB.kind: give_back})) as worker:
        await eventually(lambda: _listeners(house, 1))
        for raw in (b"\xff\x00", b"[1]", b"null", b'{"drain": 7}', b'{"cancel": null}'):
            await house.redis.publish(keys.CONTROL, raw)
        await tell_drain(house.redis, worker.id)
        await eventually(lambda: worker._is_draining)


# --- limits and threads ----------------------------------------------------------------------------


async def test_a_timeout_may_be_tried_again_and_ends_failed_as_one(house: Installation) -> None:
    async def wait(_ctx: Context, _params: Anything) -> Something:
        await asyncio.Event().wait()
        return Something()

    job_id = await submit(house, AGAIN)
    async with at_work(make_worker(house, {AGAIN.kind: wait})):
        job = await becomes(house, job_id, Status.FAILED)

    assert job.error is not None
    assert (job.attempts, job.failures, job.error.code, job.error.is_retryable) == (2, 2, "timeout", True)


async def test_the_hard_limit_reaches_a_thread(house: Installation) -> None:
    threads: list[threading.Thread] = []

    def spin() -> None:
        threads.append(threading.current_thread())
        try:
            while True:
                time.sleep(0.001)
        except Exception:  # noqa: S110  # a function that forgives everything does not outlive its job
            pass

    async def work(ctx: Context, _params: Anything) -> Something:
        await ctx.run_thread(spin)
        return Something()

    job_id = await submit(house, SHORT)
    async with at_work(make_worker(house, {SHORT.kind: work})) as worker:
        job = await becomes(house, job_id, Status.FAILED)
        assert worker.limits.stubborn == 0

    assert job.error is not None
    assert job.error.code == "timeout"
    assert not threads[0].is_alive()


async def test_a_stop_that_lands_where_python_drops_it_is_repeated(house: Installation) -> None:
    is_deaf = True

    def spin() -> None:
        nonlocal is_deaf
        while is_deaf:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException:  # as Python does in a finalizer
                is_deaf = False
        while True:
            time.sleep(0.001)

    async def work(ctx: Context, _params: Anything) -> Something:
        await ctx.run_thread(spin)
        return Something()

    job_id = await submit(house, SHORT)
    async with at_work(make_worker(house, {SHORT.kind: work})) as worker:
        await becomes(house, job_id, Status.FAILED)
        assert worker.limits.stubborn == 0


async def test_threads_that_never_return_are_counted_and_keep_nobody_waiting(house: Installation) -> None:
    gate = threading.Event()

    async def work(ctx: Context, _params: Anything) -> Something:
        await ctx.run_thread(gate.wait)
        return Something()

    ids = [await submit(house, SHORT) for _ in range(40)]  # more than the loop's own pool has threads
    worker = make_worker(house, {SHORT.kind: work}, slots=40)
    task = asyncio.create_task(worker.async_run())
    jobs = [await becomes(house, job_id, Status.FAILED) for job_id in ids]
    async with asyncio.timeout(20):
        await task  # it drained by itself

    assert {job.error.code for job in jobs if job.error} == {"timeout"}
    assert worker.limits.stubborn == 40
    gate.set()
    await eventually(lambda: worker.limits.stubborn == 0)


async def test_what_a_thread_raises_and_returns_arrives(house: Installation) -> None:
    def answer(value: Any) -> Any:
        if isinstance(value, str):
            raise {"stop": StopIteration, "exit": SystemExit, "value": ValueError}[value]("told")
        return value

    async def work(ctx: Context, params: Anything) -> Something:
        return Something(value=await ctx.run_thread(answer, params.value))

    ids = [await submit(house, JOB, value) for value in (7, "stop", "exit", "value")]
    await drain(make_worker(house, {JOB.kind: work}, burst=True))

    seven, *broken = [await row(house, job_id) for job_id in ids]
    assert seven.result == {"value": 7}
    assert [(job.error.type, job.error.message) for job in broken if job.error] == [
        ("RuntimeError", "StopIteration was raised in the job's thread: told"),
        ("RuntimeError", "SystemExit was raised in the job's thread: told"),
        ("ValueError", "told"),
    ]


# --- what jobs return and raise --------------------------------------------------------------------


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I cannot be told")


ENDLESS = type("Endless" * 1000, (Exception,), {})

ENDLESS_LIST: list[Any] = []
ENDLESS_LIST.append(ENDLESS_LIST)
HARMS: dict[str, Any] = {
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "base": BaseException("of no kind"),
    "cancelled": asyncio.CancelledError("by itself"),
    "mute": MuteError(),
    "endless": ENDLESS("odd"),
    "long": ValueError("\0\ud800" + "x" * 20_000_000),
    "group": ExceptionGroup("many", [ValueError(str(number)) for number in range(3)]),
}


@pytest.mark.databases("sqlite", "postgresql")
async def test_whatever_a_job_raises_ends_in_its_row_and_its_neighbours_complete(house: Installation) -> None:
    async def harm(_ctx: Context, params: Anything) -> Something:
        if isinstance(params.value, str):
            raise HARMS[params.value]
        return Something(value=params.value)

    harmful = {name: await submit(house, JOB, name) for name in HARMS}
    good = [await submit(house, JOB, number) for number in range(20)]
    await drain(make_worker(house, {JOB.kind: harm}, slots=30, burst=True))

    ended = {name: await row(house, job_id) for name, job_id in harmful.items()}
    assert {job.status for job in ended.values()} == {Status.FAILED}
    assert {job.attempts for job in ended.values()} == {1}
    errors = {name: job.error for name, job in ended.items() if job.error}
    assert errors["mute"].message == "MuteError, which cannot be shown as text"
    assert errors["exit"].type == "SystemExit"
    assert all(len(error.message) <= 2_000 for error in errors.values())
    assert all(len(error.traceback or "") <= 20_000 for error in errors.values())
    assert {(await row(house, job_id)).status for job_id in good} == {Status.COMPLETED}


@pytest.mark.databases("sqlite", "postgresql")
async def test_whatever_a_job_reports_can_be_stored(house: Installation) -> None:
    async def report(ctx: Context, _params: Anything) -> Something:
        await ctx.progress(20, "fine", stage="fine")
        await ctx.progress(float("nan"), "\0\ud800" + "x" * 5_000_000, stage="\0\udfff" * 10_000)
        await ctx.progress(float("inf"))
        raise Discard("here")

    job_id = await submit(house, JOB)
    await drain(make_worker(house, {JOB.kind: report}, burst=True))

    job = await row(house, job_id)
    assert job.error is not None
    assert job.error.code == "discarded"
    assert job.progress == 20
    assert len(job.progress_message or "") == len(job.stage or "") == 500


@pytest.mark.parametrize("value", [b"\xff", ENDLESS_LIST, ["x" * 2**20], "x" * 50 * 2**20, list(range(300_000))])
async def test_a_result_that_is_no_json_or_too_large_is_invalid_at_once(house: Installation, value: Any) -> None:
    async def answer(_ctx: Context, _params: Anything) -> Something:
        return Something.model_construct(value=value)

    job_id = await submit(house, AGAIN)
    await drain(make_worker(house, {AGAIN.kind: answer}, burst=True))

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.error and job.error.code) == (Status.FAILED, 1, "result_invalid")


async def test_no_result_at_all_is_invalid(house: Installation) -> None:
    async def forget(_ctx: Context, _params: Anything) -> None:
        return None

    job_id = await submit(house, JOB)
    await drain(make_worker(house, {JOB.kind: forget}, burst=True))

    job = await row(house, job_id)
    assert (job.status, job.error and job.error.code) == (Status.FAILED, "result_invalid")


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (NotFound("no such record"), 1),
        (JobNotFound("no such record"), 1),
        (BadRequest("senseless"), 1),
        (InsufficientData("two rows"), 1),
        (Discard("not worth it"), 1),
        (ConnectionError("gone"), 2),
        (KeyError("unknown"), 2),
        (Retry(after=0.01), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_what_would_fail_again_is_not_tried_again(house: Installation, error: Exception, attempts: int) -> None:
    async def fail(_ctx: Context, _params: Anything) -> Something:
        raise error

    job_id = await submit(house, AGAIN)
    async with at_work(make_worker(house, {AGAIN.kind: fail})):
        job = await becomes(house, job_id, Status.FAILED)

    assert job.attempts == attempts


async def test_params_that_no_longer_fit_their_type_are_not_tried_again(house: Installation) -> None:
    job_id = await submit(house, AGAIN)
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(params={"of": "an older version"}))

    await drain(make_worker(house, {AGAIN.kind: give_back}, burst=True))

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.error and job.error.code) == (Status.FAILED, 1, "validation_error")


# --- the worker's own state --------------------------------------------------------------------------


async def test_the_heartbeat_tells_how_late_the_loop_was_between_two_beats(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pulse.BEAT_S", 1.2)

    async def block(_ctx: Context, _params: Anything) -> Something:
        time.sleep(0.6)  # noqa: ASYNC251  # that is the point
        return Something()

    async with at_work(make_worker(house, {JOB.kind: block})):
        await eventually(lambda: alive_workers(house.redis))
        await submit(house, JOB)

        async def lag() -> float:
            return max(worker.loop_lag for worker in await alive_workers(house.redis))

        async def is_late() -> bool:
            return await lag() >= 0.3

        await eventually(is_late, within=5)
        (worker,) = await alive_workers(house.redis)

    assert worker.pid == os.getpid()
    assert 20 * 2**20 < worker.rss < 2**32


def _has_run(worker: Worker, count: int) -> bool:
    return worker.jobs_complete == count and not worker._running


async def test_no_job_leaves_anything_in_its_worker(house: Installation) -> None:
    async def settle_down() -> int:
        gc.collect()  # only ours are counted: a whole test process makes hundreds of others meanwhile
        ours = [str(type(one).__module__).partition(".")[0] in {"app", "workers"} for one in gc.get_objects()]
        return sum(ours) + len(asyncio.all_tasks())

    sizes = []
    worker = make_worker(house, {JOB.kind: give_back}, slots=50)
    async with at_work(worker):
        for round_ in (1, 2, 3):
            orders = [Order(job_type=JOB, params=Anything(value=number), owner="ann") for number in range(300)]
            await house.lifecycle.submit(orders)
            await eventually(partial(_has_run, worker, 300 * round_), within=30)
            sizes.append(await settle_down())

    assert sizes[2] - sizes[1] < 100  # of 300 jobs
