"""Who is at work: each worker's heartbeat, in Redis."""

from dataclasses import asdict, dataclass
from datetime import datetime

import orjson

from app.clock import iso, to_ms, utc_now
from app.live.events import worker_event
from app.live.outbox import Outbox
from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis

log = get_log()

ALIVE_S = 15  # without a heartbeat for longer, a worker counts as gone
_FORGOTTEN_S = 600  # after which a silent worker is taken off the list, whether or not an API told of its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a worker says of itself every few seconds."""

    id: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    running: int
    processed: int
    failed: int
    rss: int  # bytes
    loop_lag: float  # seconds the event loop was late at the last beat
    started_at: datetime
    last_heartbeat: datetime


async def beat(redis: Redis, heartbeat: Heartbeat) -> None:
    """Store a heartbeat; it fades by itself."""
    value = asdict(heartbeat) | {name: iso(getattr(heartbeat, name)) for name in ("started_at", "last_heartbeat")}
    pipe = redis.pipeline(transaction=False)
    pipe.set(keys.worker(heartbeat.id), orjson.dumps(value), ex=ALIVE_S)
    pipe.zadd(keys.WORKERS, {heartbeat.id: to_ms(heartbeat.last_heartbeat)})
    await pipe.execute()


async def leave(redis: Redis, worker_id: str) -> None:
    """Take a worker that stops in good order off the list at once."""
    pipe = redis.pipeline(transaction=False)
    pipe.delete(keys.worker(worker_id))
    pipe.zrem(keys.WORKERS, worker_id)
    await pipe.execute()


async def tell_of_lost(redis: Redis, outbox: Outbox) -> None:
    """Take workers that fell silent off the list, and tell of each: whoever takes it off, and nobody else."""
    for worker_id in await _silent_workers(redis):
        if await redis.zrem(keys.WORKERS, worker_id):
            log.warning("worker_lost", worker_id=worker_id)
            outbox.post(worker_event("worker.lost", worker_id))


async def alive_workers(redis: Redis) -> list[Heartbeat]:
    """Return the workers that were heard of lately, by id; those of whose end nobody had to be told are forgotten."""
    now_ms = to_ms(utc_now())
    pipe = redis.pipeline(transaction=False)
    pipe.zremrangebyscore(keys.WORKERS, "-inf", now_ms - 1000 * _FORGOTTEN_S)
    pipe.zrangebyscore(keys.WORKERS, f"({now_ms - 1000 * ALIVE_S}", "+inf")
    _, listed = await pipe.execute()
    ids = sorted(raw.decode(errors="replace") for raw in listed)
    found = await redis.mget([keys.worker(worker_id) for worker_id in ids]) if ids else []
    beats = [_heartbeat(raw) for raw in found if raw is not None]
    return [beat for beat in beats if beat is not None]


async def _silent_workers(redis: Redis) -> list[str]:
    too_old = to_ms(utc_now()) - 1000 * ALIVE_S
    ids = [raw.decode(errors="replace") for raw in await redis.zrangebyscore(keys.WORKERS, "-inf", too_old)]
    beats = await redis.mget([keys.worker(worker_id) for worker_id in ids]) if ids else []
    return [worker_id for worker_id, beat in zip(ids, beats, strict=True) if beat is None]


def _heartbeat(raw: bytes) -> Heartbeat | None:
    """Read what :func:`beat` wrote; None for anything else, which counts as nobody."""
    try:
        value = orjson.loads(raw)
        known = {name: value[name] for name in Heartbeat.__dataclass_fields__ if name in value}
        times = {name: datetime.fromisoformat(value[name]) for name in ("started_at", "last_heartbeat")}
        return Heartbeat(**(known | times))
    except (ValueError, TypeError, KeyError):
        return None
