"""Figures of what has ended: counts, durations and waits of a stretch of time, counted in SQL on both databases.

Every question reads the index of ends (``ix_background_tasks_ended``); nothing but the figures leaves the database.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.database import Database
from app.history.reader import status_terms
from app.history.tables import jobs
from app.jobs.status import Status

PERCENTS = (50, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Jobs that ended in ``[since, until)``."""

    since: datetime
    until: datetime

    def conditions(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Return it as the terms of a WHERE."""
        return jobs.c.completed_at >= self.since, jobs.c.completed_at < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRunning:
    """Jobs of one kind that have run for long."""

    kind: str
    count: int
    started_at: datetime  # of the one that runs longest


async def count_by_queue(database: Database, stretch: Stretch) -> dict[str, dict[Status, int]]:
    """Count how jobs ended, by queue."""
    query = sa.select(jobs.c.queue, jobs.c.status, sa.func.count()).where(*stretch.conditions())
    counts: dict[str, dict[Status, int]] = {}
    async with database.read() as connection:
        for queue, status, count in await connection.execute(query.group_by(jobs.c.queue, jobs.c.status)):
            counts.setdefault(queue, {})[Status(status)] = count
    return counts


async def count_errors(database: Database, stretch: Stretch) -> dict[str, int]:
    """Count failed jobs by the code of their error."""
    code = sa.func.coalesce(jobs.c.error_code, "unknown")
    query = sa.select(code, sa.func.count()).where(*stretch.conditions(), jobs.c.status == Status.FAILED)
    async with database.read() as connection:
        rows = (await connection.execute(query.group_by(code).order_by(code))).all()
    return {row[0]: row[1] for row in rows}


async def count_submitters(database: Database, stretch: Stretch) -> int:
    """Count the different users who submitted a job in a stretch of time; the clock is not one of them."""
    submitted = (jobs.c.created_at >= stretch.since, jobs.c.created_at < stretch.until, jobs.c.tick_at.is_(None))
    query = sa.select(sa.func.count(jobs.c.submitted_by.distinct())).where(*submitted)
    async with database.read() as connection:
        return int((await connection.execute(query)).scalar_one())


async def duration_percentiles(database: Database, stretch: Stretch) -> dict[int, float]:
    """Return percentiles of how long the last attempts of completed jobs ran, in seconds; empty when there are none."""
    seconds = _seconds(database, jobs.c.started_at, jobs.c.completed_at)
    return await _percentiles(database, seconds, *stretch.conditions(), jobs.c.status == Status.COMPLETED)


async def wait_percentiles(database: Database, stretch: Stretch) -> dict[int, float]:
    """Return percentiles of how long jobs that ran were due before their last attempt started, in seconds."""
    seconds = _seconds(database, jobs.c.due_at, jobs.c.started_at)
    return await _percentiles(database, seconds, *stretch.conditions(), jobs.c.started_at.is_not(None))


async def long_running(database: Database, now: datetime, *, longer_than: timedelta) -> list[LongRunning]:
    """Return the kinds of which jobs have run for longer than this, by name."""
    started = sa.func.min(jobs.c.started_at, type_=jobs.c.started_at.type)
    query = sa.select(jobs.c.kind, sa.func.count(), started).where(
        *status_terms({Status.RUNNING}), jobs.c.started_at < now - longer_than
    )
    async with database.read() as connection:
        rows = await connection.execute(query.group_by(jobs.c.kind).order_by(jobs.c.kind))
        return [LongRunning(kind=kind, count=count, started_at=at) for kind, count, at in rows]


def _seconds(database: Database, since: sa.Column[Any], until: sa.Column[Any]) -> sa.ColumnElement[float]:
    """Return the seconds between two times, never below 0; SQLite knows milliseconds and no less."""
    if database.dialect == "sqlite":
        days: sa.ColumnElement[float] = sa.func.julianday(until) - sa.func.julianday(since)
        return sa.func.max(sa.func.round(days * 86_400.0, 3), 0.0)
    return sa.func.greatest(sa.cast(sa.extract("epoch", until - since), sa.Float), 0.0)


async def _percentiles(
    database: Database, seconds: sa.ColumnElement[float], *which: sa.ColumnElement[bool]
) -> dict[int, float]:
    """Return the percentiles with linear interpolation: of n values, p lies (n − 1)·p/100 steps after the first.

    Places are whole-number arithmetic, so that both databases find the same ones.
    """
    place = sa.func.row_number().over(order_by=seconds).label("place")
    ranked = sa.select(seconds.label("seconds"), place, sa.func.count().over().label("total")).where(*which).subquery()
    floors = [1 + (ranked.c.total - 1) * percent // 100 for percent in PERCENTS]
    wanted = sa.select(ranked).where(sa.or_(*(ranked.c.place.in_([floor, floor + 1]) for floor in floors)))
    async with database.read() as connection:
        places = {row.place: (row.seconds, row.total) for row in await connection.execute(wanted)}
    return {percent: _interpolated(places, percent) for percent in PERCENTS} if places else {}


def _interpolated(places: dict[int, tuple[float, int]], percent: int) -> float:
    total = next(iter(places.values()))[1]
    steps, rest = divmod((total - 1) * percent, 100)
    low = places[1 + steps][0]
    return low + (places[2 + steps][0] - low) * rest / 100 if rest else low
