"""A worker's heartbeat: what it says of itself every few seconds, for whoever looks after it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import psutil
from redis.exceptions import ResponseError

from app.interpreter import give_back_memory
from app.live.events import worker_event
from app.live.outbox import Outbox
from app.live.workers import Heartbeat, beat, leave
from app.log import get_log
from app.queue.connect import OUTAGES, Redis

log = get_log()

BEAT_S = 4.0
_FIRST_S = 2.0  # for Redis to answer the first of them
_SAMPLE_S = 0.25  # a loop that is held up for longer than this between two beats shows in the next one


class Pulse:
    """Beats for one worker; ``describe`` makes the heartbeat of its resident bytes and its loop's lag in seconds."""

    def __init__(
        self, redis: Redis, outbox: Outbox, worker_id: str, describe: Callable[[int, float], Heartbeat]
    ) -> None:
        self._redis = redis
        self._outbox = outbox
        self._worker_id = worker_id
        self._describe = describe
        self._process = psutil.Process()
        self._was_told = False

    async def start(self) -> None:
        """Beat before the first job runs, which may ask who is there; with Redis away, :meth:`run` will."""
        with suppress(*OUTAGES, ResponseError):
            async with asyncio.timeout(_FIRST_S):
                await self._beat(0.0)

    async def run(self) -> None:
        """Beat for ever, and give back what work has left once a beat finds none. Raises when Redis does not answer."""
        lag_s, tidied = 0.0, 0
        while True:
            said = await self._beat(lag_s)
            if not said.running and said.processed != tidied:
                give_back_memory()
                tidied = said.processed
            lag_s = await _worst_lag_s()

    async def _beat(self, lag_s: float) -> Heartbeat:
        said = self._describe(self._process.memory_info().rss, lag_s)
        await beat(self._redis, said)
        if not self._was_told:
            self._was_told = True
            self._outbox.post(worker_event("worker.started", self._worker_id))
        return said

    async def stop(self) -> None:
        """Sign off."""
        try:
            await leave(self._redis, self._worker_id)
            self._outbox.post(worker_event("worker.stopped", self._worker_id))
        except OUTAGES as error:
            log.warning("worker_not_signed_off", reason=str(error))


async def _worst_lag_s() -> float:
    """Watch the event loop until the next beat; return by how much it was late at the worst."""
    until, worst_s = monotonic() + BEAT_S, 0.0
    while (before := monotonic()) < until:
        await asyncio.sleep(_SAMPLE_S)
        worst_s = max(worst_s, monotonic() - before - _SAMPLE_S)
    return worst_s
