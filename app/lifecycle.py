"""The one door: every change of a job's state goes through here, and nothing else writes one.

Each change is a guarded compare-and-set in one transaction (``app.history.writer``); Redis is told and the
event published after the commit. A change that matches no row has lost: it writes nothing else, and acts
by what the row says. Redis may be out at any of these moments; the sweep brings it up to date later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
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
from app.bulk import BulkLifecycle, may_retry, retry_of
from app.clock import new_id, to_ms, utc_now
from app.errors import Conflict, NotFound, RequestRepeated, Unavailable, UniqueKeyTaken, UnknownName
from app.failpoints import failpoint
from app.group import REFUSALS, GroupCommit
from app.history.reader import LiveJob, Reader
from app.history.receipts import Receipt, Repeated, Taken
from app.history.rows import Failure, Job, NewJob
from app.history.writer import ALONE_AT, MAX_INTERRUPTIONS, Settlement, Started, StartRequest, Writer
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.fields import Params
from app.jobs.status import Status
from app.live.control import tell_cancelled
from app.live.events import ending_of
from app.live.outbox import Outbox
from app.log import get_log
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, MAX_BATCH, Claim, Claims, Corrupt, Entry, LetGo, Queue
from app.queue.connect import OUTAGES
from app.queue.wire import Body, read_body
from app.references import Mention, References

log = get_log()

_RING_WAIT_S = 0.05  # how long an accept waits for Redis; the ring goes on without it
_RING_JOBS = 1000  # in one script call: Redis answers nobody else meanwhile
_SETTLE_PAUSE_S = 0.5  # between tries while the database is out
_SUSPECT_PAUSE = timedelta(seconds=1)  # until a job is offered again that nobody had a place apart for

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
    place: str = ""  # where the params stood in the document they came from, as a JSON pointer: for errors
    unique_key: str | None = None


class Lifecycle:
    """Submit, cancel, retry, reprioritise | start, settle, restore. One instance a process."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        references: References,
        writer: Writer,
        reader: Reader,
        queue: Queue,
        outbox: Outbox,
    ) -> None:
        self._catalogue = catalogue
        self._references = references
        self._writer = writer
        self._reader = reader
        self._queue = queue
        self._outbox = outbox
        self._rings: GroupCommit[Sequence[NewJob], None] = GroupCommit(self._ring_groups)
        self._letting_go: GroupCommit[LetGo, bool] = GroupCommit(queue.let_go, limit=MAX_BATCH)
        self.bulk = BulkLifecycle(
            catalogue=catalogue, writer=writer, reader=reader, queue=queue, outbox=outbox, accept=self._accept
        )
        self._ringing: set[asyncio.Task[None]] = set()  # a caller that leaves does not take its ring along

    # --- the front of the house ---------------------------------------------------------------

    async def submit(
        self, orders: Sequence[Order], *, receipt: Callable[[Sequence[NewJob]], Receipt] | None = None
    ) -> list[NewJob]:
        """Accept jobs, all or none. Once this returns they are committed, and will run at least once.

        ``receipt`` writes what their request is answered; it is committed with them. Raise RequestRepeated if its
        key is taken by then, UniqueKeyTaken if a live job has the unique key of one of these, and UnknownName
        when params name what is not there.
        """
        await self._references.check([mention for order in orders for mention in _mentions(order)])
        accepted = [_new_job(order) for order in orders]
        await self._accept(accepted, receipt(accepted) if receipt else None)
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
        if not may_retry(job):
            raise Conflict(f"Only a failed or cancelled task can be retried; this one is {job.status}.")
        again = retry_of(job, id=new_id(), owner=owner, now=_moment())
        await self._accept([again])
        return again

    async def reprioritise(self, job_id: str, *, priority: int | None = None, eta: datetime | None = None) -> Job:
        """Give a waiting job another priority, another time, or both.

        Raises NotFound, or Conflict if it no longer waits.
        """
        due_at = None if eta is None else max(_floor(eta), _moment())
        job = await self._writer.reprioritise(job_id, priority=priority, due_at=due_at, eta=eta)
        if job is None:
            raise await self._refusal(job_id, "changed")
        try:
            await self._queue.move(job.id, job.queue, job.priority, due_ms=None if due_at is None else to_ms(due_at))
        except OUTAGES as error:
            log.warning("move_not_told", job_id=job.id, reason=str(error))
        return job

    # --- the engine room ----------------------------------------------------------------------

    async def start(
        self, claims: Claims, *, worker_id: str, take_aside: Callable[[Claim], bool] | None = None
    ) -> list[Started]:
        """Start claimed jobs in one transaction; return those that are this worker's to run, in claim order.

        A worker that runs several jobs gives ``take_aside``: a suspect is not started but offered to it, still
        held, and waits a moment if it answers no.
        Raises Unavailable, with every claim given back, when the database does not answer.
        """
        failpoint("claimed")
        requests = [StartRequest(id=claim.id, claim=claim.token, dead=claim.dead) for claim in claims.claims]
        try:
            for claim in claims.claims:
                if claim.is_aborted:
                    await self._abort(claim)
            started = await self._writer.start(
                requests, worker_id=worker_id, now=claims.now, in_company=take_aside is not None
            )
        except Unavailable:
            await self.give_back(claims.claims)
            raise
        failpoint("started")
        for job in started:
            self._outbox.post(event_of(job, "task.started", Status.RUNNING, attempt=job.attempts))
        if len(started) < len(requests):
            won = {job.id for job in started}
            await self._yield([claim for claim in claims.claims if claim.id not in won], claims.now, take_aside)
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

    async def restore(self, page: Sequence[LiveJob], *, walk: str = "") -> int:
        """Put back into Redis what it lacks of these jobs; return how many that were.

        With the nonce of a ``walk``, return -1 once that walk is not the current one any more.
        """
        entries = [Entry(id=job.id, queue=job.queue, priority=job.priority, due_ms=to_ms(job.due_at)) for job in page]
        astray = await self._queue.astray(entries)
        rows = await self._reader.get_many(astray) if astray else {}
        offers = [live_offer_of(job) for job in rows.values() if not job.status.is_final]
        return await self._queue.ring(offers, search=True, walk=walk) if offers or walk else 0

    async def drop_ghosts(self, queue: str, priority: int, *, start: int, count: int) -> tuple[int, int]:
        """Take entries of ours out whose jobs have ended or were never accepted, as an older backup leaves them.

        Looks at up to ``count`` from the place ``start`` on; returns how many it saw and how many it took out. What
        somebody holds is left to the holder, and what a stock client put there to its adoption.
        """
        found = await self._queue.entries(queue, priority, start=start, count=count)
        ids = [raw.decode() for raw in found if raw.isascii() and b"\0" not in raw]
        if not ids:
            return len(found), 0
        live = await self._reader.live_among(ids)
        dead = [job_id for job_id in ids if job_id not in live]
        bodies = [None if raw is None else read_body(raw) for raw in await self._queue.bodies(dead)]
        ours = [job_id for job_id, body in zip(dead, bodies, strict=True) if body is not None and body.is_ours]
        gone = await self._queue.withdraw([(job_id, queue, priority, b"") for job_id in ours])
        return len(found), sum(gone)

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

    async def _yield(
        self, lost: Sequence[Claim], now: datetime, take_aside: Callable[[Claim], bool] | None = None
    ) -> None:
        try:
            rows = await self._reader.get_many([claim.id for claim in lost])
            if take_aside is not None:
                suspects = [claim for claim in lost if claim.id in rows and _is_suspect(rows[claim.id], claim, now)]
                aside = {claim.id for claim in suspects if take_aside(claim)}
                lost = [claim for claim in lost if claim.id not in aside]
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
                return LetGo(id=claim.id, token=claim.token, verb="wait", argument=to_ms(_next_try_at(job, claim, now)))
            case Status.RUNNING:
                return LetGo(id=claim.id, token=claim.token, verb="lend", argument=job.claim or "")
            case Status.COMPLETED | Status.FAILED | Status.CANCELLED:
                self._outbox.post(ending_of(job))
                return LetGo(id=claim.id, token=claim.token, verb="done", argument=result_of_row(job))
            case other:
                assert_never(other)

    async def _adopt(self, orphans: Sequence[Claim], now: datetime) -> list[LetGo]:
        """Give rows to the jobs of stock arq clients; drop, and report, what has neither row nor meaning."""
        items, corrupt = [], []
        for claim, raw in zip(orphans, await self._queue.bodies([claim.id for claim in orphans]), strict=True):
            body = None if raw is None else read_body(raw)
            if raw is not None and body is None:
                corrupt.append(Corrupt(queue_key=claim.queue_key, id=claim.id, reason="unreadable body", found=raw))
            elif body is None or body.is_ours:
                log.warning("entry_without_row_dropped", job_id=claim.id, has_body=body is not None)
                items.append(LetGo(id=claim.id, token=claim.token, verb="done"))
            else:
                try:
                    items += await self._adopt_one(claim, body, now)
                except (*REFUSALS, RecursionError) as error:  # no row can hold it
                    reason, found = f"no row can hold it ({type(error).__name__})", raw or b""
                    corrupt.append(Corrupt(queue_key=claim.queue_key, id=claim.id, reason=reason, found=found))
        if corrupt:
            await self._queue.quarantine(corrupt)
        return items

    async def _adopt_one(self, claim: Claim, body: Body, now: datetime) -> list[LetGo]:
        row, failure = adopt(self._catalogue, claim.id, claim.queue_key, body, _floor(now))
        failure = failure or await self._unknown_name(row)
        await self._writer.accept([row])
        if failure is None:
            return [LetGo(id=claim.id, token=claim.token, verb="wait", argument=AT_ITS_PLACE)]
        ended = await self._writer.end_pending(row.id, failure, now=now)
        if ended is None:
            return []
        self._outbox.post(ending_of(ended))  # not counted: its kind may be any text, and labels are few
        return [LetGo(id=claim.id, token=claim.token, verb="done", argument=result_of_row(ended))]

    async def _unknown_name(self, row: NewJob) -> Failure | None:
        job_type = self._catalogue.find(row.kind)
        params = job_type.params.model_validate(row.params)
        order = Order(job_type=job_type, params=params, owner=row.submitted_by, user_id=row.user_id)
        try:
            await self._references.check(list(_mentions(order)))
        except UnknownName as error:
            return Failure(code=error.code, type="UnknownName", message=error.message, is_retryable=False)
        return None

    async def _abort(self, claim: Claim) -> None:
        try:
            await self.cancel(claim.id)
        except (NotFound, Conflict):
            log.info("abort_came_too_late", job_id=claim.id)

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let claimed jobs that were not started wait where they stood."""
        items = [LetGo(id=claim.id, token=claim.token, verb="wait", argument=AT_ITS_PLACE) for claim in claims]
        await self._quietly(self._queue.let_go(items))

    async def _accept(self, accepted: Sequence[NewJob], receipt: Receipt | None = None) -> None:
        """Commit jobs and offer them; those that must be the only ones go the longer way."""
        if receipt is None and not any(job.unique_key for job in accepted):
            await self._writer.accept(accepted)
        else:
            match await self._writer.accept_once(accepted, receipt):
                case Taken(unique_key=key, job_id=job_id):
                    message = f"The task {job_id} has the unique_key {key!r} and has not ended yet."
                    raise UniqueKeyTaken(message, task_id=job_id, unique_key=key)
                case Repeated():
                    raise RequestRepeated
                case None:
                    pass
        await self._offer(accepted)

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
        jobs = [job for group in groups for job in group]
        for at in range(0, len(jobs), _RING_JOBS):
            await self._queue.ring(map(offer_of, jobs[at : at + _RING_JOBS]))
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


def _mentions(order: Order) -> Iterator[Mention]:
    """Yield what the params of an order name, if its type says that they name anything."""
    reference = order.job_type.reference
    if reference is not None:
        user_id = getattr(order.params, "user_id", None) or order.user_id
        name = getattr(order.params, reference.field)
        yield Mention(reference=reference, name=name, user_id=user_id, place=f"{order.place}/{reference.field}")


def _is_suspect(job: Job, claim: Claim, now: datetime) -> bool:
    """Tell whether a claimed job could start now, but only alone (:data:`app.history.writer.ALONE_AT`)."""
    if job.status is Status.RUNNING:
        return job.claim == claim.dead and _runs_alone(job.interruptions + 1)
    is_waiting = job.status is Status.PENDING and job.due_at <= now
    return is_waiting and _runs_alone(job.interruptions) and (job.expires_at is None or job.expires_at > now)


def _runs_alone(interruptions: int) -> bool:
    return ALONE_AT <= interruptions < MAX_INTERRUPTIONS


def _next_try_at(job: Job, claim: Claim, now: datetime) -> datetime:
    return now + _SUSPECT_PAUSE if _is_suspect(job, claim, now) else job.due_at


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
        unique_key=order.unique_key,
    )
