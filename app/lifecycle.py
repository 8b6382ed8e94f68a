"""The one door: every change of a job's state goes through here, and nothing else writes one.

Each change is a guarded compare-and-set in one transaction (``app.history.writer``); Redis is told and the
event published after the commit. A change that matches no row has lost: it writes nothing else, and acts
by what the row says. Redis may be out at any of these moments; the sweep brings it up to date later.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from pydantic import JsonValue

from app.adoption import adopt
from app.announce import (
    event_of,
    live_offer_of,
    offer_of,
    result_of_row,
    result_of_settlement,
    settled_event_of,
    tally_of,
)
from app.clock import new_id, to_ms, utc_now
from app.errors import Conflict, NotFound, Unavailable
from app.failpoints import failpoint
from app.group import GroupCommit
from app.history.reader import LiveJob, Reader
from app.history.rows import Failure, Job, NewJob
from app.history.writer import Settlement, Started, StartRequest, Writer
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.fields import Params
from app.jobs.status import Status
from app.live.control import tell_cancelled
from app.live.events import ending_of
from app.live.outbox import Outbox
from app.log import get_log
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, MAX_BATCH, Claim, Claims, LetGo, Queue
from app.queue.connect import OUTAGES
from app.queue.wire import read_body

log = get_log()

_RING_WAIT_S = 0.05  # how long an accept waits for Redis; the ring goes on without it
_SETTLE_PAUSE_S = 0.5  # between tries while the database is out

EXPIRED = Failure(
    code="expired", type="Expired", message="The job was not started before its time ran out.", is_retryable=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants done, validated. Times are aware UTC; None takes the job type's default."""

    job_type: AnyJobType
    params: Params
    owner: str
    user_id: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    scheduled_for: datetime | None = None
    expires_in: timedelta | None = None
    schedule: str | None = None
    tick_at: datetime | None = None


class Lifecycle:
    """Submit, cancel, retry, reprioritise | start, settle, restore. One instance a process."""

    def __init__(self, *, catalogue: Catalogue, writer: Writer, reader: Reader, queue: Queue, outbox: Outbox) -> None:
        self._catalogue = catalogue
        self._writer = writer
        self._reader = reader
        self._queue = queue
        self._outbox = outbox
        self._rings: GroupCommit[Sequence[NewJob], None] = GroupCommit(self._ring_groups)
        self._letting_go: GroupCommit[LetGo, bool] = GroupCommit(queue.let_go, limit=MAX_BATCH)
        self._ringing: set[asyncio.Task[None]] = set()  # a caller that leaves does not take its ring along

    # --- the front of the house ---------------------------------------------------------------

    async def submit(self, orders: Sequence[Order]) -> list[NewJob]:
        """Accept jobs, all or none. Once this returns they are committed, and will run at least once."""
        accepted = [_new_job(order) for order in orders]
        await self._writer.accept(accepted)
        await self._offer(accepted)
        return accepted

    async def submit_tick(self, order: Order) -> NewJob | None:
        """Accept the job of one tick of a schedule; None if another worker was first, or the schedule is off."""
        job = _new_job(order)
        if not await self._writer.accept_tick(job):
            return None
        await self._offer([job])
        return job

    async def cancel(self, job_id: str, *, include_running: bool = True) -> Job:
        """Cancel a live job: the row first, then Redis, then the worker that runs it is told.

        Raises NotFound; raises Conflict if it has ended, or runs and ``include_running`` is false.
        """
        job = await self._writer.cancel(job_id, include_running=include_running, now=utc_now())
        if job is None:
            raise await self._refusal(job_id, "cancelled")
        self._outbox.post(ending_of(job), tally_of(job, Status.CANCELLED, job.started_at))
        try:
            (was_waiting,) = await self._queue.withdraw([(job.id, job.queue, job.priority, result_of_row(job))])
            if not was_waiting:
                await tell_cancelled(self._queue.redis, job.id)
        except OUTAGES as error:  # workers re-read their running rows, so that the cancel still lands
            log.warning("cancel_not_told", job_id=job.id, reason=str(error))
        return job

    async def retry(self, job_id: str, *, owner: str) -> NewJob:
        """Submit a failed or cancelled job again, as a new one that names it. Raises NotFound or Conflict."""
        job = await self._reader.get(job_id)
        if job is None:
            raise NotFound
        if job.status not in {Status.FAILED, Status.CANCELLED}:
            raise Conflict(f"Only a failed or cancelled task can be retried; this one is {job.status}.")
        now = _moment()
        fields = {name: getattr(job, name) for name in NewJob.__dataclass_fields__}
        fresh = {"id": new_id(), "submitted_by": owner, "retried_from": job.id, "created_at": now, "due_at": now}
        cleared = dict.fromkeys(("scheduled_for", "expires_at", "schedule", "tick_at"))
        again = NewJob(**(fields | fresh | cleared))
        await self._writer.accept([again])
        await self._offer([again])
        return again

    async def reprioritise(self, job_id: str, *, priority: int) -> Job:
        """Give a waiting job another priority. Raises NotFound, or Conflict if it no longer waits."""
        job = await self._writer.reprioritise(job_id, priority=priority)
        if job is None:
            raise await self._refusal(job_id, "changed")
        try:
            await self._queue.move(job.id, job.queue, priority)
        except OUTAGES as error:
            log.warning("move_not_told", job_id=job.id, reason=str(error))
        return job

    # --- the engine room ----------------------------------------------------------------------

    async def start(self, claims: Claims, *, worker_id: str) -> list[Started]:
        """Start claimed jobs in one transaction; return those that are this worker's to run, in claim order.

        Raises Unavailable, with every claim given back, when the database does not answer.
        """
        failpoint("claimed")
        requests = [StartRequest(id=claim.id, claim=claim.token, dead=claim.dead) for claim in claims.claims]
        try:
            for claim in claims.claims:
                if claim.is_aborted:
                    await self._abort(claim)
            started = await self._writer.start(requests, worker_id=worker_id, now=claims.now)
        except Unavailable:
            await self._give_back(claims.claims)
            raise
        failpoint("started")
        for job in started:
            self._outbox.post(event_of(job, "task.started", Status.RUNNING, attempt=job.attempts))
        if len(started) < len(requests):
            won = {job.id for job in started}
            await self._yield([claim for claim in claims.claims if claim.id not in won], claims.now)
        return started

    async def settle(self, job: Started, settlement: Settlement) -> bool:
        """Write how an attempt ended; return whether it was still this attempt's to end.

        Tries until the database answers: the work is done, and the fence keeps a late write harmless.
        """
        failpoint("settling")
        won = await self._settle_surely(settlement)
        failpoint("settled")
        if won:
            tally = tally_of(job, settlement.status, job.started_at, settlement.ended_at)
            self._outbox.post(settled_event_of(job, settlement), tally)
        return won

    async def checkpoint(self, job: Started, state: JsonValue) -> bool:
        """Store from where a running job's next attempt goes on; return whether it still is this attempt's."""
        return await self._writer.checkpoint(job, state, now=utc_now())

    async def acknowledge(self, job: Started, settlement: Settlement) -> None:
        """Let go of a settled job in Redis; whatever fails here, its lease runs out and the row decides."""
        if settlement.status is Status.PENDING:
            due = AT_ITS_PLACE if settlement.due_at is None else to_ms(settlement.due_at)
            item = LetGo(id=job.id, token=job.claim, verb="wait", argument=due)
        else:
            item = LetGo(id=job.id, token=job.claim, verb="done", argument=result_of_settlement(job, settlement))
        await self._quietly(self._letting_go(item))
        failpoint("acknowledged")

    async def stand_down(self, job: Started) -> None:
        """Act by the row after losing a running job: it was cancelled, or another claim has it."""
        claim = Claim(
            id=job.id, queue_key=keys.queue(job.queue, job.priority), token=job.claim, dead=None, is_aborted=False
        )
        await self._yield([claim], utc_now())

    async def restore(self, page: Sequence[LiveJob]) -> int:
        """Put back into Redis what it lacks of these jobs; return how many that were."""
        missing = await self._queue.missing([(job.id, job.queue, job.priority) for job in page])
        rows = await self._reader.get_many(missing) if missing else {}
        offers = [live_offer_of(job) for job in rows.values() if not job.status.is_final]
        return await self._queue.ring(offers, search=True) if offers else 0

    async def close(self) -> None:
        """Finish what is on its way to Redis."""
        if self._ringing:
            await asyncio.wait(self._ringing, timeout=2)
        await self._letting_go.close()

    async def _settle_surely(self, settlement: Settlement) -> bool:
        while True:
            try:
                return await self._writer.settle(settlement)
            except Unavailable as error:
                log.warning("settle_delayed", job_id=settlement.id, reason=str(error))
                await asyncio.sleep(_SETTLE_PAUSE_S)

    # --- the loser acts by the row ------------------------------------------------------------

    async def _yield(self, lost: Sequence[Claim], now: datetime) -> None:
        try:
            rows = await self._reader.get_many([claim.id for claim in lost])
            items = [await self._yield_one(claim, rows[claim.id], now) for claim in lost if claim.id in rows]
            items += await self._adopt([claim for claim in lost if claim.id not in rows], now)
            await self._queue.let_go(items)
        except (Unavailable, *OUTAGES) as error:  # the leases run out, and the next claimer acts by the row
            log.warning("lost_claims_left", count=len(lost), reason=str(error))

    async def _yield_one(self, claim: Claim, job: Job, now: datetime) -> LetGo:
        if job.status is Status.PENDING and job.expires_at is not None and job.expires_at <= now:
            ended = await self._writer.end_pending(job.id, EXPIRED, now=now)
            if ended is not None:
                self._outbox.post(None, tally_of(job, Status.FAILED, None))
                job = ended
        match job.status:
            case Status.PENDING:
                return LetGo(id=claim.id, token=claim.token, verb="wait", argument=to_ms(job.due_at))
            case Status.RUNNING:
                return LetGo(id=claim.id, token=claim.token, verb="lend", argument=job.claim or "")
            case Status.COMPLETED | Status.FAILED | Status.CANCELLED:
                self._outbox.post(ending_of(job))
                return LetGo(id=claim.id, token=claim.token, verb="done", argument=result_of_row(job))
            case other:
                assert_never(other)

    async def _adopt(self, orphans: Sequence[Claim], now: datetime) -> list[LetGo]:
        """Give rows to the jobs of stock arq clients; drop, and report, what has neither row nor meaning."""
        items = []
        for claim, raw in zip(orphans, await self._queue.bodies([claim.id for claim in orphans]), strict=True):
            body = None if raw is None else read_body(raw)
            if raw is None or body is None or body.is_ours:
                log.warning("entry_without_row_dropped", job_id=claim.id, is_readable=body is not None)
                if raw is not None and body is None:
                    await self._queue.quarantine(claim.id, raw)
                items.append(LetGo(id=claim.id, token=claim.token, verb="done"))
                continue
            row, failure = adopt(self._catalogue, claim.id, claim.queue_key, body, _floor(now))
            await self._writer.accept([row])
            if failure is None:
                items.append(LetGo(id=claim.id, token=claim.token, verb="wait", argument=AT_ITS_PLACE))
            elif (ended := await self._writer.end_pending(row.id, failure, now=now)) is not None:
                self._outbox.post(ending_of(ended))  # not counted: its kind may be any text, and labels are few
                items.append(LetGo(id=claim.id, token=claim.token, verb="done", argument=result_of_row(ended)))
        return items

    async def _abort(self, claim: Claim) -> None:
        try:
            await self.cancel(claim.id)
        except (NotFound, Conflict):
            log.info("abort_came_too_late", job_id=claim.id)

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        items = [LetGo(id=claim.id, token=claim.token, verb="wait", argument=AT_ITS_PLACE) for claim in claims]
        await self._quietly(self._queue.let_go(items))

    # --- telling Redis ------------------------------------------------------------------------

    async def _offer(self, accepted: Sequence[NewJob]) -> None:
        """Ring jobs whose rows are committed, and tell of them; the ring goes on if Redis keeps it waiting."""
        failpoint("accepted")
        task = asyncio.create_task(self._quietly(self._rings(accepted)))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)
        await asyncio.wait([task], timeout=_RING_WAIT_S)
        failpoint("rung")
        for job in accepted:
            self._outbox.post(event_of(job, "task.submitted", Status.PENDING))

    async def _ring_groups(self, groups: Sequence[Sequence[NewJob]]) -> list[None]:
        await self._queue.ring(offer_of(job) for group in groups for job in group)
        return [None] * len(groups)

    @staticmethod
    async def _quietly(telling: Awaitable[object]) -> None:
        try:
            await telling
        except OUTAGES as error:
            log.warning("redis_not_told", reason=str(error))

    async def _refusal(self, job_id: str, verb: str) -> NotFound | Conflict:
        job = await self._reader.get(job_id)
        if job is None:
            return NotFound()
        return Conflict(f"The task is {job.status} and can no longer be {verb}.", status=job.status)


def _moment() -> datetime:
    return _floor(utc_now())


def _floor(moment: datetime) -> datetime:
    """Cut to whole milliseconds: Redis time has no more, and a due time must never lie after it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _new_job(order: Order) -> NewJob:
    now, job_type = _moment(), order.job_type
    due_at = max(_floor(order.scheduled_for), now) if order.scheduled_for else now
    return NewJob(
        id=new_id(),
        kind=job_type.kind,
        task_type=job_type.task_type.value,
        queue=job_type.queue,
        user_id=order.user_id,
        submitted_by=order.owner,
        priority=min(order.priority or job_type.priority, job_type.max_priority),
        params=order.params.model_dump(mode="json"),
        max_retries=job_type.retry.max_retries if order.max_retries is None else order.max_retries,
        created_at=now,
        due_at=due_at,
        scheduled_for=order.scheduled_for,
        expires_at=due_at + order.expires_in if order.expires_in else None,
        schedule=order.schedule,
        tick_at=order.tick_at,
    )
