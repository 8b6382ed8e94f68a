"""What a job is given: who it is, what it may read, and how it says where it stands."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

from structlog.typing import FilteringBoundLogger

from app.errors import SoftTimeLimitExceeded
from app.history.writer import Started
from app.installation import Installation
from app.jobs.contract import Limits
from app.live.progress import Progress
from app.log import get_log
from workers.outcome import storable

A = ParamSpec("A")
T = TypeVar("T")

_EVERY_S = 0.1  # progress is published at most this often; the last report is never lost

log = get_log()


class Context:
    """The only thing a job's work depends on, besides its params.

    Every awaited method raises :class:`SoftTimeLimitExceeded` once after the soft limit; a job may catch it
    and return what it has.
    """

    def __init__(
        self, job: Started, limits: Limits, installation: Installation, publish: Callable[[Progress], None]
    ) -> None:
        self.job_id = job.id
        self.kind = job.kind
        self.user_id = job.user_id
        self.attempt = job.attempts  # counted from 1
        self.now: datetime = job.started_at
        self.deadline: datetime = job.started_at + timedelta(seconds=limits.hard_s)
        self.fencing_token = job.attempts  # rises with every start of this job: refuse a lower one outside
        self.records = installation.records
        self.installation = installation  # for the service's own jobs, which look after it
        self.log: FilteringBoundLogger = log
        self.latest = Progress(attempt=job.attempts, percent=0.0, message=None, stage=None)
        self._publish = publish
        self._published_at = float("-inf")
        self._trailing: asyncio.TimerHandle | None = None
        self._soft_limit_at: float | None = time.monotonic() + limits.soft_s

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Report how far the job is, 0–100. Never goes back; many reports a second become a few."""
        percent = round(min(max(percent, self.latest.percent), 100.0), 1)
        self.latest = Progress(
            attempt=self.attempt,
            percent=percent,
            message=storable(message) or self.latest.message,
            stage=stage or self.latest.stage,
        )
        wait_s = self._published_at + _EVERY_S - time.monotonic()
        if wait_s <= 0:
            self._publish_latest()
        elif self._trailing is None:
            self._trailing = asyncio.get_running_loop().call_later(wait_s, self._publish_latest)
        await self._breathe()

    async def sleep(self, seconds: float) -> None:
        """Wait without holding anything up."""
        await asyncio.sleep(seconds)
        await self._breathe()

    async def run_thread(self, function: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Run a blocking function beside the event loop; for what releases the GIL or is short."""
        result = await asyncio.to_thread(function, *args, **kwargs)
        await self._breathe()
        return result

    def close(self) -> None:
        """Forget a report that was still to come: the attempt has ended."""
        if self._trailing is not None:
            self._trailing.cancel()

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
