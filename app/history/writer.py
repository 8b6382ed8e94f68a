"""Every change of a job's row, as a guarded compare-and-set. Called by ``app.lifecycle`` alone.

Each statement has one text for every batch size and both databases. A write that matches no row means
that somebody else was first; the methods say who won and never raise for it. All of them may be sent
again after a lost reply: a second time changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import RowMapping
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database, Json, Rows, UtcTime
from app.group import GroupCommit
from app.history.bulk import Bulk
from app.history.receipts import Accepted, Receipt, accept_once
from app.history.rows import Failure, Job, NewJob, insertable, job_from
from app.history.tables import checkpoints, jobs, schedules
from app.jobs.status import Status

ALONE_AT = 2  # interruptions after which a job runs only where nothing else does
MAX_INTERRUPTIONS = 5  # after which it runs nowhere any more, although none of its processes was seen to die alone
_INSERT_ROWS = 1000  # a longer write would hold SQLite's only writer for too long
_JOB_COLUMNS = [column.label(column.key) for column in jobs.c]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Ask to start one claimed job. ``dead`` is the claim that Redis reports as lost, if any."""

    id: str
    claim: str
    dead: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job that may run now, fenced by ``(id, attempts, claim)``."""

    id: str
    kind: str
    queue: str
    priority: int
    params: dict[str, Any]
    user_id: str | None
    submitted_by: str
    claim: str
    attempts: int
    failures: int
    interruptions: int
    max_retries: int
    created_at: datetime
    due_at: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one attempt ended, to be written if ``(id, attempts, claim)`` still runs."""

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
        self._sql = _Statements(database.dialect)
        self._accepts: GroupCommit[Sequence[NewJob], None] = GroupCommit(self._insert)
        self._settles: GroupCommit[Settlement, bool] = GroupCommit(self._settle)

    async def accept(self, accepted: Sequence[NewJob]) -> None:
        """Insert jobs, all or none; returns once they are committed."""
        await self._accepts(accepted)

    async def accept_once(self, accepted: Sequence[NewJob], receipt: Receipt | None) -> Accepted:
        """Insert jobs whose keys are free, together with what their request is answered; or say what is in the way."""
        return await accept_once(self._database, accepted, receipt)

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
        batch = [(request.id, request.claim, request.dead) for request in requests]
        values = self._sql.claims.values(self._database.dialect, batch) | {
            "now": now,
            "worker": worker_id,
            "alone_from": ALONE_AT if in_company else MAX_INTERRUPTIONS,
            "alone_until": MAX_INTERRUPTIONS - 1,
        }

        def change(connection: sa.Connection) -> dict[str, RowMapping]:
            self._lock(connection, [request.id for request in requests])
            if any(request.dead for request in requests):
                connection.execute(self._sql.interrupted, values)
            return {row["id"]: row for row in connection.execute(self._sql.start, values).mappings()}

        won = await self._database.transact(change)
        return [
            Started(**won[request.id], claim=request.claim, started_at=now) for request in requests if request.id in won
        ]

    async def settle(self, settlement: Settlement) -> bool:
        """Write how an attempt ended; return whether it still was this attempt's to end."""
        return await self._settles(settlement)

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
        await self._settles.close()

    async def _change(self, *guard: sa.ColumnElement[bool], **values: Any) -> Job | None:
        statement = sa.update(jobs).where(*guard).values(values).returning(*_JOB_COLUMNS)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().first()
            job = None if row is None else job_from(row)
            if job is not None and job.status.is_final:
                await connection.execute(_drop_checkpoints([job.id]))
        return job

    async def _insert(self, groups: Sequence[Sequence[NewJob]]) -> Sequence[None]:
        rows = [insertable(job) for group in groups for job in group]
        insert = (postgresql if self._database.dialect == "postgresql" else sqlite).insert(jobs)
        statement = insert.on_conflict_do_nothing(index_elements=[jobs.c.id])

        def change(connection: sa.Connection) -> None:
            for at in range(0, len(rows), _INSERT_ROWS):
                connection.execute(statement, rows[at : at + _INSERT_ROWS])

        await self._database.transact(change)
        return [None] * len(groups)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        values = self._sql.endings.values(self._database.dialect, [_ending(s) for s in settlements])
        noted = [_ending(s) for s in settlements if not s.is_plain]

        def change(connection: sa.Connection) -> set[str]:
            self._lock(connection, [settlement.id for settlement in settlements])
            if noted:  # before the update, while the guard still finds the row running
                connection.execute(self._sql.note, self._sql.endings.values(self._database.dialect, noted))
            won = set(connection.execute(self._sql.settle, values).scalars())
            if len(won) < len(settlements):  # perhaps committed before, and the reply was lost
                won |= set(connection.execute(self._sql.settled, values).scalars())
            if ended := [s.id for s in settlements if s.drops_checkpoint and s.id in won]:
                connection.execute(_drop_checkpoints(ended))
            return won

        won = await self._database.transact(change)
        return [settlement.id in won for settlement in settlements]

    def _lock(self, connection: sa.Connection, ids: Iterable[str]) -> None:
        """Lock the rows in one order, so that batches of several workers never deadlock on PostgreSQL."""
        if self._database.dialect == "postgresql":
            connection.execute(self._sql.lock, {"ids": sorted(ids)})


class _Statements:
    """The batch statements for one dialect. Batch columns are called ``row_…`` to tell them from the table's."""

    def __init__(self, dialect: str) -> None:
        self.claims = Rows(row_id="text", row_claim="text", row_dead="text")
        self.endings = Rows(
            row_id="text",
            row_attempts="integer",
            row_claim="text",
            row_status="text",
            row_outcome="text",
            row_ended_at="timestamptz",
            row_due_at="timestamptz",
            row_result="text",
            row_error_code="text",
            row_error_type="text",
            row_error_message="text",
            row_error_traceback="text",
            row_is_retryable="boolean",
            row_progress="double precision",
            row_progress_message="text",
            row_stage="text",
        )
        claims, endings = self.claims.sql(dialect), self.endings.sql(dialect)
        self.lock = sa.text(
            "SELECT 1 FROM background_tasks WHERE task_id = ANY(CAST(:ids AS text[])) ORDER BY task_id FOR UPDATE"
        )
        self.interrupted = _timed(_INTERRUPTED.format(rows=claims))
        self.start = _timed(_START.format(rows=claims, returning=_RETURNING)).columns(
            *(jobs.c[name].label(name) for name in _STARTED),
            params=Json,
            created_at=UtcTime,
            due_at=UtcTime,
        )
        self.note = sa.text(_NOTE.format(rows=endings))
        self.settle = sa.text(_SETTLE.format(rows=endings))
        self.settled = sa.text(_SETTLED.format(rows=endings))


_STARTED = tuple(name for name in Started.__dataclass_fields__ if name not in {"claim", "started_at"})
_RETURNING = ", ".join(f"{jobs.c[name].name} AS {name}" for name in _STARTED)

_INTERRUPTED = """
INSERT INTO task_attempts (task_id, attempt, outcome, worker_id, started_at, ended_at,
                           error_code, error_type, error_message)
SELECT task_id, attempts, 'interrupted', worker_id, started_at, :now, 'worker_lost', 'WorkerLost',
       'The worker stopped renewing its lease.'
FROM background_tasks JOIN {rows} ON task_id = row_id
WHERE status = 'running' AND claim = row_dead
ON CONFLICT DO NOTHING
"""

_START = """
UPDATE background_tasks SET
    attempts = attempts + CASE WHEN status = 'running' AND claim = row_claim THEN 0 ELSE 1 END,
    interruptions = interruptions + CASE WHEN status = 'running' AND claim <> row_claim THEN 1 ELSE 0 END,
    status = 'running', claim = row_claim, worker_id = :worker, started_at = :now,
    progress = 0, progress_message = NULL, stage = NULL
FROM {rows}
WHERE task_id = row_id AND (
    (status = 'pending' AND due_at <= :now AND (expires_at IS NULL OR expires_at > :now))
    OR (status = 'running' AND claim IN (row_dead, row_claim)))
    AND interruptions + CASE WHEN status = 'running' AND claim <> row_claim THEN 1 ELSE 0 END
        NOT BETWEEN :alone_from AND :alone_until
RETURNING {returning}
"""

_FENCE = "task_id = row_id AND status = 'running' AND attempts = row_attempts AND claim = row_claim"

_NOTE = f"""
INSERT INTO task_attempts (task_id, attempt, outcome, worker_id, started_at, ended_at,
                           error_code, error_type, error_message, error_traceback)
SELECT task_id, attempts, row_outcome, worker_id, started_at, row_ended_at,
       row_error_code, row_error_type, row_error_message, row_error_traceback
FROM background_tasks JOIN {{rows}} ON {_FENCE}
WHERE true
ON CONFLICT DO NOTHING
"""  # noqa: S608  # constants of this module

_SETTLE = f"""
UPDATE background_tasks SET
    status = row_status,
    completed_at = CASE WHEN row_status = 'pending' THEN NULL ELSE row_ended_at END,
    due_at = COALESCE(row_due_at, due_at),
    failures = failures + CASE WHEN row_outcome = 'failed' THEN 1 ELSE 0 END,
    interruptions = interruptions + CASE WHEN row_outcome = 'interrupted' THEN 1 ELSE 0 END,
    releases = releases + CASE WHEN row_outcome = 'released' THEN 1 ELSE 0 END,
    progress = row_progress, progress_message = row_progress_message, stage = row_stage, result = row_result,
    error_code = row_error_code, error_type = row_error_type, error_message = row_error_message,
    error_traceback = row_error_traceback, is_retryable = row_is_retryable
FROM {{rows}}
WHERE {_FENCE}
RETURNING task_id
"""  # noqa: S608  # constants of this module

_SETTLED = """
SELECT task_id FROM background_tasks JOIN {rows}
ON task_id = row_id AND status = row_status AND attempts = row_attempts AND claim = row_claim
WHERE status <> 'running'
"""


def _timed(text: str) -> sa.TextClause:
    return sa.text(text).bindparams(sa.bindparam("now", type_=UtcTime))


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
