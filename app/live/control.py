"""The control channel: what workers are told while they run. May be missed; the rows are re-read anyway."""

from collections.abc import AsyncIterator

import orjson

from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis

log = get_log()


async def tell_cancelled(redis: Redis, job_id: str) -> None:
    """Tell whichever worker runs this job that it was cancelled."""
    await redis.publish(keys.CONTROL, orjson.dumps({"cancel": job_id}))


async def cancellations(redis: Redis) -> AsyncIterator[str]:
    """Yield the ids of running jobs that were cancelled, from now on."""
    async with redis.pubsub() as channel:
        await channel.subscribe(keys.CONTROL)
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None and (job_id := _cancelled(message["data"])):
                yield job_id


def _cancelled(raw: bytes) -> str | None:
    """Return the id that a message names; None for what is no such message."""
    try:
        match orjson.loads(raw):
            case {"cancel": str(job_id)}:
                return job_id
    except ValueError:
        log.warning("control_message_unreadable")
    return None
