"""The hub: one reader of the event stream for all followers in this process. Imported by the API alone.

It reads only while somebody follows. What the stream may have lost (Redis was out, the event was trimmed)
is made good by reading the rows of followed jobs again every so often.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from app.errors import Unavailable
from app.history.reader import Reader
from app.history.rows import Job
from app.live.events import Event, Published, ending_of, follow, last_position
from app.log import get_log
from app.queue.connect import OUTAGES, Redis

log = get_log()

_MAX_WAITING = 100  # events; progress is coalesced and never fills it
_READING_S = 1.0  # how long a new follower waits for the reader; without it there are still the rows
_PAUSE_S = 0.5
_ROWS = 1000


class TooSlow(Exception):
    """A follower does not take its events."""


class Follower:
    """What one client has yet to be told of one job."""

    def __init__(self) -> None:
        self._waiting: deque[Published] = deque()
        self._news = asyncio.Event()

    def offer(self, published: Published) -> None:
        """Add an event; the newer of two reports of progress replaces the older."""
        if self._waiting and _continues(self._waiting[-1].event, published.event):
            self._waiting[-1] = published
        else:
            self._waiting.append(published)
        self._news.set()

    async def next(self) -> Published:
        """Wait for the next event; raises TooSlow when more wait than anybody who still reads would leave."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        if len(self._waiting) > _MAX_WAITING:
            raise TooSlow
        return self._waiting.popleft()


class Hub:
    """Hands every event to those who follow its job."""

    def __init__(self, *, reader: Reader, redis: Redis, reread_s: float) -> None:
        self._reader = reader
        self._redis = redis
        self._reread_s = reread_s
        self._followers: dict[str, set[Follower]] = {}
        self._somebody = asyncio.Event()
        self._is_reading = asyncio.Event()
        self.position = "0-0"  # of the stream, up to which everything was handed out

    @asynccontextmanager
    async def follow(self, job_id: str) -> AsyncIterator[Follower]:
        """Follow a job: whatever happens from the start of the block on reaches the follower."""
        follower = Follower()
        self._followers.setdefault(job_id, set()).add(follower)
        self._somebody.set()
        try:
            await self._wait_for_reader()
            yield follower
        finally:
            self._leave(job_id, follower)

    async def read_stream(self) -> None:
        """Hand events to the followers for ever."""
        goes_on = False  # whether to go on where the stream was lost, rather than at its present end
        while True:
            await self._somebody.wait()
            try:
                if not goes_on:
                    self.position = await last_position(self._redis)
                self._is_reading.set()
                await self._hand_out()
                goes_on = False
            except OUTAGES as error:
                goes_on = self._is_reading.is_set()
                log.warning("stream_lost", reason=str(error))
                await asyncio.sleep(_PAUSE_S)
            except (ValueError, TypeError, KeyError) as error:
                # An event in the shape of another version: go on behind it, and let the rows tell what it said.
                goes_on = False
                log.warning("event_unreadable", reason=str(error))
                await asyncio.sleep(_PAUSE_S)

    async def reread_rows(self) -> None:
        """Offer the rows of followed jobs as events every so often, for ever."""
        while True:
            await self._somebody.wait()
            await asyncio.sleep(self._reread_s)
            ids = list(self._followers)
            try:
                for at in range(0, len(ids), _ROWS):
                    self._offer_rows((await self._reader.get_many(ids[at : at + _ROWS])).values())
            except Unavailable as error:
                log.warning("followed_rows_not_read", reason=str(error))

    def _leave(self, job_id: str, follower: Follower) -> None:
        others = self._followers[job_id]
        others.discard(follower)
        if not others:
            del self._followers[job_id]
        if not self._followers:
            self._somebody.clear()

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(_READING_S):
                await self._is_reading.wait()
        except TimeoutError:
            log.warning("follower_without_stream")

    async def _hand_out(self) -> None:
        """Hand out events until nobody follows any more."""
        async for batch in follow(self._redis, self.position):
            for published in batch:
                self._offer(published)
                self.position = published.id
            if not self._followers:
                self._is_reading.clear()
                return

    def _offer_rows(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._offer(Published(id=self.position, event=ending_of(job)))

    def _offer(self, published: Published) -> None:
        for follower in self._followers.get(published.event.job_id, ()):
            follower.offer(published)


def is_newer(event: Event, than: Event) -> bool:
    """Whether an event says more than ``than``."""
    return event.version > than.version


def _continues(waiting: Event, event: Event) -> bool:
    return waiting.type == event.type == "task.progress" and waiting.attempt == event.attempt
