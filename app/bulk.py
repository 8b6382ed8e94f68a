"""The wing of the one door for many jobs at once: cancel, retry, reprioritise, delete. Used by ``app.lifecycle``.

As there, rows change first, and only what SQL returned is told to Redis. Each call is one batch of up to 500
jobs; walking through more is the caller's business.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.announce import result_of_row, tally_of
from app.clock import derived_id, utc_now
from app.errors import Conflict
from app.history.reader import JobFilter, Reader
from app.history.rows import Job, NewJob
from app.history.writer import Writer
from app.jobs.bulk import APPLICABLE, BulkParams, Selection
from app.jobs.catalogue import Catalogue
from app.jobs.status import Status
from app.live.control import tell_cancelled
from app.live.events import ending_of
from app.live.outbox import Outbox
from app.log import get_log
from app.queue.client import Queue
from app.queue.connect import OUTAGES

BATCH = 500

RETRYABLE = frozenset({Status.FAILED, Status.CANCELLED})

log = get_log()

Accept = Callable[[Sequence[NewJob]], Awaitable[None]]


class BulkLifecycle:
    """Changes of batches of jobs; ``accept`` commits new jobs and offers them."""

    def __init__(
        self, *, catalogue: Catalogue, writer: Writer, reader: Reader, queue: Queue, outbox: Outbox, accept: Accept
    ) -> None:
        self._catalogue = catalogue
        self._writer = writer
        self._reader = reader
        self._queue = queue
        self._outbox = outbox
        self._accept = accept

    async def cancel(self, ids: Sequence[str], *, include_running: bool = True) -> int:
        """Cancel what lives of these jobs; return how many that were."""
        ended = await self._writer.bulk.cancel(ids, include_running=include_running, now=utc_now())
        for job in ended:
            self._outbox.post(ending_of(job), tally_of(job, Status.CANCELLED, job.started_at))
        try:
            items = [(job.id, job.queue, job.priority, result_of_row(job)) for job in ended]
            were_waiting = await self._queue.withdraw(items) if items else []
            for job, was_waiting in zip(ended, were_waiting, strict=True):
                if not was_waiting:
                    await tell_cancelled(self._queue.redis, job.id)
        except OUTAGES as error:  # workers re-read their running rows, and claims of ended ones lose
            log.warning("cancels_not_told", count=len(ended), reason=str(error))
        return len(ended)

    async def retry(self, ids: Sequence[str], *, owner: str, under: str, now: datetime) -> int:
        """Submit what failed or was cancelled of these jobs again; return how many that were.

        The new ids follow from ``under``, the id of whoever does it: a second time, nothing is submitted twice.
        A job whose unique key a live one has meanwhile is left out.
        """
        found = await self._reader.get_many(ids)
        again = [
            retry_of(job, id=derived_id(under, job.id), owner=owner, now=now)
            for job in found.values()
            if may_retry(job)
        ]
        there = await self._reader.get_many([job.id for job in again])
        fresh = [job for job in again if job.id not in there]
        if plain := [job for job in fresh if job.unique_key is None]:
            await self._accept(plain)
        refused = 0
        for job in fresh:
            if job.unique_key is not None:
                try:
                    await self._accept([job])
                except Conflict as error:
                    refused += 1
                    log.info("retry_refused", job_id=job.retried_from, reason=error.message)
        return len(again) - refused

    async def reprioritise(self, ids: Sequence[str], *, priority: int) -> int:
        """Give what waits of these jobs another priority, within the limits of their kinds; return how many."""
        changed: list[Job] = []
        limits: dict[int, list[str]] = {}
        for job in (await self._reader.get_many(ids)).values():
            limits.setdefault(self._capped(job.kind, priority), []).append(job.id)
        for limit, some in limits.items():
            changed += await self._writer.bulk.reprioritise(some, priority=limit)
        try:
            for job in changed:
                await self._queue.move(job.id, job.queue, job.priority)
        except OUTAGES as error:
            log.warning("moves_not_told", count=len(changed), reason=str(error))
        return len(changed)

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete what has ended of these jobs for good; return how many that were."""
        gone = await self._writer.bulk.delete(ids)
        await self._forget(gone)
        return len(gone)

    async def forget_results(self, ids: Sequence[str]) -> int:
        """Forget what these jobs returned; their rows stay. Return how many had something to forget."""
        forgotten = await self._writer.bulk.forget_results(ids)
        await self._forget(forgotten)
        return len(forgotten)

    def _capped(self, kind: str, priority: int) -> int:
        job_type = self._catalogue.get(kind)
        return min(priority, job_type.max_priority) if job_type else priority

    async def _forget(self, ids: Sequence[str]) -> None:
        try:
            await self._queue.forget_results(ids)
        except OUTAGES as error:  # they fade by themselves
            log.warning("results_not_forgotten", count=len(ids), reason=str(error))


def meant_by(params: BulkParams, *, now: datetime) -> JobFilter:
    """Return the jobs that a bulk change is about: those that it applies to, and that were there before ``now``."""
    chosen: dict[str, Any] = {name: getattr(params.selection, name) for name in Selection.model_fields}
    applicable = APPLICABLE[params.action]
    statuses = applicable if params.selection.statuses is None else applicable & set(params.selection.statuses)
    before = min(params.selection.created_before or now, now)
    return JobFilter(**chosen | {"statuses": statuses, "created_before": before})


def may_retry(job: Job) -> bool:
    """Whether a job may be submitted again: only what failed or was cancelled."""
    return job.status in RETRYABLE


def retry_of(job: Job, *, id: str, owner: str, now: datetime) -> NewJob:  # noqa: A002  # the field's name
    """Return a job like this one, to be run now, that names it."""
    copied = NewJob(**{name: getattr(job, name) for name in NewJob.__dataclass_fields__})
    fresh = replace(copied, id=id, submitted_by=owner, retried_from=job.id, created_at=now, due_at=now)
    return replace(fresh, scheduled_for=None, expires_at=None, schedule=None, tick_at=None)
