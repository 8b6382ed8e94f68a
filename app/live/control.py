"""The control channel: what workers are told while they run. May be missed; the rows are re-read anyway."""

from collections.abc import AsyncIterator

import orjson

from app.queue import keys
from app.queue.connect import Redis


async def tell_cancelled(redis: Redis, job_id: str) -> None:
    """Tell whichever worker runs this job that it was cancelled."""
    await redis.publish(keys.CONTROL, orjson.dumps({"cancel": job_id}))


async def tell_drain(redis: Redis, worker_id: str) -> None:
    """Tell a worker to take nothing more, and to stop once what it runs has ended."""
    await redis.publish(keys.CONTROL, orjson.dumps({"drain": worker_id}))


async def cancellations(redis: Redis) -> AsyncIterator[str]:
    """Yield the ids of running jobs that were cancelled, from now on."""
    async with redis.pubsub() as channel:
        await channel.subscribe(keys.CONTROL)
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None and (job_id := orjson.loads(message["data"]).get("cancel")):
                yield str(job_id)
