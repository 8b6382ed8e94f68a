"""The hub: one reader of the event stream for all followers in this process. Imported by the API alone.

It reads only while somebody follows. What the stream may have lost (Redis was out, the event was trimmed)
is made good by reading the rows of followed jobs again every so often; where that cannot tell everything, each
follower hears of a gap.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from app.api.news import Message, news_of
from app.clock import utc_now
from app.history.reader import Reader
from app.history.rows import Job
from app.live.events import (
    LOST,
    NOWHERE,
    Event,
    Position,
    Published,
    current_epoch,
    ending_of,
    follow,
    is_another_life,
    is_held,
    last_position,
    latest,
)
from app.log import get_log
from app.queue.connect import OUTAGES, Redis

log = get_log()

_MAX_WAITING = 2000  # news of one follower; progress is coalesced and never fills it
_MAX_REMEMBERED = 20_000  # jobs, by the last event of each
_READING_S = 1.0  # how long a new follower waits for the reader; without it there are still the rows
_PAUSE_S = 0.5
_ROWS = 1000
_ON_ITS_WAY = timedelta(seconds=2)
_LATELY = timedelta(seconds=80)  # four readings of the rows: what the database was late with is found, too

Room = tuple[str, str]
EVERYBODY: Room = ("everybody", "")


class TooSlow(Exception):
    """A follower does not take its events."""


class Gap(Exception):
    """Events were lost before this process read them."""


class News:
    """An event on its way to the followers, written once for all of them."""

    __slots__ = ("_message", "event", "position")

    def __init__(self, event: Event, position: Position) -> None:
        self.event = event
        self.position = position
        self._message: Message | None = None

    @property
    def message(self) -> Message:
        """What it says."""
        if self._message is None:
            self._message = news_of(self.event, self.position)
        return self._message


def _all(_: Event) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What one client follows: what happens in one room, and passes a test."""

    room: Room
    wants: Callable[[Event], bool] = field(default=_all)


def job_room(job_id: str) -> Room:
    """Where one job is told of."""
    return ("job", job_id)


def owner_room(owner: str | None) -> Room:
    """Where everything of one owner is told of; of everybody, for None."""
    return EVERYBODY if owner is None else ("owner", owner)


class Follower:
    """What one client has yet to be told."""

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.since = NOWHERE  # where the stream was when this follower began; what comes later is offered
        self._waiting: dict[object, News] = {}
        self._news = asyncio.Event()
        self._has_gap = False
        self._skipped = ""  # the entry that the client, who comes from another process, has heard of already

    def begin(self, since: Position) -> None:
        """Begin here: what was offered before is part of what came before."""
        self.since = since
        self._waiting.clear()
        self._has_gap = False
        self._news.clear()

    def skip(self, until: Position) -> None:
        """Leave out what the client has heard from a process that was ahead of this one."""
        if _place(until.entry) > _place(self.since.entry):
            self._skipped = until.entry
            self._waiting = {key: news for key, news in self._waiting.items() if not self._is_skipped(news)}

    def offer(self, news: News) -> None:
        """Add an event if it is wanted; the newer of two reports of progress replaces the older, in its own place."""
        event = news.event
        if not self.interest.wants(event) or (self._skipped and self._is_skipped(news)):
            return
        if event.type == "task.progress":
            # Taken out first: a newer id in an older place would let a resume skip what stands between the two.
            key: object = (event.job_id, event.attempt)
            self._waiting.pop(key, None)
        else:
            key = news
        self._waiting[key] = news
        self._news.set()

    def offer_gap(self, since: Position) -> None:
        """Tell that events were lost; begin again here."""
        self.begin(since)
        self._has_gap = True
        self._news.set()

    async def take(self) -> list[News]:
        """Wait for events and return all that wait.

        Raise Gap when some were lost, TooSlow when more wait than anybody who still reads would leave.
        """
        await self._news.wait()
        self._news.clear()
        if self._has_gap:
            self._has_gap = False
            if self._waiting:
                self._news.set()
            raise Gap
        if len(self._waiting) > _MAX_WAITING:
            raise TooSlow
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken

    def _is_skipped(self, news: News) -> bool:
        return _place(news.position.entry) <= _place(self._skipped)


class Memory:
    """The last event of each job that was told lately: what is not newer is told to nobody again."""

    def __init__(self, told: Iterable[Published] = ()) -> None:
        self._last: OrderedDict[str, Event] = OrderedDict()
        self.forgotten_at = datetime.min.replace(tzinfo=UTC)  # of events up to here it may not know any more
        for published in told:
            self.is_new(published.event)

    def is_new(self, event: Event) -> bool:
        """Whether an event says more than what was told of its job; from now on it has been told."""
        if not event.job_id:
            return True
        last = self._last.get(event.job_id)
        if last is not None and not is_newer(event, last):
            return False
        self._last[event.job_id] = event
        self._last.move_to_end(event.job_id)
        if len(self._last) > _MAX_REMEMBERED:
            _, forgotten = self._last.popitem(last=False)
            self.forgotten_at = max(self.forgotten_at, forgotten.at)
        return True

    def last(self, job_id: str) -> Event | None:
        """Return what was told of a job last."""
        return self._last.get(job_id)

    def live(self) -> Iterable[Event]:
        """Return the last event of each job that has not ended."""
        return [event for event in self._last.values() if not event.status.is_final]


class Hub:
    """Hands every event to those who follow its job, its owner, or everybody."""

    def __init__(self, *, reader: Reader, redis: Redis, reread_s: float) -> None:
        self._reader = reader
        self._redis = redis
        self._reread_s = reread_s
        self._rooms: dict[Room, set[Follower]] = {}
        self._memory = Memory()
        self._somebody = asyncio.Event()
        self._is_reading = asyncio.Event()
        self._began_at = utc_now()
        self.position = NOWHERE  # of the stream, up to which everything was handed out

    @asynccontextmanager
    async def follow(self, interest: Interest) -> AsyncIterator[Follower]:
        """Follow: whatever happens after the follower's ``since`` reaches it."""
        follower = Follower(interest)
        self._rooms.setdefault(interest.room, set()).add(follower)
        self._somebody.set()
        try:
            await self._wait_for_reader()
            follower.begin(self.position if self._is_reading.is_set() else NOWHERE)
            yield follower
        finally:
            self._leave(follower)

    async def read_stream(self) -> None:
        """Hand events to the followers for ever. Raises when Redis does not answer; run again, it goes on there."""
        while True:
            await self._somebody.wait()
            try:
                await self._begin()
                await self._hand_out()
            except (ValueError, TypeError, KeyError) as error:
                # An entry that is none of ours: go on behind it, and let the rows tell what it said.
                self.position = NOWHERE
                log.warning("event_unreadable", reason=str(error))
                await asyncio.sleep(_PAUSE_S)
            finally:
                if not self._rooms:
                    self._rest()

    async def reread_rows(self) -> None:
        """Offer the rows of followed jobs as events every so often, for ever. Raises when SQL does not answer."""
        while True:
            await self._somebody.wait()
            await asyncio.sleep(self._reread_s)
            await self._look_at_epoch()
            ids = [*self._followed_ids(), *await self._untold_ends()]
            for at in range(0, len(ids), _ROWS):
                self._offer_rows((await self._reader.get_many(ids[at : at + _ROWS])).values())

    async def _begin(self) -> None:
        """Go on where the stream was left if everything behind that is still there, else at its present end."""
        if self.position != NOWHERE and await is_held(self._redis, self.position):
            return
        position = await last_position(self._redis)
        memory = Memory(await latest(self._redis, position))
        self.position, self._memory, self._began_at = position, memory, utc_now()
        if self._is_reading.is_set():
            log.warning("events_lost_to_followers")
        self._is_reading.set()
        # Those who could not wait for this began nowhere; for them, too, it is not known what came before.
        for follower in self._followers():
            follower.offer_gap(position)

    async def _look_at_epoch(self) -> None:
        """Tell of a gap when Redis has lost what it had, though the connection held: it was flushed, or restored."""
        try:
            epoch = await current_epoch(self._redis)
        except OUTAGES:
            return
        before, self.position = self.position, replace(self.position, epoch=epoch)
        if is_another_life(before.epoch, epoch):
            self._tell_gap()

    def _tell_gap(self) -> None:
        log.warning("events_lost_to_followers")
        for follower in self._followers():
            follower.offer_gap(self.position)

    def _followers(self) -> Iterable[Follower]:
        return [follower for room in self._rooms.values() for follower in room]

    def _followed_ids(self) -> list[str]:
        """Return the jobs that are followed, and those told of that their owner, or everybody's watcher, follows."""
        alone = {name for kind, name in self._rooms if kind == "job"}
        together = {
            event.job_id
            for event in self._memory.live()
            if EVERYBODY in self._rooms or owner_room(event.owner) in self._rooms
        }
        return list(alone | together)

    async def _untold_ends(self) -> list[str]:
        """Return jobs that ended lately and were never told of as ended: not one event of theirs may have come.

        What ended this moment is left out: told from its row, it would be told again by the event that is on its
        way, to whoever comes back in between. So is what was told too long ago to be remembered.
        """
        if all(kind == "job" for kind, _ in self._rooms):
            return []
        until = utc_now() - _ON_ITS_WAY
        since = max(until - _LATELY, self._began_at, self._memory.forgotten_at)
        memory = self._memory
        ended = await self._reader.ended_between(since, until, limit=_MAX_REMEMBERED)
        return [job_id for job_id in ended if (last := memory.last(job_id)) is None or not last.status.is_final]

    def _leave(self, follower: Follower) -> None:
        room = follower.interest.room
        others = self._rooms[room]
        others.discard(follower)
        if not others:
            del self._rooms[room]
        if not self._rooms:
            self._somebody.clear()

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(_READING_S):
                await self._is_reading.wait()
        except TimeoutError:
            log.warning("follower_without_stream")

    async def _hand_out(self) -> None:
        """Hand out events until nobody follows any more."""
        async for batch in follow(self._redis, self.position.entry):
            for published in batch:
                self.position = self.position.at(published.id)
                if published.event.type == LOST:
                    self._tell_gap()
                else:
                    self._offer(published.event)
            if not self._rooms:
                return
            await asyncio.sleep(0)  # so that followers take what they were offered before there is more

    def _rest(self) -> None:
        """Stop reading: who follows next begins at what is then the end."""
        self._is_reading.clear()
        self.position = NOWHERE

    def _offer_rows(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._offer(ending_of(job))

    def _offer(self, event: Event) -> None:
        news = News(event, self.position)
        for room in self._rooms_of(event):
            for follower in self._rooms.get(room, ()):
                follower.offer(news)

    def _rooms_of(self, event: Event) -> Iterable[Room]:
        if not event.job_id:
            return [room for room in self._rooms if room[0] != "job"]  # queues are everybody's
        # Who follows one job judges by its row: an end that was told too early must not keep the true one out.
        alone = job_room(event.job_id)
        return (alone, owner_room(event.owner), EVERYBODY) if self._memory.is_new(event) else (alone,)


def _place(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def is_newer(event: Event, than: Event) -> bool:
    """Whether an event says more than ``than``."""
    return event.version > than.version
