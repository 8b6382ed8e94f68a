"""One run of one job, as a straight line: run → outcome → settlement, which :mod:`workers.closer` writes."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import assert_never

from app.announce import event_of
from app.clock import utc_now
from app.history.rows import Failure
from app.history.writer import MAX_INTERRUPTIONS, Settlement, Started
from app.installation import Installation
from app.jobs.catalogue import AnyJobType
from app.jobs.status import Status
from app.lifecycle import Lifecycle
from app.live.outbox import Outbox
from app.live.progress import Progress
from app.log import bind_job, get_log
from workers.context import Context
from workers.families import Work
from workers.outcome import Completed, Failed, Lost, Outcome, Released, completed, failed, timed_out
from workers.room import Room

log = get_log()

_UNKNOWN_KIND_PAUSE_S = 10.0  # until a job that this worker does not know is offered again
_UNKNOWN_KIND_LIMIT_S = 600.0  # after which nobody is expected to know it
_PATIENCE_S = 1.5  # for work that was stopped to end; with the worker's look at its attempts, under 2 s

_WORKER_LOST = Failure(
    code="worker_lost",
    type="WorkerLost",
    message=f"The workers that ran the job were lost {MAX_INTERRUPTIONS} times.",
    is_retryable=False,
)


class StopReason(Enum):
    """Why a running attempt is told to stop."""

    CANCELLED = auto()  # the row was cancelled
    LOST = auto()  # another claim has the job
    TIMEOUT = auto()  # the hard limit has passed
    SHUTDOWN = auto()  # the worker stops
    CUT_OFF = auto()  # neither store has answered for longer than the lease: somebody else may take the job over


async def refuse(job: Started, lifecycle: Lifecycle) -> None:
    """Give back a job of a kind that this worker does not know: another version may be on its way up."""
    settlement = _refusal(job)
    if await lifecycle.settle(job, settlement):
        await lifecycle.acknowledge(job, settlement)


def _refusal(job: Started) -> Settlement:
    now, message = utc_now(), f"No worker knows the kind {job.kind!r}."
    is_hopeless = (now - job.due_at).total_seconds() >= _UNKNOWN_KIND_LIMIT_S
    return Settlement(
        id=job.id,
        attempts=job.attempts,
        claim=job.claim,
        status=Status.FAILED if is_hopeless else Status.PENDING,
        outcome="failed" if is_hopeless else "released",
        ended_at=now,
        due_at=None if is_hopeless else now + timedelta(seconds=_UNKNOWN_KIND_PAUSE_S),
        error=Failure(code="unknown_task", type="UnknownTask", message=message, is_retryable=False)
        if is_hopeless
        else None,
    )


class Attempt:
    """One run of a job that this worker has started.

    ``on_ended`` is called once its work is done, with what is to be written; None if the job is not its own any more.
    """

    def __init__(
        self,
        job: Started,
        job_type: AnyJobType,
        work: Work,
        house: Installation,
        *,
        room: Room,
        on_ended: Callable[["Attempt", Settlement | None], None],
    ) -> None:
        self.job = job
        self.job_type = job_type
        self.hard_limit_at = time.monotonic() + job_type.limits.hard_s
        self._work = work
        self._on_ended = on_ended
        self.stop_reason: StopReason | None = None
        self._stopped_at: float | None = None
        self._is_stoppable = True
        self._is_abandoned = False
        # Nothing of an attempt leads back to it: a worker that waits for the garbage collector holds 10 MB more.
        self._context = Context(job, job_type.limits, house, partial(_publish, house.outbox, job), room)
        self.task: asyncio.Task[None] | None = None  # that runs it, once it does

    def stop(self, reason: StopReason) -> None:
        """Cancel the work, for this reason, or never begin it; the first reason counts. A settling attempt goes on."""
        if self._is_stoppable and self.stop_reason is None:
            self.stop_reason, self._stopped_at = reason, time.monotonic()
            if self.task is not None:  # one that is cancelled before its first step would never come to its end
                self.task.cancel()

    @property
    def is_stubborn(self) -> bool:
        """Whether the work goes on although it was told to stop a good while ago."""
        return (
            self._is_stoppable and self._stopped_at is not None and time.monotonic() - self._stopped_at >= _PATIENCE_S
        )

    def abandon(self) -> None:
        """End the attempt without its stubborn work: what that does from now on is ignored."""
        self._is_stoppable, self._is_abandoned = False, True
        self._context.close()
        log.warning("attempt_abandoned", job_id=self.job.id, kind=self.job.kind, reason=str(self.stop_reason))
        self._on_ended(self, self._settlement(self._verdict(Lost())))

    async def run(self) -> None:
        """Do the work, and say how it ended. Never raises for what the work does."""
        self.task = asyncio.current_task()
        bind_job(self.job)
        outcome = await self._outcome()
        if self._is_abandoned:
            return
        self._is_stoppable = False
        self._context.close()
        self._on_ended(self, self._settlement(outcome))

    async def _outcome(self) -> Outcome:
        if self.job.interruptions >= MAX_INTERRUPTIONS:
            return Failed(failure=_WORKER_LOST)
        if self.stop_reason is not None:
            return self._verdict(Released())
        try:
            await self._context.restore()
            params = self.job_type.params.model_validate(self.job.params)
            outcome: Outcome = completed(await self._work(self._context, params))
        except GeneratorExit:  # the loop is gone, and with it everything that could be written
            raise
        except BaseException as error:  # whatever a job does (sys.exit too), it must end in its row, not in its worker
            outcome = failed(error)
        return self._verdict(outcome)

    def _verdict(self, outcome: Outcome) -> Outcome:
        """Say how the attempt ended, given how its work did and why it was told to stop."""
        match self.stop_reason:
            case StopReason.CANCELLED | StopReason.LOST:
                return Lost()
            case StopReason.TIMEOUT:
                return timed_out(self.job_type.limits.hard_s)
            case StopReason.SHUTDOWN | StopReason.CUT_OFF:
                return outcome if isinstance(outcome, Completed) else Released()
            case None:
                return outcome
            case other:
                assert_never(other)

    def _settlement(self, outcome: Outcome) -> Settlement | None:
        match outcome:
            case Completed(result=result):
                return self._ended(Status.COMPLETED, "completed", result=result)
            case Failed(failure=failure) if not failure.is_retryable or self.job.failures >= self.job.max_retries:
                return self._ended(Status.FAILED, "failed", error=failure)
            case Failed(failure=failure, after_s=after_s):
                delay = self.job_type.retry.delay_s(self.job.failures) if after_s is None else after_s
                return self._ended(Status.PENDING, "failed", error=failure, after_s=delay)
            case Released():
                return self._ended(Status.PENDING, "released")
            case Lost():
                return None
            case other:
                assert_never(other)

    def _ended(
        self,
        status: Status,
        outcome: str,
        *,
        result: str | None = None,
        error: Failure | None = None,
        after_s: float | None = None,
    ) -> Settlement:
        now, latest = utc_now(), self._context.latest
        return Settlement(
            id=self.job.id,
            attempts=self.job.attempts,
            claim=self.job.claim,
            status=status,
            outcome=outcome,
            ended_at=now,
            due_at=None if after_s is None else now + timedelta(seconds=after_s),
            result=result,
            error=error,
            progress=100.0 if status is Status.COMPLETED else latest.percent,
            progress_message=latest.message,
            stage=latest.stage,
            has_checkpoint=self._context.has_checkpoint,
        )


def _publish(outbox: Outbox, job: Started, progress: Progress) -> None:
    event = event_of(
        job,
        "task.progress",
        Status.RUNNING,
        attempt=job.attempts,
        progress=progress.percent,
        message=progress.message,
        stage=progress.stage,
    )
    outbox.post(event)
