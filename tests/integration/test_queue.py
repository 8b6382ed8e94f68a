"""The Redis side on a real Redis: strict priority, one holder a job, every letting-go fenced by its token."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from app.clock import from_ms, new_id, to_ms
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, Claims, Entry, LetGo, Offer, Queue
from app.queue.connect import Redis, open_redis
from app.queue.doorbell import Doorbell
from app.queue.scripts import script_text
from tests.support.house import QUEUES, all_keys, reply

LEASE = timedelta(seconds=30)
HOUR_MS = 3_600_000
BODY = b'{"f":"test.note","a":[],"k":{}}'
RESULT = b'{"r":1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a renewal reported."""

    lost: list[str]
    aborted: list[str]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = open_redis(redis_url)
    yield redis
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis, lease=LEASE, result_ttl=timedelta(seconds=60))


def offer(queue: str = "alpha", priority: int = 5, *, due_ms: int = 0, token: str = "") -> Offer:
    return Offer(id=new_id(), queue=queue, priority=priority, body=BODY, due_ms=due_ms, token=token)


async def claim(queue: Queue, want: int = 10, *, token: str = "mine", queues: Sequence[str] = QUEUES) -> Claims:
    return await queue.claim(queues, want=want, token=token)


async def hold(queue: Queue, *, token: str = "mine", priority: int = 5) -> Offer:
    """Ring one job and claim it."""
    job = offer(priority=priority)
    await queue.ring([job])
    assert ids(await claim(queue, token=token)) == [job.id]
    return job


async def renew(redis: Redis, *held: tuple[str, str], key: str = "arq:queue:alpha:5") -> Renewal:
    args = [part for job_id, token in held for part in (job_id, key, token)]
    lost, aborted = await redis.register_script(script_text("renew"))(args=[30_000, *args])
    return Renewal(lost=[raw.decode() for raw in lost], aborted=[raw.decode() for raw in aborted])


async def expire(redis: Redis, job: Offer) -> None:
    """Let a job's lease run out while other workers live."""
    await redis.set(keys.CLOCK, (await redis.time())[0] * 1000)
    await redis.zadd(keys.LEASES, {job.id: 1})
    await redis.delete(keys.holder(job.id))


async def lose(redis: Redis, job: Offer) -> None:
    """Take a lease away without a trace, as a Redis that came back with old data would."""
    await redis.zrem(keys.LEASES, job.id)
    await reply(redis.hdel(keys.CLAIMS, job.id))
    await redis.delete(keys.holder(job.id))


async def score(redis: Redis, job: Offer, priority: int | None = None) -> float | None:
    found: float | None = await redis.zscore(keys.queue(job.queue, priority or job.priority), job.id)
    return found


async def lease_ms(redis: Redis, job: Offer) -> float:
    """Return how long a job's lease still holds, 0 when there is none."""
    deadline = await redis.zscore(keys.LEASES, job.id)
    seconds, micros = await redis.time()
    return 0.0 if deadline is None else deadline - seconds * 1000 - micros / 1000


async def holder(redis: Redis, job: Offer) -> str | None:
    raw = await redis.get(keys.holder(job.id))
    return None if raw is None else raw.decode()


def ids(claims: Claims) -> list[str]:
    return [claim.id for claim in claims.claims]


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


async def test_a_ring_wakes_a_worker_that_waits(queue: Queue, redis: Redis) -> None:
    await queue.ring([offer("beta")])

    assert await Doorbell(redis, QUEUES).wait(at_most_s=5) == keys.bell("beta")


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


async def test_what_a_worker_cannot_use_it_passes_on(redis: Redis) -> None:
    doorbell = Doorbell(redis, ["alpha"])
    await doorbell.pass_on(keys.bell("alpha"))

    assert await doorbell.wait(at_most_s=5) == keys.bell("alpha")


async def test_a_worker_waits_no_longer_than_it_says(redis: Redis) -> None:
    assert await Doorbell(redis, ["alpha"]).wait(at_most_s=0.01) is None


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
