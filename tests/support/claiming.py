"""The steps of a job on a queue without a row: offered, claimed, held, renewed, lost; and what Redis says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.clock import new_id
from app.queue import keys
from app.queue.client import Claims, Offer, Queue
from app.queue.connect import Redis
from app.queue.scripts import script_text
from tests.support.house import QUEUES, reply

LEASE = timedelta(seconds=30)
HOUR_MS = 3_600_000
BODY = b'{"f":"test.note","a":[],"k":{}}'
RESULT = b'{"r":1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a renewal reported."""

    lost: list[str]
    aborted: list[str]


def offer(queue: str = "alpha", priority: int = 5, *, due_ms: int = 0, token: str = "") -> Offer:
    """Return a job that is about to be rung."""
    return Offer(id=new_id(), queue=queue, priority=priority, body=BODY, due_ms=due_ms, token=token)


async def claim(queue: Queue, want: int = 10, *, token: str = "mine", queues: Sequence[str] = QUEUES) -> Claims:
    """Claim what is due under a token."""
    return await queue.claim(queues, want=want, token=token)


async def hold(queue: Queue, *, token: str = "mine", priority: int = 5) -> Offer:
    """Ring one job and claim it."""
    job = offer(priority=priority)
    await queue.ring([job])
    assert ids(await claim(queue, token=token)) == [job.id]
    return job


async def renew(redis: Redis, *held: tuple[str, str], key: str = "arq:queue:alpha:5") -> Renewal:
    """Renew leases, each a job's id and the token that holds it."""
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
    """Return the score of a job at a priority, its own if none is named; None if it is not there."""
    found: float | None = await redis.zscore(keys.queue(job.queue, priority or job.priority), job.id)
    return found


async def lease_ms(redis: Redis, job: Offer) -> float:
    """Return how long a job's lease still holds, 0 when there is none."""
    deadline = await redis.zscore(keys.LEASES, job.id)
    seconds, micros = await redis.time()
    return 0.0 if deadline is None else deadline - seconds * 1000 - micros / 1000


async def holder(redis: Redis, job: Offer) -> str | None:
    """Return the token that holds a job, None if nobody does."""
    raw = await redis.get(keys.holder(job.id))
    return None if raw is None else raw.decode()


def ids(claims: Claims) -> list[str]:
    """Return the ids of what was claimed, in its order."""
    return [claim.id for claim in claims.claims]
