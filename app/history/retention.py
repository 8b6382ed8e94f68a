"""Deleting ended jobs and their attempts, in short transactions. Live jobs are out of its reach."""

from collections.abc import AsyncIterator
from datetime import datetime

import sqlalchemy as sa

from app.database import Database
from app.history.tables import attempts, discards, jobs, receipts
from app.history.webhooks import deliveries
from app.jobs.status import Status

BATCH = 1_000  # rows of one transaction, so that other writers get their turn

_later = jobs.alias("later")
# By its last tick a schedule knows what it has missed.
IS_LAST_TICK = sa.and_(
    jobs.c.tick_at.is_not(None),
    ~sa.exists().where(_later.c.schedule == jobs.c.schedule, _later.c.tick_at > jobs.c.tick_at),
)


async def count_ended(database: Database, status: Status, cutoff: datetime) -> int:
    """Count the jobs that ended like this before a time."""
    counted = sa.select(sa.func.count()).select_from(jobs).where(*_ended(status, cutoff))
    async with database.read() as connection:
        return int((await connection.execute(counted)).scalar_one())


async def delete_ended(database: Database, status: Status, cutoff: datetime) -> AsyncIterator[int]:
    """Delete jobs that ended like this before a time, with their attempts; yield how many went, batch by batch.

    The job of each schedule's last tick stays. ``status`` is a final one; of any other there is no end.
    """
    position = (jobs.c.completed_at, jobs.c.id)
    page = sa.select(*position).where(*_ended(status, cutoff), sa.not_(IS_LAST_TICK))
    ordered = page.order_by(*position).limit(BATCH)
    page = ordered
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(page)).all()
        if rows:
            yield await _delete(database, [row[1] for row in rows])
        if len(rows) < BATCH:
            return
        reached = (sa.literal(rows[-1][0], jobs.c.completed_at.type), sa.literal(rows[-1][1]))
        page = ordered.where(sa.tuple_(*position) > sa.tuple_(*reached))


async def delete_receipts(database: Database, cutoff: datetime) -> int:
    """Forget what requests from before a time were answered; return how many that were."""
    async with database.write() as connection:
        return int((await connection.execute(sa.delete(receipts).where(receipts.c.created_at < cutoff))).rowcount)


def _ended(status: Status, cutoff: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.status == status, jobs.c.completed_at < cutoff


async def _delete(database: Database, ids: list[str]) -> int:
    async with database.write() as connection:
        for table in (attempts, discards):
            await connection.execute(sa.delete(table).where(table.c.job_id.in_(ids)))
        await connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(ids)))
        return int((await connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids)))).rowcount)
