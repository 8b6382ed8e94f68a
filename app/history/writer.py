"""Every change of a job's row, as a guarded compare-and-set. Called by ``app.lifecycle`` alone.

Each statement has one text for every batch size and both databases. A write that matches no row means
that somebody else was first; the methods say who won and never raise for it. All of them may be sent
again after a lost reply: a second time changes nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import parse_iso
from app.database import Database, Json, UtcTime
from app.group import GroupCommit, in_parts
from app.history.accepts import insert_jobs
from app.history.bulk import Bulk
from app.history.deliveries import NewDelivery, Offer, accept_delivery, insert_deliveries, offer_nobody
from app.history.receipts import Accepted, Receipt, accept_once
from app.history.rows import Failure, Job, NewJob, insertable, job_from
from app.history.statements import Statements
from app.history.tables import checkpoints, jobs, schedules
from app.jobs.status import Status

ALONE_AT = 2  # interruptions after which a job runs only where nothing else does
MAX_INTERRUPTIONS = 5  # after which it runs nowhere any more, although none of its processes was seen to die alone
_JOB_COLUMNS = [column.label(column.key) for column in jobs.c]


class StartRequest(NamedTuple):
    """Ask to start one claimed job. ``dead`` is the claim that Redis reports as lost, if any."""

    id: str
    claim: str
    dead: str | None


class Started(NamedTuple):
    """A job that may run now, fenced by ``(id, attempts, claim)``; a tuple, since every job makes one of its row."""

    id: str
    kind: str
    queue: str
    priority: int
    params: dict[str, Any]
    user_id: str | None
    submitted_by: str
    attempts: int
    failures: int
    interruptions: int
    max_retries: int
    created_at: datetime
    due_at: datetime
    claim: str
    started_at: datetime

    @property
    def names(self) -> dict[str, Any]:
        """What a log line says of it."""
        return {"job_id": self.id, "kind": self.kind, "attempt": self.attempts, "queue": self.queue}


class Settlement(NamedTuple):
    """How one attempt ended, to be written if ``(id, attempts, claim)`` still runs; a tuple as :class:`Started` is."""

    id: str
    attempts: int
    claim: str
    status: Status  # a final one, or pending for a retry or a release
    outcome: str  # completed, failed, released, interrupted: the word in task_attempts
    ended_at: datetime
    due_at: datetime | None = None  # of the next attempt, when status is pending
    result: str | None = None  # JSON text
    error: Failure | None = None
    progress: float = 0.0
    progress_message: str | None = None
    stage: str | None = None
    has_checkpoint: bool = False  # a first attempt wrote one; of a later one it is taken for granted

    @property
    def drops_checkpoint(self) -> bool:
        """Whether a checkpoint may be there that nobody needs any more."""
        return self.status.is_final and (self.has_checkpoint or self.attempts > 1)

    @property
    def is_plain(self) -> bool:
        """Whether the row alone tells the whole story, so that no attempt needs writing."""
        return self.status is Status.COMPLETED and self.attempts == 1


class Writer:
    """The writing half of history. One instance a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.bulk = Bulk(database)
        self._offer: Offer = offer_nobody
        self._sql = Statements(database.dialect)
        self._accepts: GroupCommit[Sequence[NewJob], None] = GroupCommit(self.accept_groups)

    def hand_on(self, offer: Offer) -> None:
        """Ring the jobs that tell webhooks of ends by ``offer``, from the commit of those ends on."""
        self._offer = self.bulk.offer = offer

    async def accept(self, accepted: Sequence[NewJob]) -> None:
        """Insert jobs, all or none; returns once they are committed."""
        await self._accepts(accepted)

    async def accept_groups(self, groups: Sequence[Sequence[NewJob]]) -> Sequence[None]:
        """Insert the jobs of many accepts, all or none; for who collects them itself."""
        accepted = [job for group in groups for job in group]
        await self._database.transact(lambda connection: insert_jobs(connection, accepted), is_repeatable=True)
        return [None] * len(groups)

    async def accept_once(
        self, accepted: Sequence[NewJob], receipt: Receipt | None, *, letter: str | None = None
    ) -> Accepted:
        """Insert jobs whose keys are free, together with what their request is answered; or say what is in the way."""
        return await accept_once(self._database, accepted, receipt, letter=letter)

    async def accept_delivery(self, delivery: NewDelivery, *, owner: str) -> NewJob:
        """Insert a delivery to a webhook with the job that makes it; return the job."""
        return await accept_delivery(self._database, delivery, owner=owner)

    async def accept_tick(self, job: NewJob) -> bool:
        """Insert the job of a schedule's tick; return whether this worker was the first to, and may.

        A schedule that is switched off submits nothing.
        """
        insert = (postgresql if self._database.dialect == "postgresql" else sqlite).insert(jobs)
        statement = insert.values(insertable(job)).on_conflict_do_nothing().returning(jobs.c.id)
        is_off = sa.select(schedules.c.name).where(schedules.c.name == job.schedule, ~schedules.c.is_enabled)
        async with self._database.write() as connection:
            if (await connection.execute(is_off)).first() is not None:
                return False
            return (await connection.execute(statement)).first() is not None

    async def start(
        self, requests: Sequence[StartRequest], *, worker_id: str, now: datetime, in_company: bool = False
    ) -> list[Started]:
        """Start what may start, in one transaction; return the winners in the order asked.

        ``now`` is Redis time, as the claim reported it: due and expiry are never judged by a worker's clock.
        Where other jobs run too (``in_company``), a job that has to run alone is not started.
        """
        values = self._sql.claims.values(self._database.dialect, [tuple(request) for request in requests]) | {
            "now": self._sql.moment(now),
            "worker": worker_id,
            "alone_from": ALONE_AT if in_company else MAX_INTERRUPTIONS,
            "alone_until": MAX_INTERRUPTIONS - 1,
        }

        def change(connection: sa.Connection) -> Sequence[Sequence[Any]]:
            self._lock(connection, [request.id for request in requests])
            if any(request.dead for request in requests):
                self._sql.interrupted.run(connection, values)
            return self._sql.start_all(connection, values)

        won = {row[0]: row for row in await self._database.transact(change, is_repeatable=True)}
        return [_started(won[request.id], request.claim, now) for request in requests if request.id in won]

    async def settle(self, settlement: Settlement) -> bool:
        """Write how an attempt ended; return whether it still was this attempt's to end."""
        (won,) = await self.settle_all([settlement])
        if isinstance(won, Exception):
            raise won
        return won

    async def settle_all(self, settlements: Sequence[Settlement]) -> list[bool | Exception]:
        """Write how attempts ended, in one transaction; return of each whether it still was this attempt's to end.

        The answer for one that was not written is what went wrong: a bad one never takes its neighbours along.
        """
        return await in_parts(self._settle, settlements)

    async def checkpoint(self, job: Started, state: Any, *, now: datetime) -> bool:
        """Store from where the next attempt goes on; return whether the job still is this attempt's.

        The row is locked first: a stale attempt that waited for another's start must see it.
        """
        insert = (postgresql if self._database.dialect == "postgresql" else sqlite).insert(checkpoints)
        values = [jobs.c.id, jobs.c.attempts, sa.literal(state, Json), sa.literal(now, UtcTime)]
        fence = [jobs.c.id == job.id, jobs.c.status == Status.RUNNING, jobs.c.attempts == job.attempts]
        rows = sa.select(*values).where(*fence, jobs.c.claim == job.claim)
        fenced = insert.from_select(list(checkpoints.c), rows)
        renewed = {name: fenced.excluded[name] for name in ("attempt", "state", "updated_at")}
        statement = fenced.on_conflict_do_update(index_elements=[checkpoints.c.job_id], set_=renewed)

        def change(connection: sa.Connection) -> bool:
            self._lock(connection, [job.id])
            return connection.execute(statement.returning(checkpoints.c.job_id)).first() is not None

        return await self._database.transact(change)

    async def cancel(self, job_id: str, *, include_running: bool, now: datetime) -> Job | None:
        """Cancel a live job; return its row as it is now, or None if it was not live (or running and spared)."""
        spared = (Status.PENDING, Status.RUNNING) if include_running else (Status.PENDING,)
        return await self._change(
            jobs.c.id == job_id, jobs.c.status.in_(spared), status=Status.CANCELLED, completed_at=now
        )

    async def end_pending(self, job_id: str, failure: Failure, *, now: datetime) -> Job | None:
        """End a waiting job failed (it expired, say); return its row, or None if it no longer waits."""
        return await self._change(
            jobs.c.id == job_id,
            jobs.c.status == Status.PENDING,
            status=Status.FAILED,
            completed_at=now,
            **_error_columns(failure),
        )

    async def reprioritise(
        self, job_id: str, *, priority: int | None = None, due_at: datetime | None = None, eta: datetime | None = None
    ) -> Job | None:
        """Give a waiting job another priority, another time, or both; return its row, or None if it no longer waits.

        With ``due_at``, ``eta`` is the time that was asked for, and its expiry moves along.
        """
        is_waiting = (jobs.c.id == job_id, jobs.c.status == Status.PENDING)

        def change(connection: sa.Connection) -> Job | None:
            times = sa.select(jobs.c.due_at, jobs.c.expires_at).where(*is_waiting).with_for_update()
            before = connection.execute(times).first()
            if before is None:
                return None
            values: dict[str, Any] = {} if priority is None else {"priority": priority}
            if due_at is not None:
                expires_at = before.expires_at and before.expires_at + (due_at - before.due_at)
                values |= {"due_at": due_at, "scheduled_for": eta, "expires_at": expires_at}
            statement = sa.update(jobs).where(*is_waiting).values(values).returning(*_JOB_COLUMNS)
            return job_from(connection.execute(statement).mappings().one())

        return await self._database.transact(change)

    async def close(self) -> None:
        """Commit what is still on its way."""
        await self._accepts.close()

    async def _change(self, *guard: sa.ColumnElement[bool], **values: Any) -> Job | None:
        statement = sa.update(jobs).where(*guard).values(values).returning(*_JOB_COLUMNS)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().first()
            job = None if row is None else job_from(row)
            if job is not None and job.status.is_final:
                await connection.execute(_drop_checkpoints([job.id]))
            ended = [job.id] if job is not None and job.status.is_final else []
            told = await connection.run_sync(insert_deliveries, ended)
        self._offer(told)
        return job

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        completed = self._completions([s for s in settlements if s.status is Status.COMPLETED])
        others = self._endings([s for s in settlements if s.status is not Status.COMPLETED])
        noted = self._endings([s for s in settlements if not s.is_plain])

        def change(connection: sa.Connection) -> tuple[set[str], list[NewJob]]:
            ids = [settlement.id for settlement in settlements]
            self._lock(connection, ids)
            if noted:  # before the update, while the guard still finds the row running
                self._sql.note.run(connection, noted)
            written = self._sql.complete.run(connection, completed).rowcount if completed else 0
            written += self._sql.settle.run(connection, others).rowcount if others else 0
            won = set(ids)
            if written < len(ids):  # some perhaps committed before, and the reply was lost
                won = {row[0] for row in self._sql.settled.run(connection, self._endings(settlements)).fetchall()}
            if ended := [s.id for s in settlements if s.drops_checkpoint and s.id in won]:
                connection.execute(_drop_checkpoints(ended))
            told = insert_deliveries(connection, [s.id for s in settlements if s.status.is_final and s.id in won])
            return won, told

        won, told = await self._database.transact(change)
        self._offer(told)
        return [settlement.id in won for settlement in settlements]

    def _completions(self, settlements: Sequence[Settlement]) -> dict[str, Any]:
        rows = [(s.id, s.attempts, s.claim, s.ended_at, s.result, s.progress_message, s.stage) for s in settlements]
        return self._sql.completions.values(self._database.dialect, rows) if rows else {}

    def _endings(self, settlements: Sequence[Settlement]) -> dict[str, Any]:
        rows = [_ending(settlement) for settlement in settlements]
        return self._sql.endings.values(self._database.dialect, rows) if rows else {}

    def _lock(self, connection: sa.Connection, ids: Iterable[str]) -> None:
        """Lock the rows in one order, so that batches of several workers never deadlock on PostgreSQL."""
        if self._database.dialect == "postgresql":
            self._sql.lock.run(connection, {"ids": sorted(ids)})


def _drop_checkpoints(ids: Sequence[str]) -> sa.Delete:
    return sa.delete(checkpoints).where(checkpoints.c.job_id.in_(ids))


def _error_columns(failure: Failure) -> dict[str, Any]:
    return {
        "error_code": failure.code,
        "error_type": failure.type,
        "error_message": failure.message,
        "error_traceback": failure.traceback,
        "is_retryable": failure.is_retryable,
    }


def _started(row: Sequence[Any], claim: str, now: datetime) -> Started:
    (*plain, created_at, due_at), params = row, row[_PARAMS]
    plain[_PARAMS] = orjson.loads(params)
    if isinstance(created_at, str):
        created_at, due_at = parse_iso(created_at), parse_iso(due_at)
    return Started._make((*plain, created_at, due_at, claim, now))


_PARAMS = Started._fields.index("params")


def _ending(settlement: Settlement) -> tuple[Any, ...]:
    """Return the values of a settlement in the order of the ``endings`` columns."""
    error = settlement.error
    return (
        settlement.id,
        settlement.attempts,
        settlement.claim,
        settlement.status.value,
        settlement.outcome,
        settlement.ended_at,
        settlement.due_at,
        settlement.result,
        error.code if error else None,
        error.type if error else None,
        error.message if error else None,
        error.traceback if error else None,
        error.is_retryable if error else None,
        settlement.progress,
        settlement.progress_message,
        settlement.stage,
    )
