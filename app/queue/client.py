"""The queue: rings jobs, claims them by priority, renews, lets go. Everything is one script call a batch.

Nothing here decides what becomes of a job; that is the row's business (``app.lifecycle``).
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from app.clock import from_ms
from app.queue import keys
from app.queue.connect import Redis
from app.queue.scripts import script_text

MAX_BATCH = 500  # jobs in one script call: Lua unpacks no more than some thousands of values
AT_ITS_PLACE = -1  # let a job wait where it stood


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One job to ring. ``due_ms`` 0 is now by Redis time; a ``token`` means it runs under that claim."""

    id: str
    queue: str
    priority: int
    body: bytes
    due_ms: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claimed job, held under ``token`` until the lease runs out. ``dead`` is the claim before it, if lost."""

    id: str
    queue_key: str
    token: str
    dead: str | None
    is_aborted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What one claim call brought. ``now`` is Redis time; ``next_due`` is how long until more may be due."""

    now: datetime
    claims: list[Claim]
    next_due: timedelta | None
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """How to let go of a claimed job: see ``lua/let_go.lua`` for the three verbs."""

    id: str
    token: str
    verb: Literal["done", "wait", "lend"]
    argument: str | bytes | int = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How many jobs of a queue wait, are scheduled, and run."""

    name: str
    ready: int
    scheduled: int
    running: int
    is_paused: bool
    oldest_ready: datetime | None


class Queue:
    """The Redis side of all queues. Methods raise redis-py's errors when Redis does not answer."""

    def __init__(self, redis: Redis, *, lease: timedelta, result_ttl: timedelta) -> None:
        self.redis = redis
        self._lease_ms = int(lease.total_seconds() * 1000)
        self._result_ttl_ms = int(result_ttl.total_seconds() * 1000)
        self._scripts = {
            name: redis.register_script(script_text(name)) for name in ("ring", "claim", "let_go", "withdraw", "move")
        }

    async def ring(self, offers: Iterable[Offer], *, search: bool = False) -> int:
        """Offer jobs to workers; return how many were not there yet. Harmless when late or repeated.

        With ``search``, a job that stands under another priority of its queue is not doubled but moved, or,
        when it runs, left to its holder.
        """
        args: list[Any] = [self._lease_ms, int(search)]
        for offer in offers:
            args += (keys.queue(offer.queue, offer.priority), offer.id, offer.due_ms, offer.token, offer.body)
        return int(await self._scripts["ring"](args=args))

    async def missing(self, wanted: Sequence[tuple[str, str, int]]) -> list[str]:
        """Return the ids out of (id, queue, priority) that have no entry in Redis, or run there without a lease."""
        groups: dict[str, list[str]] = {}
        for job_id, name, priority in wanted:
            groups.setdefault(keys.queue(name, priority), []).append(job_id)
        pipe = self.redis.pipeline(transaction=False)
        for key, ids in groups.items():
            pipe.zmscore(key, ids)
            pipe.zmscore(keys.LEASES, ids)
        found = await pipe.execute()
        return [
            job_id
            for ids, scores, leases in zip(groups.values(), found[0::2], found[1::2], strict=True)
            for job_id, score, lease in zip(ids, scores, leases, strict=True)
            if score is None or (float(score) >= keys.RUNNING_OFFSET and lease is None)
        ]

    async def claim(self, queues: Sequence[str], *, want: int, token: str, search: bool = False) -> Claims:
        """Claim up to ``want`` due jobs of these queues under ``token``, in the order they should run."""
        reply = await self._scripts["claim"](args=[want, self._lease_ms, token, int(search), *queues])
        now_ms, next_due_ms, has_more, *rest = reply
        claims = [
            Claim(
                id=rest[at].decode(),
                queue_key=rest[at + 1].decode(),
                token=token,
                dead=rest[at + 2].decode() or None,
                is_aborted=bool(rest[at + 3]),
            )
            for at in range(0, len(rest), 4)
        ]
        next_due = None if next_due_ms < 0 else timedelta(milliseconds=next_due_ms)
        return Claims(now=from_ms(now_ms), claims=claims, next_due=next_due, has_more=bool(has_more))

    async def let_go(self, items: Sequence[LetGo]) -> list[bool]:
        """Let go of claimed jobs, each fenced by its token; return which still were held under it."""
        args: list[Any] = [self._lease_ms, self._result_ttl_ms]
        for item in items:
            args += (item.id, item.token, item.verb, item.argument)
        return [bool(kept) for kept in await self._scripts["let_go"](args=args)]

    async def withdraw(self, items: Sequence[tuple[str, str, int, bytes]]) -> list[bool]:
        """Take waiting jobs (id, queue, priority, arq result) out; return which were not held by anybody."""
        args: list[Any] = [self._result_ttl_ms]
        for job_id, name, priority, result in items:
            args += (keys.queue(name, priority), job_id, result)
        return [bool(gone) for gone in await self._scripts["withdraw"](args=args)]

    async def move(self, job_id: str, queue: str, priority: int, *, due_ms: int | None = None) -> bool:
        """Move a waiting job to another priority, or time; return whether it was there to be moved."""
        return bool(await self._scripts["move"](args=[queue, job_id, priority, "" if due_ms is None else due_ms]))

    async def claimed(self) -> dict[str, str]:
        """Return the token of every claim that is held, by the id of its job."""
        claims = await cast(Awaitable[dict[bytes, bytes]], self.redis.hgetall(keys.CLAIMS))
        return {job_id.decode(): claim.decode().rpartition("|")[2] for job_id, claim in claims.items()}

    async def forget_results(self, ids: Sequence[str]) -> None:
        """Delete the results that quick readers would find."""
        if ids:
            await self.redis.delete(*map(keys.result, ids))

    async def bodies(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the stored bodies of these jobs, None where there is none."""
        return list(await self.redis.mget([keys.body(job_id) for job_id in ids])) if ids else []

    async def quarantine(self, job_id: str, raw: bytes) -> None:
        """Keep a body that nobody could read, for people to look at."""
        await cast(Awaitable[int], self.redis.hset(keys.QUARANTINE, mapping={job_id: raw}))

    async def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """Count the jobs of these queues by what they wait for."""
        now = await self.now()
        now_ms = int(now.timestamp() * 1000)
        pipe = self.redis.pipeline(transaction=False)
        pipe.smembers(keys.PAUSED)
        for name in queues:
            for priority in keys.PRIORITIES:
                key = keys.queue(name, priority)
                pipe.zcount(key, "-inf", now_ms)
                pipe.zcount(key, f"({now_ms}", f"({keys.RUNNING_OFFSET}")
                pipe.zcount(key, keys.RUNNING_OFFSET, "+inf")
                pipe.zrange(key, 0, 0, withscores=True)
        paused, *counts = await pipe.execute()
        width = 4 * len(keys.PRIORITIES)
        return [
            _stats(name, counts[at * width : (at + 1) * width], now_ms, name.encode() in paused)
            for at, name in enumerate(queues)
        ]

    async def now(self) -> datetime:
        """Return the time of the Redis server."""
        seconds, micros = await self.redis.time()
        return from_ms(seconds * 1000 + micros // 1000)


def _stats(name: str, counts: list[Any], now_ms: int, is_paused: bool) -> QueueStats:
    oldest = [score for first in counts[3::4] for _, score in first if score <= now_ms]
    return QueueStats(
        name=name,
        ready=sum(counts[0::4]),
        scheduled=sum(counts[1::4]),
        running=sum(counts[2::4]),
        is_paused=is_paused,
        oldest_ready=from_ms(int(min(oldest))) if oldest else None,
    )
