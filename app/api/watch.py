"""Looks after the workers: the last one that dies has no other to tell of it, and who follows follows here."""

import asyncio

from app.live.outbox import Outbox
from app.live.workers import tell_of_lost
from app.log import get_log
from app.queue.connect import OUTAGES, Redis

log = get_log()

_EVERY_S = 5.0


async def watch_workers(redis: Redis, outbox: Outbox) -> None:
    """Tell of workers that fell silent, for ever."""
    while True:
        try:
            await tell_of_lost(redis, outbox)
        except OUTAGES as error:
            log.debug("workers_not_watched", reason=str(error))
        await asyncio.sleep(_EVERY_S)
