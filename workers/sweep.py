"""The sweep: a rolling walk over every job that has not ended, which rings again what Redis has lost.

It covers the API that died between commit and ring, a Redis that came back empty, and a lease that vanished.
It only adds what is missing and never decides that a holder is dead. One worker at a time sweeps.
"""

import asyncio

from app.history.reader import Reader
from app.lifecycle import Lifecycle
from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis

log = get_log()

_LOCK_S = 15
_PAGE = 1000
_PAGE_PAUSE_S = 0.2  # between pages of one walk, so that a long backlog does not crowd out the work
_WALK_PAUSE_S = 3.0


class Sweep:
    """One worker's turn at sweeping."""

    def __init__(self, *, worker_id: str, redis: Redis, reader: Reader, lifecycle: Lifecycle) -> None:
        self._worker_id = worker_id
        self._redis = redis
        self._reader = reader
        self._lifecycle = lifecycle

    async def run(self) -> None:
        """Walk for ever, whenever the turn is this worker's. Raises when a store does not answer."""
        while True:
            if await self._has_turn():
                await self.walk()
            await asyncio.sleep(_WALK_PAUSE_S)

    async def walk(self) -> int:
        """Go once over all live jobs, young ones first; return how many were rung again."""
        restored, before = 0, None
        while page := await self._reader.live_page(before=before, limit=_PAGE):
            restored += await self._lifecycle.restore(page)
            before = page[-1].id
            if len(page) < _PAGE or not await self._has_turn():
                break
            await asyncio.sleep(_PAGE_PAUSE_S)
        if restored:
            log.warning("jobs_rung_again", count=restored)
        return restored

    async def _has_turn(self) -> bool:
        if await self._redis.set(keys.SWEEPER, self._worker_id, nx=True, ex=_LOCK_S):
            return True
        holder = await self._redis.get(keys.SWEEPER)
        if holder is None or holder.decode() != self._worker_id:
            return False
        return bool(await self._redis.expire(keys.SWEEPER, _LOCK_S))
