"""Where Redis and a row disagree the row is right: a loser acts by it, and what Redis lost is put back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import to_ms, utc_now
from app.errors import Unavailable
from app.history.tables import jobs
from app.history.writer import ALONE_AT, Started
from app.installation import Installation
from app.jobs.status import FINAL, Status
from app.queue import keys
from app.queue.client import Claims
from app.settings import Settings
from tests.support.house import (
    NOWHERE,
    WORKER,
    all_keys,
    claim,
    die,
    ending,
    entry,
    events,
    events_of,
    open_house,
    order,
    reply,
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


async def lose_entry(house: Installation, job: Any) -> None:
    """Make Redis forget everything about a job."""
    await house.redis.zrem(keys.queue(job.queue, job.priority), job.id)
    await house.redis.zrem(keys.LEASES, job.id)
    await reply(house.redis.hdel(keys.CLAIMS, job.id))
    await house.redis.delete(keys.holder(job.id), keys.body(job.id))


async def claims_of(house: Installation, *jobs: Any) -> Claims:
    """Claim what waits, expecting exactly these."""
    claims = await claim(house)
    assert {one.id for one in claims.claims} == {job.id for job in jobs}
    return claims


# --- a loser acts by the row -------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_entry_of_an_ended_job_leaves_with_the_result_of_the_row(house: Installation, status: Status) -> None:
    started = await start_one(house)
    if status is Status.CANCELLED:
        await house.lifecycle._writer.cancel(started.id, include_running=True, now=utc_now())
    else:
        await house.lifecycle.settle(started, ending(started, status))
    await die(house.redis, started)

    assert await start(house) == []

    assert await entry(house.redis, started) is None
    assert await house.redis.exists(keys.result(started.id)) == 1
    assert await eventually(lambda: _last_status(house, started)) is status


async def _last_status(house: Installation, job: Started) -> Status | None:
    told = [event.status for event in await events(house) if event.job_id == job.id]
    return told[-1] if told and told[-1].is_final else None


async def test_an_entry_of_a_job_that_is_due_later_goes_back_to_its_time(house: Installation) -> None:
    (job,) = await submit(house, order(scheduled_for=utc_now() + HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {job.id: 2})

    assert await start(house) == []

    assert await entry(house.redis, job) == to_ms(job.due_at)
    assert await house.redis.exists(keys.holder(job.id)) == 0


async def test_a_job_whose_time_to_expire_is_still_to_come_goes_on_waiting(house: Installation) -> None:
    (job,) = await submit(house, order(scheduled_for=utc_now() + HOUR, expires_in=HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {job.id: 1})

    assert await start(house) == []

    assert (await row(house, job.id)).status is Status.PENDING


async def test_a_suspect_that_was_set_aside_stays_held(house: Installation) -> None:
    (suspect,) = await submit(house)
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == suspect.id).values(interruptions=ALONE_AT))
    claims = await claims_of(house, suspect)

    assert await house.lifecycle.start(claims, worker_id=WORKER, take_aside=lambda _claim: True) == []

    assert await house.redis.get(keys.holder(suspect.id)) == claims.claims[0].token.encode()


async def test_a_loser_that_cannot_ask_for_the_row_spares_the_winners(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, early = await submit(house, order(), order(scheduled_for=utc_now() + HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {early.id: 1})

    async def refuse(_ids: object) -> None:
        raise Unavailable

    monkeypatch.setattr(house.reader, "get_many", refuse)

    assert [job.id for job in await start(house)] == [waiting.id]


async def test_an_entry_of_a_job_that_runs_elsewhere_is_lent_to_its_claim(house: Installation) -> None:
    started = await start_one(house)
    await lose_entry(house, started)
    await house.redis.zadd(keys.queue("alpha", 5), {started.id: 1})

    assert await start(house) == []

    assert await house.redis.get(keys.holder(started.id)) == started.claim.encode()
    assert await settle(house, started)
    assert await entry(house.redis, started) is None


async def test_an_expired_job_ends_failed(house: Installation) -> None:
    (job,) = await submit(house, order(expires_in=timedelta(milliseconds=1)))
    claims = await claims_of(house, job)

    late = replace(claims, now=claims.now + HOUR)
    assert await house.lifecycle.start(late, worker_id=WORKER) == []

    stored = await row(house, job.id)
    assert (stored.status, stored.error and stored.error.code, stored.attempts) == (Status.FAILED, "expired", 0)
    assert await entry(house.redis, job) is None
    await events_of(house, job.id, "task.submitted", "task.failed")


async def test_a_worker_that_lost_its_job_to_a_cancel_drops_the_entry(house: Installation) -> None:
    started = await start_one(house)
    await house.lifecycle.cancel(started.id)
    assert not await settle(house, started)

    await house.lifecycle.stand_down(started)

    assert await entry(house.redis, started) is None
    with pytest.raises(asyncio.CancelledError):
        await result(house, started.id)


# --- restore -----------------------------------------------------------------------------------


async def restore(house: Installation) -> int:
    return await house.lifecycle.restore(await house.reader.live_page(before=None))


async def test_nothing_is_restored_where_nothing_is_missing(house: Installation) -> None:
    await start_one(house)
    await submit(house)

    assert await restore(house) == 0


async def test_a_waiting_job_that_redis_lost_is_put_back_at_its_time(house: Installation) -> None:
    lost, scheduled, _ = await submit(house, order(), order(scheduled_for=utc_now() + HOUR), order())
    await lose_entry(house, lost)
    await lose_entry(house, scheduled)

    assert await restore(house) == 2

    assert await entry(house.redis, lost) == to_ms(lost.due_at)
    assert await entry(house.redis, scheduled) == to_ms(scheduled.due_at)
    assert await house.redis.exists(keys.body(lost.id)) == 1


async def test_a_running_job_that_redis_lost_is_put_back_under_its_claim(house: Installation) -> None:
    started = await start_one(house)
    await lose_entry(house, started)

    assert await restore(house) == 1

    assert await house.redis.get(keys.holder(started.id)) == started.claim.encode()
    assert (await claim(house)).claims == []
    assert await settle(house, started)
    assert await entry(house.redis, started) is None


async def test_after_redis_lost_everything_every_job_still_runs(house: Installation) -> None:
    started = await start_one(house)
    (waiting,) = await submit(house)
    await house.redis.flushdb()
    await restore(house)
    await die(house.redis, started)

    again = {job.id: job.interruptions for job in await start(house)}

    assert again == {started.id: 1, waiting.id: 0}


async def test_an_ended_job_is_not_put_back(house: Installation) -> None:
    started = await start_one(house)
    page = await house.reader.live_page(before=None)
    await settle(house, started)

    assert await house.lifecycle.restore(page) == 0
    assert await entry(house.redis, started) is None


async def test_a_move_that_redis_missed_is_made_up_for(house: Installation, house_without_redis: Installation) -> None:
    first, second = await submit(house, order(), order())
    await house_without_redis.lifecycle.reprioritise(second.id, priority=9)

    await restore(house)

    assert await entry(house.redis, second) is None
    assert [job.id for job in await start(house)] == [second.id, first.id]


async def test_a_job_whose_priority_changed_while_it_was_claimed_leaves_nothing_behind(house: Installation) -> None:
    (job,) = await submit(house)
    claims = await claims_of(house, job)
    await house.lifecycle.reprioritise(job.id, priority=9)
    (started,) = await house.lifecycle.start(claims, worker_id=WORKER)

    await restore(house)
    await settle(house, started)
    await claim(house)

    left = await all_keys(house.redis)
    assert {key for key in left if key.startswith(keys.QUEUE) or key in {keys.LEASES, keys.CLAIMS, keys.BUSY}} == set()
