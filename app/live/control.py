"""The control channel: what workers are told while they run. May be missed; the rows are re-read anyway."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis

log = get_log()


async def tell_cancelled(redis: Redis, job_id: str) -> None:
    """Tell whichever worker runs this job that it was cancelled."""
    await redis.publish(keys.CONTROL, orjson.dumps({"cancel": job_id}))


async def tell_drain(redis: Redis, worker_id: str) -> bool:
    """Tell one worker to take no more jobs and to end with its last one; return whether any worker listened."""
    return bool(await redis.publish(keys.CONTROL, orjson.dumps({"drain": worker_id})))


async def orders(redis: Redis) -> AsyncIterator[tuple[str, str]]:
    """Yield what workers are told, from now on: ``cancel`` with a job id, ``drain`` with a worker id.

    What cannot be read is passed over: anybody may write to the channel.
    """
    async with redis.pubsub() as channel:
        await channel.subscribe(keys.CONTROL)
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None:
                for verb, subject in _read(message["data"]).items():
                    yield verb, str(subject)


def _read(raw: bytes) -> dict[str, Any]:
    try:
        order = orjson.loads(raw)
    except ValueError:
        order = None
    if not isinstance(order, dict):
        log.warning("control_message_unreadable")
        return {}
    return order
