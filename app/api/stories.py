"""What one client is told: of one task from its snapshot to its end, or of many from now on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import WSCloseCode

from app.api.auth import Caller
from app.api.hub import EVERYBODY, Follower, Gap, Hub, Interest, Memory, News, is_newer, job_room, owner_room
from app.api.links import Link
from app.api.news import END, GAP, OPENED, SNAPSHOT, StreamGap, StreamOpened, message_of
from app.api.schemas import Task, task_of
from app.api.views import find_visible, latest_progress
from app.errors import NotFound, Unavailable
from app.history.reader import JobFilter
from app.history.rows import Job
from app.installation import Installation
from app.jobs.status import Status
from app.live.events import LOST, NOWHERE, Event, Position, ending_of, is_held, latest, replay
from app.live.progress import Progress
from app.queue.connect import OUTAGES

_MAX_REPLAYED = 20_000  # events that one resume looks through; a client that missed more begins anew
_MAX_SHOWN = 1000  # tasks of a list that are shown when it begins, the newest
_NO_POSITION = ""  # of what a client cannot resume from: cut off after it, it gets the whole beginning again
_LIVE = frozenset({Status.PENDING, Status.RUNNING})


class Ended(Exception):
    """The story has come to its end; nothing follows."""


class Story(Protocol):
    """What one client is told."""

    async def check(self) -> object:
        """Raise what keeps this from being told at all."""

    async def tell(self, link: Link) -> tuple[int, str]:
        """Tell everything; return the code to close with, and its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every story needs."""

    hub: Hub
    installation: Installation
    caller: Caller
    after: Position | None  # where the client was; None: it begins


class TaskStory:
    """A snapshot of one task, every newer event, at last the end with the whole task."""

    def __init__(self, setting: Setting, job_id: str) -> None:
        self._setting = setting
        self._job_id = job_id
        self._last: Event | None = None  # what the client knows

    async def tell(self, link: Link) -> tuple[int, str]:
        """Tell everything; raise NotFound when there is no such task."""
        setting = self._setting
        async with setting.hub.follow(Interest(room=job_room(self._job_id))) as follower:  # first: nothing is missed
            try:
                if setting.after is None or not await self._resume(link, follower, setting.after):
                    await self._show(link, follower)
                while True:
                    try:
                        for news in await follower.take():
                            await self._tell(link, news)
                    except Gap:
                        await _tell_gap(link, follower.since)
                        await self._show(link, follower)
            except Ended:
                return WSCloseCode.OK, "the task has ended"

    async def check(self) -> Job:
        """Return the row; raise NotFound if there is none that the caller may see."""
        job = await find_visible(self._setting.installation.reader, self._job_id, self._setting.caller)
        if job is None:
            raise NotFound("There is no such task: not found.")
        return job

    async def _resume(self, link: Link, follower: Follower, after: Position) -> bool:
        """Tell what was missed; return False, and tell of a gap, where that is not known."""
        await self.check()
        missed = await _missed(self._setting, follower, after)
        if missed is None:
            await _tell_gap(link, after)
            return False
        self._last = missed.told.last(self._job_id)
        for news in missed.news:
            await self._tell(link, news)
        job = await self._ended()
        if job is not None:  # and its event was lost
            await self._end(link, job, follower.since)
        return True

    async def _show(self, link: Link, follower: Follower) -> None:
        """Send the snapshot; it holds everything up to the follower's beginning."""
        job = await self.check()
        progress = (await latest_progress(self._setting.installation.redis, [job])).get(job.id)
        task = self._task(job, progress)
        await link.send([message_of(follower.since, SNAPSHOT, task)])
        self._last = replace(ending_of(job), progress=task.progress)
        if job.status.is_final:
            await self._end(link, job, follower.since)

    async def _tell(self, link: Link, news: News) -> None:
        event = news.event
        if self._last is not None and not is_newer(event, self._last):
            return
        if event.status.is_final:
            job = await self._ended()
            if job is not None:
                await self._end(link, job, news.position)
            return
        await link.send([news.message])
        self._last = event

    async def _ended(self) -> Job | None:
        """Return the row if it has ended; None leaves it to the next reading of the rows."""
        try:
            job = await find_visible(self._setting.installation.reader, self._job_id, self._setting.caller)
        except Unavailable:
            return None
        return job if job is not None and job.status.is_final else None

    async def _end(self, link: Link, job: Job, position: Position) -> None:
        await link.send([message_of(f"{position}{END}", f"task.{job.status}", self._task(job), job.completed_at)])
        raise Ended

    def _task(self, job: Job, progress: Progress | None = None) -> Task:
        return task_of(job, progress=progress, for_admin=self._setting.caller.is_admin)


class ListStory:
    """A snapshot of a caller's live tasks that pass the filters, and from then on every event that does."""

    def __init__(self, setting: Setting, wants: Callable[[Event], bool]) -> None:
        self._setting = setting
        caller = setting.caller
        self._owner = None if caller.is_admin else caller.user_id
        self._interest = Interest(room=owner_room(self._owner), wants=wants)
        self._shown: dict[str, Event] = {}  # by id: what a snapshot has told, until something newer is

    async def tell(self, link: Link) -> tuple[int, str]:
        """Tell everything, for ever."""
        setting = self._setting
        async with setting.hub.follow(self._interest) as follower:
            if setting.after is None or not await self._resume(link, follower, setting.after):
                await self._open(link, follower)
            while True:
                try:
                    await link.send([news.message for news in await follower.take() if self._is_new(news.event)])
                except Gap:
                    await _tell_gap(link, follower.since)
                    await self._open(link, follower)

    async def check(self) -> None:
        """Nothing can be wrong with a list."""

    async def _resume(self, link: Link, follower: Follower, after: Position) -> bool:
        missed = await _missed(self._setting, follower, after)
        if missed is None:
            await _tell_gap(link, after)
            return False
        await link.send([news.message for news in missed.news])
        return True

    async def _open(self, link: Link, follower: Follower) -> None:
        """Send the snapshots; they hold everything up to the follower's beginning."""
        since, house = follower.since, self._setting.installation
        wanted = JobFilter(owner=self._owner, statuses=_LIVE, origin="all")
        page = await house.reader.page(wanted, sort="-created_at", limit=_MAX_SHOWN)
        stands = {job.id: ending_of(job) for job in page.jobs}
        jobs = [job for job in page.jobs if self._interest.wants(stands[job.id])]
        progress = await latest_progress(house.redis, jobs)
        tasks = [task_of(job, progress=progress.get(job.id), for_admin=self._setting.caller.is_admin) for job in jobs]
        self._shown = {task.task_id: replace(stands[task.task_id], progress=task.progress) for task in tasks}
        opened = StreamOpened(resume_with=str(since), snapshots=len(tasks), is_complete=page.next_cursor is None)
        shown = [message_of(_NO_POSITION, SNAPSHOT, task) for task in tasks]
        await link.send([*shown, message_of(since, OPENED, opened)])

    def _is_new(self, event: Event) -> bool:
        shown = self._shown.get(event.job_id)
        if shown is not None and not is_newer(event, shown):
            return False
        self._shown.pop(event.job_id, None)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missed:
    """What a client has to catch up with."""

    told: Memory  # what it had been told by then
    news: list[News]


async def _missed(setting: Setting, follower: Follower, after: Position) -> _Missed | None:
    """Return what a client missed between ``after`` and the follower's beginning; None where nobody knows."""
    redis = setting.installation.redis
    news: list[News] = []
    looked_at = 0
    try:
        if follower.since == NOWHERE or not await is_held(redis, after):
            return None
        before = await latest(redis, after)
        told = Memory(before)
        async for batch in replay(redis, after, follower.since):
            looked_at += len(batch)
            if looked_at > _MAX_REPLAYED or any(found.event.type == LOST for found in batch):
                return None
            fresh = [found for found in batch if told.is_new(found.event) and _concerns(found.event, follower.interest)]
            news += [News(found.event, follower.since.at(found.id)) for found in fresh]
        if not await is_held(redis, after):  # trimmed while it was read
            return None
    except OUTAGES:
        return None
    follower.skip(after)
    return _Missed(told=Memory(before), news=news)


def _concerns(event: Event, interest: Interest) -> bool:
    rooms = {job_room(event.job_id), owner_room(event.owner), EVERYBODY}
    return (interest.room in rooms or (not event.job_id and interest.room[0] != "job")) and interest.wants(event)


async def _tell_gap(link: Link, after: Position) -> None:
    await link.send([message_of(_NO_POSITION, GAP, StreamGap(after=str(after)))])
