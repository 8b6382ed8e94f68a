"""A checkpoint is written by the attempt that runs, read by the next one, and gone when the job ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import AttemptLost
from app.history.writer import Started
from app.installation import Installation
from app.jobs.contract import Limits
from app.jobs.status import Status
from app.settings import Settings
from tests.support.house import cut_off_from_sql, die, open_house, settle, start, start_one
from workers.context import Context

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as installation:
        yield installation


def context(house: Installation, job: Started) -> Context:
    return Context(job, Limits(), house, lambda _progress: None)


async def restart(house: Installation, job: Started) -> Started:
    """Let the job's worker die, and start its next attempt."""
    await die(house.redis, job)
    (again,) = await start(house)
    return again


async def test_the_next_attempt_finds_the_last_state_of_the_one_before(house: Installation) -> None:
    first = context(house, job := await start_one(house))
    await first.checkpoint({"step": 1})
    await first.checkpoint({"step": 2})

    second = context(house, await restart(house, job))
    await second.restore()

    assert second.restored == {"step": 2}


async def test_a_first_attempt_has_nothing_to_go_on_from(house: Installation) -> None:
    ctx = context(house, await start_one(house))

    await ctx.restore()

    assert ctx.restored is None


async def test_a_stale_attempt_can_write_no_checkpoint(house: Installation) -> None:
    stale = context(house, job := await start_one(house))
    again = await restart(house, job)
    await context(house, again).checkpoint("newer")

    with pytest.raises(AttemptLost):
        await stale.checkpoint("older")

    assert await house.reader.checkpoint(job.id) == "newer"


async def test_a_stale_end_drops_no_checkpoint(house: Installation) -> None:
    stale = await restart(house, await start_one(house))
    again = await restart(house, stale)
    await context(house, again).checkpoint("newer")

    assert not await settle(house, stale)

    assert await house.reader.checkpoint(stale.id) == "newer"


async def test_an_attempt_of_a_cancelled_job_can_write_no_checkpoint(house: Installation) -> None:
    ctx = context(house, job := await start_one(house))
    await house.lifecycle.cancel(job.id)

    with pytest.raises(AttemptLost):
        await ctx.checkpoint(1)

    assert await house.reader.checkpoint(job.id) is None


async def test_a_cancel_drops_the_checkpoint(house: Installation) -> None:
    await context(house, job := await start_one(house)).checkpoint(1)

    await house.lifecycle.cancel(job.id)

    assert await house.reader.checkpoint(job.id) is None


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_the_end_of_the_job_drops_the_checkpoint(house: Installation, status: Status) -> None:
    await context(house, job := await start_one(house)).checkpoint(1)

    assert await settle(house, job, status, has_checkpoint=True)

    assert await house.reader.checkpoint(job.id) is None


async def test_a_retry_keeps_the_checkpoint_and_the_end_of_a_later_attempt_drops_it(house: Installation) -> None:
    await context(house, job := await start_one(house)).checkpoint(1)

    kept = await settle(house, job, Status.PENDING, has_checkpoint=True, due_at=None) and await house.reader.checkpoint(
        job.id
    )
    (again,) = await start(house)
    await settle(house, again)

    assert kept == 1
    assert await house.reader.checkpoint(job.id) is None


async def test_an_attempt_that_cannot_read_its_checkpoint_waits_for_the_database(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await context(house, job := await start_one(house)).checkpoint({"step": 7})
    second = context(house, await restart(house, job))
    with monkeypatch.context() as outage:
        cut_off_from_sql(house, outage)
        reading = asyncio.create_task(second.restore())
        await asyncio.wait([reading], timeout=0.1)

    await asyncio.wait_for(reading, 10)

    assert second.restored == {"step": 7}


async def test_a_database_that_is_away_costs_the_checkpoint_alone(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(house, job := await start_one(house))
    await ctx.checkpoint("stored")
    with monkeypatch.context() as outage:
        cut_off_from_sql(house, outage)

        await ctx.checkpoint("lost")

    assert await house.reader.checkpoint(job.id) == "stored"
