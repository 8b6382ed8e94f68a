"""Publishes what is only shown: events, progress, totals. Never makes its caller wait, never fails it.

Posts are written in order, in one pipeline for all that came meanwhile. If Redis stays out, the oldest are
dropped, and a mark in their place tells followers that something is missing; the end of a job they learn from its row.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from redis.exceptions import ResponseError

from app.live.events import MAX_EVENTS, Event, dump_event, lost_event
from app.live.progress import TTL_S, Progress, dump_progress
from app.live.totals import Tally, fields_of
from app.log import get_log
from app.queue import keys
from app.queue.connect import OUTAGES, Redis
from app.queue.mend import is_wrong_type, mend
from app.queue.scripts import script_text

log = get_log()

_MAX_WAITING = 20_000
_BATCH = 500
_PAUSE_S = 0.5

Post = tuple[Event | bytes | None, Tally | None]  # an event may come as it stands in the stream


class Outbox:
    """The publishing half of ``app.live``. One instance a process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._publish = redis.register_script(script_text("publish"))
        self._waiting: deque[Post] = deque(maxlen=_MAX_WAITING)
        self._losses = self._told_losses = 0  # how often events were dropped; how much of that a mark has told
        self._writer: asyncio.Task[None] | None = None  # shared by all posters, who must not wait for it

    def post(self, event: Event | None = None, tally: Tally | None = None) -> None:
        """Publish an event, count an end, or both, soon."""
        self.post_all([(event, tally)])

    def post_all(self, posts: Iterable[Post]) -> None:
        """Publish and count many, in order, soon."""
        fresh = list(posts)
        self._losses += len(self._waiting) + len(fresh) > _MAX_WAITING
        self._waiting.extend(fresh)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what still waits, for at most two seconds."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=2)
            self._writer.cancel()

    async def _write_all(self) -> None:
        await asyncio.sleep(0)  # what is told of goes first: a job that was just started, a claim for a free slot
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._write(batch)
            except OUTAGES as error:
                log.warning("events_delayed", waiting=len(batch) + len(self._waiting), reason=str(error))
                self._put_back(batch)
                await asyncio.sleep(_PAUSE_S)
            except ResponseError as error:  # something that is not ours stands under our keys, perhaps
                if is_wrong_type(error) and await mend(self._redis, ()):
                    self._put_back(batch)
                else:
                    self._losses += 1
                    log.error("events_lost", count=len(batch), reason=str(error))

    def _put_back(self, batch: list[Post]) -> None:
        """Let posts wait again, the youngest of them where there is no room for all."""
        room = _MAX_WAITING - len(self._waiting)
        self._losses += room < len(batch)
        self._waiting.extendleft(reversed(batch[len(batch) - min(room, len(batch)) :]))

    async def _write(self, batch: list[Post]) -> None:
        events = [event for event, _ in batch if event is not None]
        losses = self._losses
        if losses > self._told_losses:
            events.insert(0, lost_event())
        dumped = [event if isinstance(event, bytes) else dump_event(event) for event in events]
        await self._publish(args=[MAX_EVENTS, *dumped])
        self._told_losses = losses
        pipe = self._redis.pipeline(transaction=False)
        for event in events:
            if isinstance(event, Event) and event.type == "task.progress":
                pipe.set(keys.progress(event.job_id), dump_progress(_progress(event)), ex=TTL_S)
        for field, count in fields_of(tally for _, tally in batch if tally is not None).items():
            pipe.hincrby(keys.TOTALS, field, count)
        await pipe.execute()


def _progress(event: Event) -> Progress:
    return Progress(attempt=event.attempt, percent=event.progress, message=event.message, stage=event.stage)
