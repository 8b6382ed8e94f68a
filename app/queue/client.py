"""The queue: rings jobs, claims them by priority, renews, lets go. Everything is one script call a batch.

Nothing here decides what becomes of a job; that is the row's business (``app.lifecycle``).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Literal, NamedTuple, TypeVar, cast

from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from app.clock import from_ms, to_ms
from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis
from app.queue.mend import MAX_QUARANTINED, is_wrong_type, mend
from app.queue.scripts import script_text

log = get_log()

R = TypeVar("R")

_WOKEN_S = 10  # for which a worker may be about to wait that is woken now

MAX_BATCH = 500  # jobs in one script call: Lua unpacks no more than some thousands of values
AT_ITS_PLACE = -1  # let a job wait where it stood
MAX_ID = 255  # characters of an id

_SCRIPTS = ("ring", "claim", "let_go", "withdraw", "move", "quarantine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One job to ring. ``due_ms`` 0 is now by Redis time; a ``token`` means it runs under that claim."""

    id: str
    queue: str
    priority: int
    body: bytes
    due_ms: int = 0
    token: str = ""


class Claim(NamedTuple):
    """One claimed job, held under ``token`` until the lease runs out. ``dead`` is the claim before it, if lost."""

    id: str
    queue_key: str
    token: str
    dead: str | None
    is_aborted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What one claim call brought. ``now`` is Redis time; ``next_due`` is how long until more may be due.

    ``asked_at`` is a time before the claim, by this process's monotonic clock, from which its leases may be counted.
    """

    now: datetime
    asked_at: float
    claims: list[Claim]
    next_due: timedelta | None
    has_more: bool


class LetGo(NamedTuple):
    """How to let go of a claimed job: see ``lua/let_go.lua`` for the three verbs."""

    id: str
    token: str
    verb: Literal["done", "wait", "lend"]
    argument: str | bytes | int = ""


class Entry(NamedTuple):
    """Where a job that has not ended must stand in Redis, by its row."""

    id: str
    queue: str
    priority: int
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """An entry that nobody can use, and why."""

    queue_key: str
    id: str | bytes
    reason: str
    found: bytes


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
        self._scripts = {name: redis.register_script(script_text(name)) for name in _SCRIPTS}
        self._names: set[str] = set()  # of the queues that were touched: what to look at when something is wrong

    async def ring(self, offers: Iterable[Offer], *, search: bool = False, walk: str = "") -> int:
        """Offer jobs to workers; return how many were not there yet. Harmless when late or repeated.

        With ``search``, a job that stands under another priority of its queue is not doubled but moved, or,
        when it runs, left to its holder; and one that waits for longer than its row says is brought forward.
        With the nonce of a ``walk``, return -1 if that walk is not the current one any more.
        """
        args: list[Any] = [self._lease_ms, walk, int(search)]
        for offer in offers:
            self._names.add(offer.queue)
            args += (keys.queue(offer.queue, offer.priority), offer.id, offer.due_ms, offer.token, offer.body)
        return int(await self._call("ring", args))

    async def astray(self, wanted: Sequence[Entry]) -> list[str]:
        """Return the ids that have no entry, run there without a lease, or wait there for longer than they must."""
        groups: dict[tuple[str, int], list[Entry]] = {}
        for entry in wanted:
            groups.setdefault((entry.queue, entry.priority), []).append(entry)
        self._names.update(name for name, _ in groups)

        def ask(pipe: Pipeline) -> None:
            pipe.time()
            for place, entries in groups.items():
                ids = [entry.id for entry in entries]
                pipe.zmscore(keys.queue(*place), ids)
                pipe.zmscore(keys.LEASES, ids)

        (seconds, _), *found = await self._ask_all(ask)
        return [
            entry.id
            for entries, scores, leases in zip(groups.values(), found[0::2], found[1::2], strict=True)
            for entry, score, lease in zip(entries, scores, leases, strict=True)
            if _is_astray(entry, score, lease, (seconds + 1) * 1000)
        ]

    async def claim(self, queues: Sequence[str], *, want: int, token: str, search: bool = False) -> Claims:
        """Claim up to ``want`` due jobs of these queues under ``token``, in the order they should run."""
        self._names.update(queues)
        asked_at = monotonic()
        reply = await self._call("claim", [want, self._lease_ms, token, int(search), *queues])
        return await self._read_claims(reply, token, asked_at)

    async def claim_at_bell(
        self, queues: Sequence[str], *, want: int, token: str, search: bool, at_most_s: float, name: str
    ) -> Claims:
        """Claim as :meth:`claim` does, once a bell of these queues rings, ``name`` is woken, or the time is over.

        The claim waits in Redis behind the bell: a job that rings starts one round trip earlier.
        """
        self._names.update((*queues, name))
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        pipe.blpop([keys.bell(one) for one in (*queues, name)], timeout=at_most_s)  # type: ignore[arg-type]
        pipe.evalsha(self._scripts["claim"].sha, 0, want, self._lease_ms, token, int(search), *queues)  # type: ignore[arg-type]
        asked_at = monotonic()
        began, rung, reply = await pipe.execute(raise_on_error=False)
        if is_wrong_type(rung):
            await self.mend()
        if isinstance(reply, Exception):  # the script is forgotten, or a key of a wrong type: it mends
            return await self.claim(queues, want=want, token=token, search=search)
        waited_s = reply[0] / 1000 - (began[0] + began[1] / 1e6)
        claims = await self._read_claims(reply, token, min(asked_at + waited_s, monotonic()))
        if isinstance(rung, Exception) and not is_wrong_type(rung) and not claims.claims:
            raise rung
        return claims

    async def wake(self, name: str) -> None:
        """Let a worker that waits at its bells claim at once."""

        def ask(pipe: Pipeline) -> None:
            pipe.lpush(keys.bell(name), b"1")
            pipe.expire(keys.bell(name), _WOKEN_S)

        await self._ask_all(ask)

    async def _read_claims(self, reply: Sequence[Any], token: str, asked_at: float) -> Claims:
        now_ms, next_due_ms, has_more, *rest = reply
        claims, corrupt = [], []
        for at in range(0, len(rest), 4):
            raw_id, queue_key, dead, is_aborted = rest[at], rest[at + 1].decode(), rest[at + 2], bool(rest[at + 3])
            job_id = _readable_id(raw_id)
            if job_id is None:
                corrupt.append(Corrupt(queue_key=queue_key, id=raw_id, reason="unusable id", found=raw_id))
            else:
                claims.append(Claim(job_id, queue_key, token, _readable(dead) if dead else None, is_aborted))
        if corrupt:
            await self.quarantine(corrupt)
        next_due = None if next_due_ms < 0 else timedelta(milliseconds=next_due_ms)
        return Claims(now=from_ms(now_ms), asked_at=asked_at, claims=claims, next_due=next_due, has_more=bool(has_more))

    async def let_go(self, items: Sequence[LetGo]) -> list[bool]:
        """Let go of claimed jobs, each fenced by its token; return which still were held under it."""
        args: list[Any] = [self._lease_ms, self._result_ttl_ms]
        for item in items:
            args += item
        return [bool(kept) for kept in await self._call("let_go", args)]

    async def withdraw(self, items: Sequence[tuple[str, str, int, bytes]]) -> list[bool]:
        """Take waiting jobs (id, queue, priority, arq result) out; return which were not held by anybody."""
        args: list[Any] = [self._result_ttl_ms]
        for job_id, name, priority, result in items:
            args += (keys.queue(name, priority), job_id, result)
        return [bool(gone) for gone in await self._call("withdraw", args)]

    async def move(self, job_id: str, queue: str, priority: int, *, due_ms: int | None = None) -> bool:
        """Move a waiting job to another priority, or time; return whether it was there to be moved."""
        return bool(await self._call("move", [queue, job_id, priority, "" if due_ms is None else due_ms]))

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

    async def quarantine(self, entries: Sequence[Corrupt]) -> None:
        """Take entries out that nobody can use; their beginnings are kept for people to look at, and counted."""
        args: list[Any] = [MAX_QUARANTINED]
        for entry in entries:
            args += (entry.queue_key, entry.id, entry.reason, entry.found)
        if fresh := await self._call("quarantine", args):
            log.error("entries_quarantined", count=fresh, reasons=sorted({entry.reason for entry in entries}))

    async def entries(self, name: str, priority: int, *, start: int, count: int) -> list[bytes]:
        """Return ids in the sorted set of a queue and priority, from the place ``start`` on."""
        key = keys.queue(name, priority)
        return list(await self._mending(lambda: self.redis.zrange(key, start, start + count - 1)))

    async def pause(self, name: str, *, is_paused: bool) -> None:
        """Skip a queue in every claim from now on, or take from it again and wake its workers."""

        def ask(pipe: Pipeline) -> None:
            if is_paused:
                pipe.sadd(keys.PAUSED, name)
            else:
                pipe.srem(keys.PAUSED, name)
                pipe.lpush(keys.bell(name), b"1")

        await self._ask_all(ask)

    async def paused(self) -> set[str]:
        """Return the names of the paused queues."""
        names = await self._mending(lambda: cast(Awaitable[set[bytes]], self.redis.smembers(keys.PAUSED)))
        return {name.decode(errors="replace") for name in names}

    async def mend(self) -> None:
        """Move what is of the wrong type out of the way of every script."""
        await mend(self.redis, self._names)

    async def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """Count the jobs of these queues by what they wait for."""
        now = await self.now()
        now_ms = int(now.timestamp() * 1000)
        self._names.update(queues)

        def ask(pipe: Pipeline) -> None:
            pipe.smembers(keys.PAUSED)
            for name in queues:
                for priority in keys.PRIORITIES:
                    key = keys.queue(name, priority)
                    pipe.zcount(key, "-inf", now_ms)
                    pipe.zcount(key, f"({now_ms}", f"({keys.RUNNING_OFFSET}")
                    pipe.zcount(key, keys.RUNNING_OFFSET, "+inf")
                    pipe.zrange(key, 0, 0, withscores=True)

        paused, *counts = await self._ask_all(ask)
        width = 4 * len(keys.PRIORITIES)
        return [
            _stats(name, counts[at * width : (at + 1) * width], now_ms, name.encode() in paused)
            for at, name in enumerate(queues)
        ]

    async def now(self) -> datetime:
        """Return the time of the Redis server."""
        seconds, micros = await self.redis.time()
        return from_ms(seconds * 1000 + micros // 1000)

    async def _call(self, name: str, args: Sequence[Any]) -> Any:
        return await self._mending(lambda: self._scripts[name](args=args))

    async def _ask_all(self, ask: Callable[[Pipeline], None]) -> list[Any]:
        """Send what ``ask`` puts into a pipeline; after mending into a new one, for a pipeline is empty once sent."""

        async def send() -> list[Any]:
            pipe = self.redis.pipeline(transaction=False)
            ask(pipe)
            return list(await pipe.execute())

        return await self._mending(send)

    async def _mending(self, ask: Callable[[], Awaitable[R]]) -> R:
        try:
            return await ask()
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
        await self.mend()
        return await ask()


def _is_astray(entry: Entry, score: float | None, lease: float | None, now_ms: int) -> bool:
    if score is None:
        return True
    if score >= keys.RUNNING_OFFSET:
        return lease is None
    return score > now_ms and score > to_ms(entry.due_at)


def _readable_id(raw: bytes) -> str | None:
    """Return an id that every store can hold; None for any other."""
    try:
        job_id = raw.decode()
    except UnicodeDecodeError:
        return None
    return job_id if job_id.isprintable() and 0 < len(job_id) <= MAX_ID else None


def _readable(raw: bytes) -> str | None:
    """Return the token of a dead claim; one that no row can bear is none."""
    return raw.decode(errors="replace").replace("\0", "")[:MAX_ID] or None


def _stats(name: str, counts: list[Any], now_ms: int, is_paused: bool) -> QueueStats:
    oldest = [score for first in counts[3::4] for _, score in first if 0 <= score <= now_ms]
    return QueueStats(
        name=name,
        ready=sum(counts[0::4]),
        scheduled=sum(counts[1::4]),
        running=sum(counts[2::4]),
        is_paused=is_paused,
        oldest_ready=from_ms(int(min(oldest))) if oldest else None,
    )
