"""What a worker claims: no more than it has room for, nothing twice; after a cancel or a stop it holds nothing back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.errors import Retry
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.queue import keys
from app.queue.client import Claims
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
from workers.attempt import StopReason
from workers.context import Context

JOB = trial_type()

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(JOB)) as installation:
        yield installation


async def test_a_worker_with_room_left_does_not_claim_again_when_a_job_ends(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = _watched(house, monkeypatch)
    async with at_work(make_worker(house, {JOB.kind: give_back}, slots=10)):
        await eventually(lambda: bool(claimed))
        del claimed[:]

        await becomes(house, await submit(house, JOB), Status.COMPLETED)
        await eventually(lambda: _nothing_left(house))

        assert claimed == [1]


async def test_the_next_claim_does_not_wait_for_a_start(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, claimed = _held_up(house, monkeypatch), _watched(house, monkeypatch)
    async with at_work(make_worker(house, {JOB.kind: give_back}, slots=10)):
        ids = [await submit(house, JOB)]
        await eventually(lambda: sum(claimed) == 1)

        ids.append(await submit(house, JOB))
        await eventually(lambda: sum(claimed) == 2)

        gate.set()
        for job_id in ids:
            assert (await becomes(house, job_id, Status.COMPLETED)).attempts == 1


async def test_all_slots_are_filled_again_while_a_batch_settles_and_no_more_than_that(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, claimed = _held_up(house, monkeypatch, "settle_all"), _watched(house, monkeypatch)
    ids = [await submit(house, JOB) for _ in range(12)]
    worker = make_worker(house, {JOB.kind: give_back}, slots=4)
    async with at_work(worker):
        await eventually(lambda: worker._closer.count == 8)

        assert claimed == [4, 4]
        assert worker._free_slots() == 0
        gate.set()
        for job_id in ids:
            await becomes(house, job_id, Status.COMPLETED)


async def test_a_job_that_redis_offers_again_while_it_waits_to_start_runs_once(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    async def note(ctx: Context, _params: Anything) -> Something:
        runs.append(ctx.job_id)
        return Something()

    gate, claimed = _held_up(house, monkeypatch), _watched(house, monkeypatch)
    async with at_work(make_worker(house, {JOB.kind: note}, slots=10)):
        first = await submit(house, JOB)
        await eventually(lambda: sum(claimed) == 1)
        second = await submit(house, JOB)
        await eventually(lambda: sum(claimed) == 2)

        await house.redis.delete(keys.LEASES, keys.CLAIMS, keys.holder(second), keys.queue("north", 5))
        await house.lifecycle.restore(
            [job for job in await house.reader.live_page(before=None, limit=10) if job.id == second]
        )
        await eventually(lambda: sum(claimed) == 3)

        gate.set()
        for job_id in (first, second):
            assert (await becomes(house, job_id, Status.COMPLETED)).attempts == 1
    assert runs == [first, second]


async def test_two_workers_share_the_work_and_run_nothing_twice(house: Installation) -> None:
    ran: list[Any] = []

    async def note(_ctx: Context, params: Anything) -> Something:
        ran.append(params.value)
        await asyncio.sleep(0)
        return Something()

    for number in range(300):
        await submit(house, JOB, number)
    workers = [make_worker(house, {JOB.kind: note}, slots=20, burst=True) for _ in range(2)]
    await asyncio.gather(*(drain(worker) for worker in workers))

    assert sorted(ran) == list(range(300))
    assert sum(worker.jobs_complete for worker in workers) == 300
    assert await _nothing_left(house)


def _watched(house: Installation, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of how many jobs each claim brings from now on."""
    brought: list[int] = []

    def watch(claim: Callable[..., Awaitable[Claims]]) -> Callable[..., Awaitable[Claims]]:
        async def watched(*args: Any, **options: Any) -> Claims:
            claims = await claim(*args, **options)
            brought.append(len(claims.claims))
            return claims

        return watched

    for name in ("claim", "claim_at_bell"):
        monkeypatch.setattr(house.queue, name, watch(getattr(house.queue, name)))
    return brought


def _held_up(house: Installation, monkeypatch: pytest.MonkeyPatch, step: str = "start") -> asyncio.Event:
    """Return what lets a step of the lifecycle go on, which waits for it from now on."""
    goes_on, gate = getattr(house.lifecycle, step), asyncio.Event()

    async def held_up(*args: Any, **options: Any) -> Any:
        await gate.wait()
        return await goes_on(*args, **options)

    monkeypatch.setattr(house.lifecycle, step, held_up)
    return gate


# --- cancels -----------------------------------------------------------------------------------


async def test_a_running_job_can_be_cancelled(house: Installation) -> None:
    stopped = asyncio.Event()
    running = await _hanging(house, stopped)
    async with at_work(running[0]):
        await becomes(house, running[1], Status.RUNNING)

        await house.lifecycle.cancel(running[1])

        await asyncio.wait_for(stopped.wait(), 2)
        await eventually(lambda: _nothing_left(house))
    assert (await row(house, running[1])).status is Status.CANCELLED


async def test_a_cancel_that_nobody_was_told_of_still_lands(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker._REREAD_S", 0.1)
    stopped = asyncio.Event()
    worker, job_id = await _hanging(house, stopped)
    async with at_work(worker):
        await becomes(house, job_id, Status.RUNNING)
        await house.lifecycle._writer.cancel(job_id, include_running=True, now=(await house.queue.now()))

        await asyncio.wait_for(stopped.wait(), 5)

    assert (await row(house, job_id)).status is Status.CANCELLED


async def test_a_retry_that_starts_while_the_rows_are_read_again_is_not_taken_for_lost(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker._REREAD_S", 0.1)
    read, asked, retried, answered = house.reader.running_under, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read_late(claims: dict[str, str]) -> set[str]:
        asked.set()
        await retried.wait()
        mine = await read(claims)
        answered.set()
        return mine

    async def work(ctx: Context, _params: Anything) -> Something:
        if ctx.attempt == 1:
            await asked.wait()
            raise Retry(after=0)
        retried.set()
        await answered.wait()
        return Something()

    monkeypatch.setattr(house.reader, "running_under", read_late)
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: work})):
        job = await becomes(house, job_id, Status.COMPLETED, within=30)

    assert (job.attempts, job.interruptions) == (2, 0)


async def _hanging(house: Installation, stopped: asyncio.Event) -> tuple[Any, str]:
    async def hang(_ctx: Context, _params: Anything) -> Something:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return Something()

    return make_worker(house, {JOB.kind: hang}), await submit(house, JOB)


async def _nothing_left(house: Installation) -> bool:
    left = {key.decode() for key in await house.redis.keys("*")}
    return not any(key.startswith((keys.QUEUE, keys.BODY, keys.HOLDER, keys.LEASES, keys.CLAIMS)) for key in left)


# --- stops -------------------------------------------------------------------------------------


async def test_a_stopping_worker_gives_jobs_back_without_burning_a_retry(house: Installation) -> None:
    house_of_no_patience = house.settings.model_copy(update={"worker_grace_s": 0.1})
    object.__setattr__(house, "settings", house_of_no_patience)
    worker, job_id = await _hanging(house, asyncio.Event())
    async with at_work(worker):
        await becomes(house, job_id, Status.RUNNING)

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.failures, job.releases) == (Status.PENDING, 1, 0, 1)
    await drain(make_worker(house, {JOB.kind: give_back}, burst=True))
    assert (await row(house, job_id)).status is Status.COMPLETED


async def test_a_job_whose_start_outlasts_the_grace_period_is_released_without_being_run(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(house, "settings", house.settings.model_copy(update={"worker_grace_s": 0}))
    runs, gate = list[str](), _held_up(house, monkeypatch)

    async def note(ctx: Context, _params: Anything) -> Something:
        runs.append(ctx.job_id)
        return Something()

    worker, job_id = make_worker(house, {JOB.kind: note}), await submit(house, JOB)
    async with at_work(worker):
        await eventually(lambda: bool(worker._intake.pending))
        worker.stop()
        await eventually(lambda: worker._is_past_grace)
        gate.set()

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.interruptions, job.releases) == (Status.PENDING, 1, 0, 1)
    assert runs == []


async def test_a_job_that_is_stopped_before_its_first_step_is_released(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, job_id = make_worker(house, {JOB.kind: give_back}), await submit(house, JOB)
    start = house.lifecycle.start

    async def start_and_stop(*args: Any, on_decided: Callable[[Any], None], **options: Any) -> Any:
        def launch_and_stop(started: Any) -> None:
            on_decided(started)
            worker._stop_attempts([job_id], StopReason.SHUTDOWN)

        monkeypatch.setattr(house.lifecycle, "start", start)  # once is enough
        return await start(*args, on_decided=launch_and_stop, **options)

    monkeypatch.setattr(house.lifecycle, "start", start_and_stop)
    async with at_work(worker):
        job = await becomes(house, job_id, Status.COMPLETED, within=30)

    assert (job.attempts, job.interruptions, job.releases) == (2, 0, 1)


async def test_what_was_claimed_while_the_worker_was_told_to_stop_is_given_back_unstarted(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, job_id = make_worker(house, {JOB.kind: give_back}), await submit(house, JOB)
    claim = house.queue.claim

    async def claim_and_hear_the_signal(*args: Any, **options: Any) -> Claims:
        claims = await claim(*args, **options)
        worker.stop()
        return claims

    monkeypatch.setattr(house.queue, "claim", claim_and_hear_the_signal)
    await drain(worker)

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.releases) == (Status.PENDING, 0, 0)
    assert not await house.redis.exists(keys.holder(job_id))


async def test_a_stopping_worker_lets_jobs_finish_first(house: Installation) -> None:
    release = asyncio.Event()

    async def wait(ctx: Context, _params: Anything) -> Something:
        await release.wait()
        await ctx.sleep(0.2)
        return Something(value="finished")

    job_id = await submit(house, JOB)
    worker = make_worker(house, {JOB.kind: wait})
    async with at_work(worker):
        await becomes(house, job_id, Status.RUNNING)
        worker.stop()
        release.set()

    assert (await row(house, job_id)).result == {"value": "finished"}
