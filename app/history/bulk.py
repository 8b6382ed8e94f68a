"""Changes of many jobs at once, each guarded by the row's status. Called by ``app.lifecycle`` alone.

A batch is one transaction; what came too late for it is simply not among the rows that come back.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.database import Database
from app.history.deliveries import Offer, insert_deliveries, offer_nobody
from app.history.retention import IS_LAST_TICK
from app.history.rows import Job, NewJob, job_from
from app.history.tables import attempts, checkpoints, discards, jobs
from app.history.webhooks import deliveries
from app.jobs.status import FINAL, Status

_JOB_COLUMNS = [column.label(column.key) for column in jobs.c]


class Bulk:
    """The changes of batches of up to 1,000 jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.offer: Offer = offer_nobody  # rings the jobs that tell webhooks of what was cancelled

    async def cancel(self, ids: Sequence[str], *, include_running: bool, now: datetime) -> list[Job]:
        """Cancel what lives of these jobs; return their rows as they are now."""
        spared = (Status.PENDING, Status.RUNNING) if include_running else (Status.PENDING,)
        return await self._change(ids, spared, status=Status.CANCELLED, completed_at=now)

    async def reprioritise(self, ids: Sequence[str], *, priority: int) -> list[Job]:
        """Give what waits of these jobs another priority; return their rows."""
        return await self._change(ids, (Status.PENDING,), priority=priority)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete what has ended of these jobs, with all that belongs to it; return the ids.

        The job of each schedule's last tick stays.
        """
        is_ended = (jobs.c.id.in_(ids), jobs.c.status.in_(FINAL), sa.not_(IS_LAST_TICK))

        def change(connection: sa.Connection) -> list[str]:
            gone = list(connection.execute(sa.delete(jobs).where(*is_ended).returning(jobs.c.id)).scalars())
            for table in (attempts, discards):
                connection.execute(sa.delete(table).where(table.c.job_id.in_(gone)))
            connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(gone)))
            return gone

        return await self._database.transact(change)

    async def forget_results(self, ids: Sequence[str]) -> list[str]:
        """Forget what these jobs returned; their rows stay. Return the ids of those that had a result."""
        found = sa.update(jobs).where(jobs.c.id.in_(ids), jobs.c.status.in_(FINAL), jobs.c.result.is_not(None))
        statement = found.values(result=sa.null()).returning(jobs.c.id)
        return await self._database.transact(lambda connection: list(connection.execute(statement).scalars()))

    async def _change(self, ids: Sequence[str], statuses: Sequence[Status], **values: Any) -> list[Job]:
        rows = (jobs.c.id.in_(ids), jobs.c.status.in_(statuses))
        in_order = sa.select(jobs.c.id).where(*rows).order_by(jobs.c.id).with_for_update()
        statement = sa.update(jobs).where(*rows).values(values).returning(*_JOB_COLUMNS)

        def change(connection: sa.Connection) -> tuple[list[Job], list[NewJob]]:
            connection.execute(in_order)  # locked as everybody locks them, so that batches never wait in a circle
            changed = [job_from(row) for row in connection.execute(statement).mappings()]
            ended = [job.id for job in changed if job.status.is_final]
            if ended:
                connection.execute(sa.delete(checkpoints).where(checkpoints.c.job_id.in_(ended)))
            return changed, insert_deliveries(connection, ended)

        changed, told = await self._database.transact(change)
        self.offer(told)
        return changed
