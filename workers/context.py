"""What a job is given: who it is, what it may read, and how it says where it stands."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack, assert_never

from pydantic import JsonValue
from structlog.typing import FilteringBoundLogger

from app.errors import AttemptLost, SoftTimeLimitExceeded, Unavailable
from app.history.writer import Started
from app.installation import Installation
from app.jobs.contract import Limits
from app.jobs.validation import check_json
from app.live.progress import Progress
from app.log import get_log
from workers.outcome import storable
from workers.process import Checkpointed, Child, Progressed, Raised, Report, Returned, SoftLimitTold, Terms
from workers.room import Room
from workers.thread import ThreadCall

A = ParamSpec("A")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_EVERY_S = 0.1  # progress is published at most this often; the last report is never lost
_MAX_MESSAGE = 500  # characters of a progress message, or of a stage
_RESTORE_PAUSE_S = 0.5  # between tries while the database is out

log = get_log()


class Context:
    """The only thing a job's work depends on, besides its params.

    Every awaited method raises :class:`SoftTimeLimitExceeded` once after the soft limit; a job may catch it
    and return what it has.
    """

    def __init__(
        self,
        job: Started,
        limits: Limits,
        installation: Installation,
        publish: Callable[[Progress], None],
        room: Room | None = None,
    ) -> None:
        self.job_id = job.id
        self.kind = job.kind
        self.user_id = job.user_id
        self.owner = job.submitted_by
        self.attempt = job.attempts  # counted from 1
        self.now: datetime = job.started_at
        self.deadline: datetime = job.started_at + timedelta(seconds=limits.hard_s)
        self.fencing_token = job.attempts  # rises with every start of this job: refuse a lower one outside
        self.records = installation.records
        self.installation = installation  # for the service's own jobs, which look after it
        self.log: FilteringBoundLogger = log
        self.restored: JsonValue = None  # the state of the last checkpoint of an earlier attempt
        self.has_checkpoint = False  # whether this attempt wrote one
        self.latest = Progress(attempt=job.attempts, percent=0.0, message=None, stage=None)
        self._job = job
        self._publish = publish
        self._room = room or Room(installation.settings.worker_children)
        self._is_closed = False
        self._published_at = float("-inf")
        self._trailing: asyncio.TimerHandle | None = None
        self._soft_limit_at: float | None = time.monotonic() + limits.soft_s

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Report how far the job is, 0–100. Never goes back; many reports a second become a few."""
        self._note(percent, message, stage)
        await self._breathe()

    async def checkpoint(self, state: JsonValue) -> None:
        """Store from where the next attempt of this job goes on: it finds the state in ``restored``.

        Only the last state is kept, and it is gone when the job ends; keep it small, and what is large in a
        file that it names. Raise AttemptLost, so that the work stops, when the job is no longer this attempt's.
        A database that is away costs the checkpoint alone.
        """
        await self._save(state)
        await self._breathe()

    async def restore(self) -> None:
        """Read what an earlier attempt left in ``restored``. The attempt calls it before the work."""
        while self.attempt > 1:
            try:
                self.restored = await self.installation.reader.checkpoint(self.job_id)
            except Unavailable as error:  # the job has not begun: an outage is no failure of its
                log.warning("checkpoint_not_read", reason=str(error))
                await asyncio.sleep(_RESTORE_PAUSE_S)
            else:
                return

    async def sleep(self, seconds: float) -> None:
        """Wait without holding anything up."""
        await asyncio.sleep(seconds)
        await self._breathe()

    async def run_thread(self, function: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Run a blocking function beside the event loop; for what releases the GIL or is short.

        Leaving this call by a cancel or the hard limit raises ThreadStopped in the function, at its next line of
        Python, and half a second later once more; one that stays in C is left behind after a second.
        """
        call = ThreadCall(partial(function, *args, **kwargs))
        try:
            result = await call.result()
        except asyncio.CancelledError:
            if not await call.stop():
                self._room.leave_behind(call.thread)
            raise
        await self._breathe()
        return result

    async def run_process(self, function: Callable[[Report, Unpack[Ts]], T], *args: *Ts) -> T:
        """Run a function of a module in a process of its own; for what computes for long.

        Its first argument is a :class:`~workers.process.Report`, for progress, checkpoints and the soft limit.
        Arguments and result go through a pipe: keep them modest, and pass files by name. What it raises is
        raised here; ProcessDied and MemoryExceeded say that it could not. Leaving this call, by cancellation
        too, ends the process within two seconds. With all of WORKER_CHILDREN taken it waits for a place, and the
        time limits count meanwhile.
        """
        async with self._place():
            return await self._run_child(function, args)

    async def _run_child(self, function: Callable[[Report, Unpack[Ts]], T], args: tuple[*Ts]) -> T:
        terms = Terms(
            memory_mb=self.installation.settings.worker_child_memory_mb,
            soft_limit_at=self._soft_limit_at,
            restored=self.restored,
        )
        child = Child(function, args, terms)
        child.start()
        try:
            result: T = await self._attend(child)
            return result
        finally:
            await child.stop()

    def close(self) -> None:
        """Forget a report that was still to come, and whatever comes after: the attempt has ended."""
        self._is_closed = True
        if self._trailing is not None:
            self._trailing.cancel()
        # It leads back to the attempt that owns this context: a circle, which only the collector would free.
        self._publish = _tell_nobody

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._room.places.locked():
            self._note(self.latest.percent, "waiting for a free child process", None)
        wait_s = None if self._soft_limit_at is None else max(0.0, self._soft_limit_at - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                await self._room.places.acquire()
        except TimeoutError:
            self._soft_limit_at = None
            raise SoftTimeLimitExceeded from None
        try:
            yield
        finally:
            self._room.places.release()

    async def _attend(self, child: Child) -> Any:
        while True:
            match await child.inbox.get():
                case Progressed() as report:
                    self._note(report.percent, report.message, report.stage)
                case Checkpointed(state=state):
                    await self._save(state)
                case SoftLimitTold():
                    self._soft_limit_at = None
                case Returned(value=value):
                    return value
                case Raised(error=error):
                    raise error
                case other:
                    assert_never(other)

    async def _save(self, state: JsonValue) -> None:
        check_json(state)
        if self._is_closed:
            raise AttemptLost
        try:
            is_mine = await self.installation.lifecycle.checkpoint(self._job, state)
        except Unavailable as error:
            log.warning("checkpoint_not_stored", reason=str(error))
            return
        if not is_mine:
            raise AttemptLost
        self.has_checkpoint = True

    def _note(self, percent: float, message: str, stage: str | None) -> None:
        if math.isfinite(percent):
            percent = round(min(max(percent, self.latest.percent), 100.0), 1)
        else:
            percent = self.latest.percent
        self.latest = Progress(
            attempt=self.attempt,
            percent=percent,
            message=storable(message[:_MAX_MESSAGE]) or self.latest.message,
            stage=storable(stage[:_MAX_MESSAGE]) if stage else self.latest.stage,
        )
        wait_s = self._published_at + _EVERY_S - time.monotonic()
        if wait_s <= 0:
            self._publish_latest()
        elif self._trailing is None:
            self._trailing = asyncio.get_running_loop().call_later(wait_s, self._publish_latest)

    def _publish_latest(self) -> None:
        if self._trailing is not None:
            self._trailing.cancel()
            self._trailing = None
        self._published_at = time.monotonic()
        self._publish(self.latest)

    async def _breathe(self) -> None:
        if self._soft_limit_at is not None and time.monotonic() >= self._soft_limit_at:
            self._soft_limit_at = None
            raise SoftTimeLimitExceeded
        await asyncio.sleep(0)


def _tell_nobody(_progress: Progress) -> None:
    """Publish nothing."""
