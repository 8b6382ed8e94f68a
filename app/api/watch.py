"""Looks after the workers: the last one that dies has no other to tell of it, and who follows follows here."""

import asyncio

from app.live.outbox import Outbox
from app.live.workers import tell_of_lost
from app.queue.connect import Redis

_EVERY_S = 5.0


async def watch_workers(redis: Redis, outbox: Outbox) -> None:
    """Tell of workers that fell silent, for ever. Raises when Redis does not answer."""
    while True:
        await tell_of_lost(redis, outbox)
        await asyncio.sleep(_EVERY_S)
