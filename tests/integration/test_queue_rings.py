"""Rings on a real Redis wake one worker and put nothing there twice; what is held is neither withdrawn nor moved."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic

import pytest
from redis import Redis as BlockingRedis

from app.clock import from_ms, new_id, to_ms
from app.queue import keys
from app.queue.client import Claims, Entry, LetGo, Offer, Queue
from app.queue.connect import Redis, open_redis
from app.queue.scripts import script_text
from tests.support.claiming import (
    BODY,
    HOUR_MS,
    LEASE,
    RESULT,
    claim,
    expire,
    hold,
    holder,
    ids,
    lease_ms,
    lose,
    offer,
    renew,
    score,
)
from tests.support.house import QUEUES, all_keys, reply
from tests.support.waiting import eventually


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = open_redis(redis_url)
    yield redis
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
async def queue(redis: Redis) -> Queue:
    await redis.script_load(script_text("claim"))  # as the first claim does
    return Queue(redis, lease=LEASE, result_ttl=timedelta(seconds=60))


# --- withdrawing and moving --------------------------------------------------------------------


async def test_a_waiting_job_is_withdrawn_with_its_result(queue: Queue, redis: Redis) -> None:
    job = offer()
    await queue.ring([job])
    await redis.zadd(keys.ABORTS, {job.id: 1})  # arq asked for its end before

    assert await queue.withdraw([(job.id, "alpha", 5, RESULT)]) == [True]
    assert ids(await claim(queue)) == []
    assert await all_keys(redis) <= {keys.result(job.id), keys.bell("alpha")}
    assert await redis.get(keys.result(job.id)) == RESULT


async def test_a_held_job_is_not_withdrawn(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    before = await score(redis, job)

    assert await queue.withdraw([(job.id, "alpha", 5, RESULT)]) == [False]
    assert (await score(redis, job), await holder(redis, job)) == (before, "mine")
    assert await redis.exists(keys.body(job.id)) == 1
    assert await redis.exists(keys.result(job.id)) == 0


async def test_a_moved_job_keeps_its_score_and_is_found_at_its_new_priority(queue: Queue, redis: Redis) -> None:
    job, rival = offer(due_ms=1234), offer(priority=8)
    await queue.ring([job, rival])

    assert await queue.move(job.id, "alpha", 9)

    assert (await score(redis, job), await score(redis, job, priority=9)) == (None, 1234)
    assert ids(await claim(queue)) == [job.id, rival.id]


async def test_a_move_to_where_it_is_changes_nothing(queue: Queue, redis: Redis) -> None:
    job = offer(due_ms=1234)
    await queue.ring([job])

    assert not await queue.move(job.id, "alpha", 5)
    assert await score(redis, job) == 1234


async def test_a_held_job_is_not_moved(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)

    assert not await queue.move(job.id, "alpha", 9)
    assert await score(redis, job, priority=9) is None


async def test_what_is_not_there_is_not_moved(queue: Queue, redis: Redis) -> None:
    assert not await queue.move(new_id(), "alpha", 9)
    assert await all_keys(redis) == set()


# --- ringing -----------------------------------------------------------------------------------


async def test_a_ring_says_how_many_jobs_were_missing(queue: Queue) -> None:
    job = offer()

    assert (await queue.ring([job]), await queue.ring([job, offer()])) == (1, 1)


async def test_a_repeated_ring_leaves_a_waiting_job_where_it_is(queue: Queue, redis: Redis) -> None:
    job = offer(due_ms=1234)
    await queue.ring([job])

    await queue.ring([Offer(id=job.id, queue="alpha", priority=5, body=b"other", due_ms=9999)])

    assert await score(redis, job) == 1234
    assert await queue.bodies([job.id]) == [BODY]


async def test_a_ring_while_the_job_runs_is_harmless(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    before = await score(redis, job)

    await queue.ring([job])

    assert (await score(redis, job), await holder(redis, job)) == (before, "mine")
    assert ids(await claim(queue, token="another")) == []


async def test_a_running_job_that_redis_lost_is_rung_under_its_claim(queue: Queue, redis: Redis) -> None:
    job = offer(due_ms=1234, token="the-claim")

    await queue.ring([job])

    assert await score(redis, job) == 1234 + keys.RUNNING_OFFSET
    assert (await holder(redis, job), await lease_ms(redis, job) > 0) == ("the-claim", True)
    assert ids(await claim(queue)) == []
    assert (await renew(redis, (job.id, "the-claim"))).lost == []


async def test_a_running_job_whose_worker_is_gone_too_is_claimed_after_its_lease(queue: Queue, redis: Redis) -> None:
    job = offer(due_ms=1234, token="the-claim")
    await queue.ring([job])
    await expire(redis, job)

    (one,) = (await claim(queue)).claims

    assert (one.id, one.dead) == (job.id, "the-claim")


async def test_a_running_job_without_a_lease_gets_one_from_a_ring(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await lose(redis, job)

    await queue.ring([job])

    assert await lease_ms(redis, job) > 0


async def test_what_redis_lacks_is_told(queue: Queue, redis: Redis) -> None:
    waiting, running, without_lease, absent = offer(), await hold(queue), await hold(queue), offer("beta")
    await queue.ring([waiting])
    await redis.zrem(keys.LEASES, without_lease.id)

    later = offer(due_ms=to_ms(await queue.now()) + 60_000)
    await queue.ring([later])
    wanted = [
        Entry(id=job.id, queue=job.queue, priority=job.priority, due_at=from_ms(job.due_ms or 1))
        for job in (waiting, running, without_lease, absent, later)
    ]

    assert set(await queue.astray(wanted)) == {without_lease.id, absent.id}


# --- bells and the busy set --------------------------------------------------------------------


def at_bell(queue: Queue, *, at_most_s: float = 5) -> asyncio.Task[Claims]:
    """Wait at the bells of all queues, and at one called ``me``."""
    waiting = queue.claim_at_bell(QUEUES, want=10, token="mine", search=False, at_most_s=at_most_s, name="me")
    return asyncio.create_task(waiting)


async def waits(redis: Redis) -> bool:
    """Whether somebody waits at a bell."""
    return int((await redis.info("clients"))["blocked_clients"]) > 0


async def test_a_ring_wakes_a_worker_that_waits_with_the_job(queue: Queue, redis: Redis) -> None:
    waiting, job = at_bell(queue), offer("beta")
    await eventually(lambda: waits(redis))
    await queue.ring([job])

    assert ids(await waiting) == [job.id]
    assert await holder(redis, job) == "mine"


async def test_a_lease_from_the_bell_counts_from_its_claim(queue: Queue, redis: Redis, redis_url: str) -> None:
    waiting = at_bell(queue)
    await eventually(lambda: waits(redis))
    await asyncio.sleep(0.5)
    before = monotonic()
    with BlockingRedis.from_url(redis_url) as other:
        other.lpush(keys.bell("alpha"), "1")
    after = monotonic()
    time.sleep(0.3)  # noqa: ASYNC251  # this process is held up before it reads the answer

    assert before - 0.1 <= (await waiting).asked_at <= after


async def test_a_worker_that_waits_at_its_bells_is_woken(queue: Queue, redis: Redis) -> None:
    waiting = at_bell(queue)
    await eventually(lambda: waits(redis))
    await queue.wake("me")

    async with asyncio.timeout(2):
        assert ids(await waiting) == []
    assert keys.bell("me") not in await all_keys(redis)


async def test_a_worker_that_is_woken_too_late_leaves_nothing_behind(queue: Queue, redis: Redis) -> None:
    await queue.wake("me")

    assert 0 < await redis.ttl(keys.bell("me")) <= 60


async def test_a_claim_at_the_bell_outlives_a_redis_that_forgot_its_scripts(queue: Queue, redis: Redis) -> None:
    job = offer()
    await queue.ring([job])
    await redis.script_flush()

    assert ids(await at_bell(queue)) == [job.id]


@pytest.mark.parametrize("key", [keys.bell("alpha"), keys.bell("me"), keys.LEASES])
async def test_a_key_of_the_wrong_type_keeps_nobody_from_the_bell(queue: Queue, redis: Redis, key: str) -> None:
    job = offer()
    await queue.ring([job])
    await redis.delete(keys.bell("alpha"), key)
    await redis.set(key, "no list")

    assert ids(await at_bell(queue, at_most_s=0.1)) == [job.id]
    assert await redis.type(key) != b"string"


async def test_many_rings_are_one_token(queue: Queue, redis: Redis) -> None:
    await queue.ring([offer() for _ in range(5)])

    assert await reply(redis.llen(keys.bell("alpha"))) == 1


async def test_a_full_claim_rings_on(queue: Queue, redis: Redis) -> None:
    await queue.ring([offer(), offer()])
    await redis.delete(keys.bell("alpha"))

    await claim(queue, want=1)

    assert await reply(redis.llen(keys.bell("alpha"))) == 1


async def test_a_claim_that_took_everything_does_not_ring(queue: Queue, redis: Redis) -> None:
    await queue.ring([offer()])
    await redis.delete(keys.bell("alpha"))

    await claim(queue, want=2)

    assert await reply(redis.llen(keys.bell("alpha"))) == 0


async def test_a_worker_waits_no_longer_than_it_says_and_then_claims(queue: Queue, redis: Redis) -> None:
    job = offer()
    await queue.ring([job])
    await redis.delete(keys.bell("alpha"))  # somebody else was woken, and died

    assert ids(await at_bell(queue, at_most_s=0.01)) == [job.id]


async def test_an_idle_claim_empties_the_busy_set_and_a_ring_fills_it(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await queue.let_go([LetGo(id=job.id, token="mine", verb="done")])
    await claim(queue)
    assert await reply(redis.smembers(keys.BUSY)) == set()

    await queue.ring([offer("beta", 3)])

    assert await reply(redis.smembers(keys.BUSY)) == {b"arq:queue:beta:3"}


async def test_a_queue_with_deferred_or_running_jobs_stays_busy(queue: Queue, redis: Redis) -> None:
    await hold(queue)
    await queue.ring([offer("beta", due_ms=to_ms(await queue.now()) + HOUR_MS)])

    await claim(queue)
    await claim(queue)

    assert await reply(redis.smembers(keys.BUSY)) == {b"arq:queue:alpha:5", b"arq:queue:beta:5"}


@pytest.mark.parametrize("is_found", [True, False])
async def test_what_a_stock_client_put_there_is_found_by_a_search(queue: Queue, redis: Redis, is_found: bool) -> None:
    await redis.zadd("arq:queue:alpha:7", {"theirs": 1})

    claims = await queue.claim(QUEUES, want=1, token="mine", search=is_found)

    assert ids(claims) == ["theirs"] * is_found
