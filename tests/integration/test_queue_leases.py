"""Leases on a real Redis: only one that ran out is taken over, and every letting-go is fenced by its token."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.clock import to_ms
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, LetGo, Queue
from app.queue.connect import Redis, open_redis
from tests.support.claiming import (
    HOUR_MS,
    LEASE,
    RESULT,
    Renewal,
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
from tests.support.house import all_keys, reply


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = open_redis(redis_url)
    yield redis
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis, lease=LEASE, result_ttl=timedelta(seconds=60))


# --- leases ------------------------------------------------------------------------------------


async def test_a_job_whose_lease_ran_out_is_claimed_again_and_its_dead_claim_told(queue: Queue, redis: Redis) -> None:
    job = await hold(queue, token="dead")
    await expire(redis, job)

    (one,) = (await claim(queue, token="mine")).claims

    assert (one.id, one.dead, one.token) == (job.id, "dead", "mine")


async def test_a_job_whose_claim_nobody_can_read_is_found_where_it_runs(queue: Queue, redis: Redis) -> None:
    job = await hold(queue, token="dead")
    await reply(redis.hset(keys.CLAIMS, job.id, "garbage"))
    await expire(redis, job)

    assert ids(await claim(queue)) == [job.id]


async def test_a_job_whose_worker_died_returns_to_its_place(queue: Queue, redis: Redis) -> None:
    first, second = offer(due_ms=1000), offer(due_ms=2000)
    await queue.ring([first, second])
    await claim(queue, want=1, token="dead")
    await expire(redis, first)

    assert ids(await claim(queue)) == [first.id, second.id]


async def test_a_lease_that_holds_is_not_taken(queue: Queue, redis: Redis) -> None:
    dead, job = await hold(queue), await hold(queue)
    await expire(redis, dead)

    taken = await claim(queue, token="another")

    assert ids(taken) == [dead.id]
    assert await holder(redis, job) == "mine"
    assert await lease_ms(redis, job) > 0


async def test_a_dead_lease_without_an_entry_leaves_nothing(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.zrem("arq:queue:alpha:5", job.id)
    await expire(redis, job)

    await claim(queue)

    assert await all_keys(redis) <= {keys.body(job.id), keys.bell("alpha")}


async def test_a_renewal_prolongs_the_lease(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.zadd(keys.LEASES, {job.id: to_ms(await queue.now()) + 1000})
    await redis.pexpire(keys.holder(job.id), 1000)

    renewal = await renew(redis, (job.id, "mine"))

    assert renewal == Renewal(lost=[], aborted=[])
    assert await lease_ms(redis, job) > 20_000
    assert await redis.pttl(keys.holder(job.id)) > 20_000


async def test_a_renewal_makes_a_lost_lease_anew(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await lose(redis, job)

    renewal = await renew(redis, (job.id, "mine"))

    assert renewal.lost == []
    assert await holder(redis, job) == "mine"
    assert await lease_ms(redis, job) > 0
    assert await queue.let_go([LetGo(id=job.id, token="mine", verb="done")]) == [True]


async def test_a_renewal_puts_a_job_that_redis_forgot_back_as_running(queue: Queue, redis: Redis) -> None:
    job = offer()

    await renew(redis, (job.id, "mine"))

    assert (await score(redis, job) or 0) > keys.RUNNING_OFFSET
    assert ids(await claim(queue, token="another")) == []


async def test_a_renewal_takes_back_a_job_that_nobody_has_claimed_since(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await expire(redis, job)
    await queue.claim(["beta"], want=1, token="whoever")
    assert (await score(redis, job) or 0) < keys.RUNNING_OFFSET

    renewal = await renew(redis, (job.id, "mine"))

    assert renewal.lost == []
    assert ids(await claim(queue, token="another")) == []


async def test_a_renewal_reports_only_what_another_claim_holds_as_lost(queue: Queue, redis: Redis) -> None:
    mine, rescued = await hold(queue), await hold(queue, token="stale")
    await expire(redis, rescued)
    await claim(queue, token="rescuer")

    renewal = await renew(redis, (mine.id, "mine"), (rescued.id, "stale"))

    assert renewal.lost == [rescued.id]
    assert await holder(redis, rescued) == "rescuer"


async def test_a_renewal_does_not_take_a_claim_whose_own_lease_ran_out(queue: Queue, redis: Redis) -> None:
    job = await hold(queue, token="stale")
    await expire(redis, job)
    await claim(queue, token="rescuer")
    await redis.delete(keys.holder(job.id))

    assert (await renew(redis, (job.id, "stale"))).lost == [job.id]


@pytest.mark.parametrize(
    "how", [{"verb": "done", "argument": RESULT}, {"verb": "wait", "argument": 4_000_000_000_000}], ids=["done", "wait"]
)
async def test_a_late_renewal_leaves_alone_what_was_let_go(queue: Queue, redis: Redis, how: dict[str, Any]) -> None:
    job = await hold(queue)
    await queue.let_go([LetGo(id=job.id, token="mine", **how)])
    before = await all_keys(redis), await score(redis, job)

    renewal = await renew(redis, (job.id, "mine"))

    assert renewal == Renewal(lost=[job.id], aborted=[])  # in doubt: its row will tell
    assert (await all_keys(redis), await score(redis, job)) == before


async def test_a_renewal_reports_an_abort_once(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.zadd(keys.ABORTS, {job.id: 1})

    first, second = await renew(redis, (job.id, "mine")), await renew(redis, (job.id, "mine"))

    assert (first.aborted, second.aborted) == ([job.id], [])


# --- letting go --------------------------------------------------------------------------------


async def test_a_job_that_is_done_leaves_only_its_result(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await redis.set(keys.progress(job.id), b"[]")
    await redis.zadd(keys.ABORTS, {job.id: 1})

    assert await queue.let_go([LetGo(id=job.id, token="mine", verb="done", argument=RESULT)]) == [True]
    await claim(queue)

    assert await all_keys(redis) <= {keys.result(job.id), keys.bell("alpha")}
    assert await redis.get(keys.result(job.id)) == RESULT
    assert 0 < await redis.pttl(keys.result(job.id)) <= 60_000


async def test_a_job_that_waits_again_is_due_at_its_time(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    due_ms = to_ms(await queue.now()) + HOUR_MS

    await queue.let_go([LetGo(id=job.id, token="mine", verb="wait", argument=due_ms)])

    assert await score(redis, job) == due_ms
    assert (await holder(redis, job), await lease_ms(redis, job)) == (None, 0)
    assert ids(await claim(queue)) == []


async def test_a_job_given_back_keeps_its_place_and_no_dead_claim(queue: Queue) -> None:
    first, second = offer(due_ms=1000), offer(due_ms=2000)
    await queue.ring([first, second])
    await claim(queue, want=1)

    await queue.let_go([LetGo(id=first.id, token="mine", verb="wait", argument=AT_ITS_PLACE)])

    claims = await claim(queue, token="another")
    assert ids(claims) == [first.id, second.id]
    assert [one.dead for one in claims.claims] == [None, None]


async def test_a_job_lent_to_another_claim_is_held_by_that(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)

    await queue.let_go([LetGo(id=job.id, token="mine", verb="lend", argument="owner")])

    assert await holder(redis, job) == "owner"
    assert (await renew(redis, (job.id, "owner"))).lost == []
    assert (await renew(redis, (job.id, "mine"))).lost == [job.id]


async def test_a_lent_job_comes_back_as_the_borrowers_when_that_is_dead(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    await queue.let_go([LetGo(id=job.id, token="mine", verb="lend", argument="owner")])
    await expire(redis, job)

    (one,) = (await claim(queue)).claims

    assert one.dead == "owner"


@pytest.mark.parametrize(
    ("verb", "argument"), [("done", RESULT), ("wait", AT_ITS_PLACE), ("wait", 1), ("lend", "a-friend")]
)
async def test_only_the_holder_lets_go(queue: Queue, redis: Redis, verb: str, argument: bytes | int | str) -> None:
    job = await hold(queue)
    before = await score(redis, job)

    kept = await queue.let_go([LetGo(id=job.id, token="stale", verb=verb, argument=argument)])  # type: ignore[arg-type]  # each of the three

    assert kept == [False]
    assert (await score(redis, job), await holder(redis, job)) == (before, "mine")
    assert await redis.exists(keys.result(job.id)) == 0


async def test_each_of_many_is_fenced_by_its_own_token(queue: Queue) -> None:
    jobs = [await hold(queue, token=f"token-{at}") for at in range(4)]
    tokens = ["token-0", "stale", "token-2", "token-0"]

    kept = await queue.let_go(
        [LetGo(id=job.id, token=token, verb="done") for job, token in zip(jobs, tokens, strict=True)]
    )

    assert kept == [True, False, True, False]


async def test_nothing_to_ring_let_go_or_withdraw_is_no_error(queue: Queue) -> None:
    assert await queue.ring([]) == 0
    assert await queue.let_go([]) == []
    assert await queue.withdraw([]) == []


async def test_letting_go_of_the_same_job_twice_in_one_call_counts_once(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    due_ms = to_ms(await queue.now()) + HOUR_MS

    kept = await queue.let_go(
        [
            LetGo(id=job.id, token="mine", verb="wait", argument=due_ms),
            LetGo(id=job.id, token="mine", verb="done", argument=RESULT),
        ]
    )

    assert kept == [True, False]
    assert await score(redis, job) == due_ms


async def test_letting_go_twice_is_harmless(queue: Queue, redis: Redis) -> None:
    job = await hold(queue)
    item = LetGo(id=job.id, token="mine", verb="done", argument=RESULT)
    await queue.let_go([item])
    await redis.delete(keys.result(job.id))

    assert await queue.let_go([item]) == [False]
    assert await score(redis, job) is None
    assert await redis.exists(keys.result(job.id)) == 0
