"""The Redis side on a real Redis: strict priority, nothing before its time, one holder a job."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.clock import to_ms
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, LetGo, Queue
from app.queue.connect import Redis, open_redis
from tests.support.claiming import HOUR_MS, LEASE, claim, hold, holder, ids, lease_ms, offer, score
from tests.support.house import QUEUES, reply


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = open_redis(redis_url)
    yield redis
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis, lease=LEASE, result_ttl=timedelta(seconds=60))


# --- order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_jobs_come_by_priority_and_first_in_first_out_across_queues(queue: Queue, seed: int) -> None:
    dice = random.Random(seed)
    jobs = [offer(dice.choice(QUEUES), dice.randint(1, 10), due_ms=1_000 + dice.randrange(30)) for _ in range(200)]
    await queue.ring(dice.sample(jobs, len(jobs)))

    claimed: list[str] = []
    while len(claimed) < len(jobs):
        want = dice.randint(1, 40)
        batch = ids(await claim(queue, want))
        assert len(batch) == min(want, len(jobs) - len(claimed))
        claimed += batch

    oracle = sorted(jobs, key=lambda job: (-job.priority, job.due_ms, job.id))
    assert claimed == [job.id for job in oracle]


async def test_jobs_rung_without_a_due_time_come_in_the_order_they_were_rung(queue: Queue) -> None:
    jobs = [offer() for _ in range(20)]
    for job in jobs:
        await queue.ring([job])

    assert ids(await claim(queue, want=20)) == [job.id for job in jobs]


async def test_a_claim_brings_never_more_than_asked(queue: Queue) -> None:
    await queue.ring(offer(name, priority) for name in QUEUES for priority in keys.PRIORITIES)

    claims = await claim(queue, want=7)

    assert len(claims.claims) == 7
    assert claims.has_more


async def test_a_claim_says_what_it_brings_and_when(queue: Queue, redis: Redis) -> None:
    job = offer("beta", 7)
    await queue.ring([job])

    claims = await claim(queue, token="the-token")

    (one,) = claims.claims
    assert (one.id, one.queue_key, one.token) == (job.id, "arq:queue:beta:7", "the-token")
    assert (one.dead, one.is_aborted, claims.has_more) == (None, False, False)
    assert abs(to_ms(claims.now) - to_ms(await queue.now())) < 5000


async def test_only_queues_that_are_served_are_claimed(queue: Queue) -> None:
    mine, other = offer("alpha"), offer("beta")
    await queue.ring([other, mine])

    assert ids(await claim(queue, queues=["alpha"])) == [mine.id]


# --- due times ---------------------------------------------------------------------------------


async def test_a_deferred_job_is_not_claimed_before_its_time(queue: Queue) -> None:
    due_ms = to_ms(await queue.now()) + HOUR_MS
    await queue.ring([offer(due_ms=due_ms + HOUR_MS), offer("beta", 1, due_ms=due_ms)])

    claims = await claim(queue)

    assert claims.claims == []
    assert claims.next_due is not None
    assert timedelta(minutes=59) < claims.next_due <= timedelta(hours=1)


async def test_a_job_is_claimed_once_its_time_has_come(queue: Queue) -> None:
    job = offer(due_ms=to_ms(await queue.now()))
    await queue.ring([job])

    assert ids(await claim(queue)) == [job.id]


async def test_an_idle_queue_has_nothing_due(queue: Queue) -> None:
    claims = await claim(queue)

    assert (claims.claims, claims.next_due, claims.has_more) == ([], None, False)


async def test_a_claim_that_finds_nothing_tells_when_a_lease_runs_out(queue: Queue) -> None:
    await hold(queue, token="another")

    claims = await claim(queue)

    assert claims.next_due is not None
    assert LEASE - timedelta(seconds=10) < claims.next_due <= LEASE


# --- pauses ------------------------------------------------------------------------------------


async def test_a_paused_queue_is_skipped(queue: Queue, redis: Redis) -> None:
    paused, open_ = offer("alpha", 10), offer("beta", 1)
    await queue.ring([paused, open_])
    await reply(redis.sadd(keys.PAUSED, "alpha"))

    assert ids(await claim(queue)) == [open_.id]


async def test_a_pause_keeps_everything_for_later(queue: Queue, redis: Redis) -> None:
    job = offer()
    await queue.ring([job])
    await reply(redis.sadd(keys.PAUSED, "alpha"))
    await claim(queue)
    await reply(redis.srem(keys.PAUSED, "alpha"))

    assert ids(await claim(queue)) == [job.id]


# --- one holder --------------------------------------------------------------------------------


async def test_a_claimed_job_is_not_claimed_again(queue: Queue) -> None:
    await hold(queue)

    assert ids(await claim(queue, token="another")) == []


async def test_a_held_job_is_not_claimed_although_arqs_abort_put_it_back(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.zadd("arq:queue:alpha:5", {job.id: 1})

    assert ids(await claim(queue, token="another")) == []
    assert await holder(redis, job) == "mine"
    assert await score(redis, job) == 1 + keys.RUNNING_OFFSET


async def test_a_held_job_that_came_back_keeps_a_lease_that_can_run_out(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.zadd("arq:queue:alpha:5", {job.id: 1})
    await redis.zrem(keys.LEASES, job.id)

    await claim(queue, token="another")

    assert await lease_ms(redis, job) > 0


async def test_a_held_job_that_came_back_does_not_hide_those_behind_it(queue: Queue, redis: Redis) -> None:
    held, waiting = await hold(queue), offer()
    await redis.zadd("arq:queue:alpha:5", {held.id: 1})
    await queue.ring([waiting])

    first = await claim(queue, want=1)

    assert (first.claims, first.has_more) == ([], True)
    assert ids(await claim(queue, want=1)) == [waiting.id]


async def test_a_job_that_arqs_abort_names_is_claimed_as_aborted(queue: Queue, redis: Redis) -> None:
    job = offer()
    await queue.ring([job])
    await redis.zadd(keys.ABORTS, {job.id: 1})

    (one,) = (await claim(queue)).claims

    assert one.is_aborted


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("due_ms", [1, 1_700_000_000_001, 1_763_776_912_345])
async def test_a_score_comes_back_exactly_from_running(queue: Queue, redis: Redis, due_ms: int) -> None:
    job = offer(due_ms=due_ms)
    await queue.ring([job])
    await claim(queue)
    assert await score(redis, job) == due_ms + keys.RUNNING_OFFSET

    await queue.let_go([LetGo(id=job.id, token="mine", verb="wait", argument=AT_ITS_PLACE)])

    assert await score(redis, job) == due_ms


async def test_jobs_are_counted_by_what_they_wait_for(queue: Queue, redis: Redis) -> None:
    await hold(queue, priority=10)
    now_ms = to_ms(await queue.now())
    await queue.ring([offer(due_ms=now_ms - 5000), offer(priority=1), offer(due_ms=now_ms + HOUR_MS)])
    await reply(redis.sadd(keys.PAUSED, "beta"))

    alpha, beta = await queue.stats(QUEUES)

    assert (alpha.ready, alpha.scheduled, alpha.running, alpha.is_paused) == (2, 1, 1, False)
    assert alpha.oldest_ready is not None
    assert to_ms(alpha.oldest_ready) == now_ms - 5000
    assert (beta.ready, beta.scheduled, beta.running, beta.is_paused) == (0, 0, 0, True)
