"""A cancel, a retry by hand and another priority go by the row: in time they hold, too late they are refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.clock import new_id, utc_now
from app.errors import Conflict, NotFound
from app.history.reader import JobFilter
from app.installation import Installation
from app.jobs.status import Status
from app.live.control import orders
from app.queue import keys
from app.settings import Settings
from tests.support.house import (
    NOWHERE,
    NoteParams,
    claim,
    entry,
    events_of,
    open_house,
    order,
    result,
    row,
    settle,
    start,
    start_one,
    submit,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite", "postgresql")

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as house:
        yield house


@pytest.fixture
async def house_without_redis(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings.model_copy(update={"redis_url": NOWHERE})) as house:
        yield house


# --- cancel ------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_and_leaves_redis(house: Installation) -> None:
    (job,) = await submit(house)

    cancelled = await house.lifecycle.cancel(job.id)

    assert cancelled == await row(house, job.id)
    assert cancelled.status is Status.CANCELLED
    assert (await claim(house)).claims == []
    with pytest.raises(asyncio.CancelledError):
        await result(house, job.id)
    await events_of(house, job.id, "task.submitted", "task.cancelled")


async def test_a_running_job_is_cancelled_in_its_row_and_its_worker_told(house: Installation) -> None:
    started = await start_one(house)
    told = orders(house.redis)
    listening = asyncio.ensure_future(anext(told))
    await eventually(lambda: _listeners(house))

    await house.lifecycle.cancel(started.id)

    assert await asyncio.wait_for(listening, 5) == ("cancel", started.id)
    assert (await row(house, started.id)).status is Status.CANCELLED
    assert await entry(house.redis, started) is not None  # its holder's to drop
    await told.aclose()  # type: ignore[attr-defined]  # it is an async generator


async def _listeners(house: Installation) -> bool:
    return bool((await house.redis.pubsub_numsub(keys.CONTROL))[0][1])


async def test_a_running_job_is_spared_if_so_asked(house: Installation) -> None:
    started = await start_one(house)

    with pytest.raises(Conflict, match="running"):
        await house.lifecycle.cancel(started.id, include_running=False)

    assert (await row(house, started.id)).status is Status.RUNNING


async def test_a_second_cancel_conflicts(house: Installation) -> None:
    (job,) = await submit(house)
    await house.lifecycle.cancel(job.id)

    with pytest.raises(Conflict, match="cancelled"):
        await house.lifecycle.cancel(job.id)


async def test_a_cancel_holds_while_redis_is_out(house_without_redis: Installation, house: Installation) -> None:
    (job,) = await submit(house)

    await house_without_redis.lifecycle.cancel(job.id)

    assert await start(house) == []
    assert await entry(house.redis, job) is None
    assert (await row(house, job.id)).status is Status.CANCELLED


async def test_a_job_that_arqs_abort_named_while_it_waited_is_cancelled(house: Installation) -> None:
    job, other = await submit(house, order(), order())
    await house.redis.zadd(keys.ABORTS, {job.id: 1})

    started = await start(house)

    assert [one.id for one in started] == [other.id]
    assert (await row(house, job.id)).status is Status.CANCELLED
    assert await entry(house.redis, job) is None
    assert await house.redis.zscore(keys.ABORTS, job.id) is None


async def test_a_job_that_is_not_there_is_not_found(house: Installation) -> None:
    changes = [
        house.lifecycle.cancel(new_id()),
        house.lifecycle.retry(new_id(), owner="ada"),
        house.lifecycle.reprioritise(new_id(), priority=9),
    ]

    answers = await asyncio.gather(*changes, return_exceptions=True)

    assert [type(answer) for answer in answers] == [NotFound] * 3


# --- retry -------------------------------------------------------------------------------------


async def test_a_retry_by_hand_is_a_new_job_that_names_the_old_one(house: Installation) -> None:
    (job,) = await submit(
        house, order(params=NoteParams(text="again"), priority=7, user_id="eve", max_retries=4, expires_in=HOUR)
    )
    await settle(house, (await start(house))[0], Status.FAILED)
    before = await row(house, job.id)

    again = await house.lifecycle.retry(job.id, owner="bob")

    stored = await row(house, again.id)
    assert (stored.retried_from, stored.submitted_by, stored.status) == (job.id, "bob", Status.PENDING)
    assert (stored.params, stored.priority, stored.user_id) == (before.params, 7, "eve")
    assert (stored.max_retries, stored.expires_at, stored.attempts, stored.error) == (4, None, 0, None)
    assert await row(house, job.id) == before
    assert [started.id for started in await start(house)] == [again.id]
    await events_of(house, again.id, "task.submitted", "task.started")


async def test_a_retry_of_a_tick_is_no_tick(house: Installation) -> None:
    tick = await house.lifecycle.submit_tick(order(schedule="hourly", tick_at=utc_now()))
    assert tick is not None
    await house.lifecycle.cancel(tick.id)

    again = await house.lifecycle.retry(tick.id, owner="ada")

    assert (again.schedule, again.tick_at) == (None, None)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.COMPLETED])
async def test_only_a_failed_or_cancelled_job_is_retried(house: Installation, status: Status) -> None:
    (job,) = await submit(house)
    if status is not Status.PENDING:
        (started,) = await start(house)
        if status.is_final:
            await settle(house, started, status)

    with pytest.raises(Conflict, match=status):
        await house.lifecycle.retry(job.id, owner="ada")

    assert await house.reader.count(JobFilter()) == 1


# --- reprioritise ------------------------------------------------------------------------------


async def test_a_job_with_a_new_priority_is_started_by_that(house: Installation) -> None:
    first, second = await submit(house, order(), order())

    changed = await house.lifecycle.reprioritise(second.id, priority=9)

    assert (changed.priority, changed.status) == (9, Status.PENDING)
    assert [job.id for job in await start(house)] == [second.id, first.id]


async def test_a_job_that_runs_keeps_its_priority(house: Installation) -> None:
    started = await start_one(house)

    with pytest.raises(Conflict, match="running"):
        await house.lifecycle.reprioritise(started.id, priority=9)

    assert (await row(house, started.id)).priority == 5
