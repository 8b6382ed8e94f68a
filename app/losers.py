"""The loser acts by the row: what becomes of a claim whose start or settle matched no row.

The row has ended: the entry leaves Redis and the end is told. It waits: back to its due time. It runs under
another claim: that one gets the lease. There is none: a stock client's job is adopted, all else is dropped or
put aside. Used by ``app.lifecycle`` alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from app.adoption import OWNER, adopt, reuse
from app.announce import result_of_row, tally_of
from app.clock import to_ms
from app.errors import Unavailable, UnknownName
from app.group import REFUSALS
from app.history.reader import Reader
from app.history.rows import Failure, Job, NewJob
from app.history.writer import ALONE_AT, MAX_INTERRUPTIONS, Writer
from app.jobs.catalogue import Catalogue
from app.jobs.status import Status
from app.live.events import ending_of
from app.live.outbox import Outbox
from app.log import get_log
from app.orders import Order, mentions_in, whole_ms
from app.queue.client import AT_ITS_PLACE, Claim, Corrupt, LetGo, Queue
from app.queue.connect import OUTAGES
from app.queue.wire import Body, read_body
from app.references import References

log = get_log()

_SUSPECT_PAUSE = timedelta(seconds=1)  # until a job is offered again that nobody had a place apart for

EXPIRED = Failure(
    code="expired", type="Expired", message="The job was not started before its time ran out.", is_retryable=False
)


class Losers:
    """What one process does with the claims that it lost."""

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

    async def act(
        self, lost: Sequence[Claim], now: datetime, take_aside: Callable[[Claim], bool] | None = None
    ) -> None:
        """Act by the rows of jobs that were claimed and not started, or not settled.

        ``take_aside`` is offered what has to run alone, and says whether it has room for it.
        """
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
                told = await self._as_told(job)
                return LetGo(id=claim.id, token=claim.token, verb="done", argument=result_of_row(told))
            case other:
                assert_never(other)

    async def _as_told(self, job: Job) -> Job:
        """Return an ended job as its client is told of it, who may have used its id for another one since."""
        if job.submitted_by != OWNER:
            return job
        (raw,) = await self._queue.bodies([job.id])
        body = None if raw is None else read_body(raw)
        failure = None if body is None else reuse(job, body)
        if failure is None:
            return job
        log.warning("job_id_used_again", job_id=job.id, reason=failure.message)
        return replace(job, status=Status.FAILED, error=failure)

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
        row, failure = adopt(self._catalogue, claim.id, claim.queue_key, body, whole_ms(now))
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
            await self._references.check(mentions_in([order]))
        except UnknownName as error:
            return Failure(code=error.code, type="UnknownName", message=error.message, is_retryable=False)
        return None


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
