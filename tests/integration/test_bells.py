"""How an idle worker waits: at its bells, no longer than it must, and for nothing that it could not use."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.clock import utc_now
from app.embedded import EmbeddedRedis
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.queue.client import Claims
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
from workers.worker import IDLE_POLL_S

JOB = trial_type()

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(JOB)) as installation:
        yield installation


async def test_what_the_bell_brings_to_a_worker_that_stops_goes_back(house: Installation) -> None:
    async with at_work(make_worker(house, {JOB.kind: give_back})) as worker:
        await eventually(lambda: waits_at_bell(house))
        worker._intake.is_closed = True  # as a stop begins
        job_id = await submit(house, JOB)
        await eventually(lambda: worker._intake._number > 2)  # the bell rang, and rang again for what went back

    (stats,) = await house.queue.stats(["north"])
    assert (stats.ready, stats.running) == (1, 0)
    assert (await row(house, job_id)).status is Status.PENDING


async def test_an_idle_worker_that_is_told_to_stop_waits_for_no_bell(house: Installation) -> None:
    worker = make_worker(house, {JOB.kind: give_back})
    task = asyncio.create_task(worker.async_run())
    await eventually(lambda: waits_at_bell(house))
    worker.stop()

    async with asyncio.timeout(1.5):  # a silent bell takes four seconds or more, and a Redis that does not answer two
        await task


async def test_a_bell_is_waited_for_no_longer_than_the_idle_poll(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    async def wait(*_args: Any, at_most_s: float, **_options: Any) -> Claims:
        limits.append(at_most_s)
        return await asyncio.Future()

    monkeypatch.setattr("workers.worker.random.uniform", lambda _least, most: most)
    monkeypatch.setattr("workers.worker._ANSWER_S", 0.1)
    monkeypatch.setattr(house.queue, "claim_at_bell", wait)
    async with at_work(make_worker(house, {JOB.kind: give_back})):
        await eventually(lambda: bool(limits))

    assert limits == [IDLE_POLL_S]  # a job that is due a little later had this worker wait for no timer


async def test_a_worker_that_was_full_for_long_looks_for_jobs_of_stock_clients(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker.IDLE_POLL_S", 0.2)
    searches: list[bool] = []
    claim, gate = house.queue.claim, asyncio.Event()

    async def watched(*args: Any, search: bool, **options: Any) -> Claims:
        searches.append(search)
        return await claim(*args, search=search, **options)

    async def work(_ctx: Context, _params: Anything) -> Something:
        await gate.wait()
        return Something()

    first, last = await submit(house, JOB), await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: work}, slots=1)):
        await becomes(house, first, Status.RUNNING)
        monkeypatch.setattr(house.queue, "claim", watched)
        await asyncio.sleep(0.5)  # more than one idle poll
        gate.set()
        await becomes(house, last, Status.COMPLETED)

    assert searches[0]


async def test_a_redis_that_stands_still_takes_no_job_for_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker._ANSWER_S", 0.3)
    with EmbeddedRedis() as redis:
        assert redis.pid is not None
        own = settings.model_copy(update={"redis_url": redis.url})
        async with (
            open_installation(own, catalogue_of(JOB)) as house,
            at_work(make_worker(house, {JOB.kind: give_back})),
        ):
            await eventually(lambda: waits_at_bell(house))
            job_id = await submit(house, JOB, scheduled_for=utc_now() + timedelta(seconds=1))
            await asyncio.sleep(0.5)  # the worker has set its timer
            os.kill(redis.pid, signal.SIGSTOP)
            await asyncio.sleep(4.5)  # standing still is what is tested
            os.kill(redis.pid, signal.SIGCONT)
            job = await becomes(house, job_id, Status.COMPLETED, within=5)

    assert job.attempts == 1


async def waits_at_bell(house: Installation) -> bool:
    return int((await house.redis.info("clients"))["blocked_clients"]) > 0
