"""The one door: every change of a job's state goes through here, and nothing else writes one.

Each change is a guarded compare-and-set in one transaction (``app.history.writer``); Redis is told and the
event published after the commit. A change that matches no row has lost: it writes nothing else, and acts
by what the row says. Redis may be out at any of these moments; the sweep brings it up to date later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from pydantic import JsonValue

from app.announce import (
    live_offer_of,
    offer_of,
    result_of_row,
    result_of_settlement,
    settled_event,
    started_event,
    submitted_event,
    tally_of,
    tally_of_ending,
)
from app.bulk import BulkLifecycle, may_retry, retry_of
from app.clock import new_id, to_ms, utc_now
from app.errors import Conflict, NotFound, RequestRepeated, Unavailable, UniqueKeyTaken
from app.failpoints import failpoint
from app.group import GroupCommit
from app.history.deliveries import NewDelivery
from app.history.reader import LiveJob, Reader
from app.history.receipts import Receipt, Repeated, Replayed, Taken
from app.history.rows import Job, NewJob
from app.history.writer import Settlement, Started, StartRequest, Writer
from app.jobs.catalogue import Catalogue
from app.jobs.status import Status
from app.live.control import tell_cancelled
from app.live.events import ending_of
from app.live.outbox import Outbox
from app.log import get_log
from app.losers import Losers
from app.orders import Order, mentions_in, new_job, new_jobs, this_moment, whole_ms
from app.queue import keys
from app.queue.client import AT_ITS_PLACE, MAX_BATCH, Claim, Claims, Entry, LetGo, Queue
from app.queue.connect import OUTAGES
from app.queue.wire import read_body
from app.references import References

log = get_log()

_RING_WAIT_S = 0.05  # how long an accept waits for Redis; the ring goes on without it
_RING_JOBS = 1000  # in one script call: Redis answers nobody else meanwhile
_EVENTS = 500  # told of in one go; others get the event loop in between
_AT_ONCE = 100  # more orders are turned into rows beside the event loop
_SETTLE_PAUSE_S = 0.5  # between tries while the database is out

Ending = tuple[Started, Settlement]


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
        self._accepts: GroupCommit[Sequence[NewJob], None] = GroupCommit(writer.accept_groups, follow=self._offer)
        self._rings: GroupCommit[Sequence[NewJob], None] = GroupCommit(self._ring_groups)
        self._losers = Losers(
            catalogue=catalogue, references=references, writer=writer, reader=reader, queue=queue, outbox=outbox
        )
        self.bulk = BulkLifecycle(
            catalogue=catalogue, writer=writer, reader=reader, queue=queue, outbox=outbox, accept=self._accept
        )
        writer.hand_on(self._ring_along)

    # --- the front of the house ---------------------------------------------------------------

    async def submit(
        self, orders: Sequence[Order], *, receipt: Callable[[Sequence[NewJob]], Receipt] | None = None
    ) -> list[NewJob]:
        """Accept jobs, all or none. Once this returns they are committed, and will run at least once.

        ``receipt`` writes what their request is answered; it is committed with them. Raise RequestRepeated if its
        key is taken by then, UniqueKeyTaken if a live job has the unique key of one of these, and UnknownName
        when params name what is not there.
        """
        if mentions := mentions_in(orders):
            await self._references.check(mentions)
        accepted = new_jobs(orders) if len(orders) <= _AT_ONCE else await asyncio.to_thread(new_jobs, orders)
        await self._accept(accepted, receipt(accepted) if receipt else None)
        return accepted

    async def submit_tick(self, order: Order) -> NewJob | None:
        """Accept the job of one tick of a schedule; None if another worker was first, or the schedule is off."""
        job = new_job(order)
        if not await self._writer.accept_tick(job):
            return None
        await self._offer([[job]])
        return job

    async def deliver(self, delivery: NewDelivery, *, owner: str) -> None:
        """Accept the job that makes one delivery to a webhook: a test, or one that is made again."""
        self._ring_along([await self._writer.accept_delivery(delivery, owner=owner)])

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

    async def retry(self, job_id: str, *, owner: str, is_replay: bool = False) -> NewJob:
        """Submit a failed or cancelled job again, as a new one that names it. Raises NotFound or Conflict.

        The replay of a dead letter is refused, too, while another retry of it lives, or once one has completed.
        """
        job = await self._reader.get(job_id)
        if job is None:
            raise NotFound
        if not may_retry(job):
            raise Conflict(f"Only a failed or cancelled task can be retried; this one is {job.status}.")
        again = retry_of(job, id=new_id(), owner=owner, now=this_moment())
        await self._accept([again], letter=job_id if is_replay else None)
        return again

    async def reprioritise(self, job_id: str, *, priority: int | None = None, eta: datetime | None = None) -> Job:
        """Give a waiting job another priority, another time, or both.

        Raises NotFound, or Conflict if it no longer waits.
        """
        due_at = None if eta is None else max(whole_ms(eta), this_moment())
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
        self,
        claims: Claims,
        *,
        worker_id: str,
        take_aside: Callable[[Claim], bool] | None = None,
        on_decided: Callable[[Sequence[Started] | None], None] | None = None,
    ) -> list[Started]:
        """Start claimed jobs in one transaction; return those that are this worker's to run, in claim order.

        A worker that runs several jobs gives ``take_aside``: a suspect is not started but offered to it, still
        held, and waits a moment if it answers no. ``on_decided`` is told what has started, or None if the
        database does not answer, before anything is let go of and may be claimed again.
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
            if on_decided is not None:
                on_decided(None)
            await self.give_back(claims.claims)
            raise
        failpoint("started")
        if on_decided is not None:
            on_decided(started)
        at = utc_now()
        self._outbox.post_all((started_event(job, at), None) for job in started)
        if len(started) < len(requests):
            won = {job.id for job in started}
            await self._losers.act([claim for claim in claims.claims if claim.id not in won], claims.now, take_aside)
        return started

    async def settle(self, job: Started, settlement: Settlement) -> bool:
        """Write how an attempt ended; return whether it was still this attempt's to end. See :meth:`settle_all`."""
        (won,) = await self.settle_all([(job, settlement)])
        if isinstance(won, Exception):
            raise won
        return won

    async def settle_all(self, endings: Sequence[Ending]) -> list[bool | Exception]:
        """Write how attempts ended, in one transaction; return of each whether it was still this attempt's to end.

        Tries until the database answers: the work is done, and the fence keeps a late write harmless. The answer for
        one that no row can hold is the error that says so.
        """
        failpoint("settling", jobs=len(endings))
        answers = await self._settle_surely([settlement for _, settlement in endings])
        failpoint("settled", jobs=len(endings))
        at = utc_now()
        won = [ending for ending, answer in zip(endings, answers, strict=True) if answer is True]
        self._outbox.post_all((settled_event(*ending, at), tally_of_ending(*ending)) for ending in won)
        return answers

    async def checkpoint(self, job: Started, state: JsonValue) -> bool:
        """Store from where a running job's next attempt goes on; return whether it still is this attempt's."""
        return await self._writer.checkpoint(job, state, now=utc_now())

    async def acknowledge(self, job: Started, settlement: Settlement) -> None:
        """Let go of a settled job in Redis. See :meth:`acknowledge_all`."""
        await self.acknowledge_all([(job, settlement)])

    async def acknowledge_all(self, endings: Sequence[Ending]) -> None:
        """Let go of settled jobs in Redis; whatever fails here, their leases run out and the rows decide."""
        for at in range(0, len(endings), MAX_BATCH):
            items = [_letting_go(*ending) for ending in endings[at : at + MAX_BATCH]]
            await self._quietly(self._queue.let_go(items))
        failpoint("acknowledged", jobs=len(endings))

    async def stand_down(self, *lost: Started) -> None:
        """Act by the rows after losing running jobs: they were cancelled, or other claims have them."""
        claims = [
            Claim(id=job.id, queue_key=_queue_key(job), token=job.claim, dead=None, is_aborted=False) for job in lost
        ]
        await self._losers.act(claims, utc_now())

    async def restore(self, page: Sequence[LiveJob], *, walk: str = "") -> int:
        """Put back into Redis what it lacks of these jobs; return how many that were.

        With the nonce of a ``walk``, return -1 once that walk is not the current one any more.
        """
        astray = await self._queue.astray([Entry(job.id, job.queue, job.priority, job.due_at) for job in page])
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
        """Commit what is still on its way, and finish what is on its way to Redis."""
        await self._accepts.close()
        await asyncio.wait([asyncio.ensure_future(self._rings.close())], timeout=2)

    async def _settle_surely(self, settlements: Sequence[Settlement]) -> list[bool | Exception]:
        answers = await self._writer.settle_all(settlements)
        while late := [at for at, answer in enumerate(answers) if isinstance(answer, Unavailable)]:
            log.warning("settle_delayed", count=len(late), reason=str(answers[late[0]]))
            await asyncio.sleep(_SETTLE_PAUSE_S)
            again = await self._writer.settle_all([settlements[at] for at in late])
            for at, answer in zip(late, again, strict=True):
                answers[at] = answer
        return answers

    # --- what the above share -----------------------------------------------------------------

    async def _abort(self, claim: Claim) -> None:
        try:
            await self.cancel(claim.id)
        except (NotFound, Conflict):
            log.info("abort_came_too_late", job_id=claim.id)

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let claimed jobs that were not started wait where they stood."""
        items = [LetGo(id=claim.id, token=claim.token, verb="wait", argument=AT_ITS_PLACE) for claim in claims]
        await self._quietly(self._queue.let_go(items))

    async def _accept(
        self, accepted: Sequence[NewJob], receipt: Receipt | None = None, *, letter: str | None = None
    ) -> None:
        """Commit jobs and offer them; those that must be the only ones go the longer way."""
        if receipt is None and letter is None and not any(job.unique_key for job in accepted):
            await self._accepts(accepted)
            return
        match await self._writer.accept_once(accepted, receipt, letter=letter):
            case Replayed(job_id=job_id):
                raise Conflict(f"The task {job_id} runs it again already, or has done so.", task_id=job_id)
            case Taken(unique_key=key, job_id=job_id):
                message = f"The task {job_id} has the unique_key {key!r} and has not ended yet."
                raise UniqueKeyTaken(message, task_id=job_id, unique_key=key)
            case Repeated():
                raise RequestRepeated
            case None:
                await self._offer([accepted])

    # --- telling Redis ------------------------------------------------------------------------

    async def _offer(self, groups: Sequence[Sequence[NewJob]]) -> None:
        """Ring jobs whose rows are committed, and tell of them; the ring goes on if Redis keeps it waiting."""
        failpoint("accepted", jobs=len(groups))
        accepted = groups[0] if len(groups) == 1 else [job for group in groups for job in group]
        ringing, moment = self._rings.send(accepted), utc_now()
        for at in range(0, len(accepted), _EVENTS):
            if at:
                await asyncio.sleep(0)
            self._outbox.post_all((submitted_event(job, moment), None) for job in accepted[at : at + _EVENTS])
        # Only looked at, never awaited: a caller that leaves does not take its ring along.
        await asyncio.wait([ringing], timeout=_RING_WAIT_S)
        failpoint("rung", jobs=len(groups))

    def _ring_along(self, accepted: Sequence[NewJob]) -> None:
        """Ring what tells webhooks of an end that was just committed; nobody waits for that."""
        if accepted:
            failpoint("told")
            self._rings.send(accepted)

    async def _ring_groups(self, groups: Sequence[Sequence[NewJob]]) -> list[None]:
        jobs = [job for group in groups for job in group]
        for at in range(0, len(jobs), _RING_JOBS):
            await self._quietly(self._queue.ring(map(offer_of, jobs[at : at + _RING_JOBS])))
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


def _queue_key(job: Started) -> str:
    return keys.queue(job.queue, job.priority)


def _letting_go(job: Started, settlement: Settlement) -> LetGo:
    if settlement.status is not Status.PENDING:
        return LetGo(job.id, job.claim, "done", result_of_settlement(job, settlement))
    return LetGo(job.id, job.claim, "wait", AT_ITS_PLACE if settlement.due_at is None else to_ms(settlement.due_at))
