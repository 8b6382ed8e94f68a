"""ARI snapshots: what they are, and the questions that the ARI family asks of them in SQL.

Every question reads through a connection of its own, so that none is held while a job reports progress
or computes. Each is one statement and runs alike on SQLite and PostgreSQL.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field, JsonValue

from app.database import Database
from app.jobs.ari import Metric, MetricSummary, Quantiles, UserSummary
from app.jobs.fields import Identifier, Moment, Number
from app.records.record import Record, RecordType

Score = Annotated[Number, Field(ge=0, le=1)]
SignedScore = Annotated[Number, Field(ge=-1, le=1)]


class AriSnapshot(Record):
    """How autonomous a user was at one moment, mostly at the end of a task."""

    snapshot_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Whose snapshot it is."""
    timestamp: Moment
    """When it was taken."""
    decision_quality: Score
    """How good the user's decisions were, 0–1."""
    skill_development: SignedScore
    """How the user's own skill changed, −1–1."""
    ai_reliance: Score
    """How much the user leant on the AI, 0–1; less is better."""
    bottleneck_resolution: Score
    """How well bottlenecks were got out of the way, 0–1."""
    user_confidence: Score
    """How sure of themselves the user was, 0–1."""
    engagement: Score
    """How engaged the user was, 0–1."""
    autonomy_perception: Score
    """How autonomous the user felt, 0–1."""
    autonomy_retention: Score
    """How much control the user kept, 0–1."""
    delta_agency: SignedScore
    """How the user's agency changed on balance, −1–1."""
    task_id: Identifier | None = None
    """The task it was taken at, in the words of the system that took it."""
    task_type: Identifier | None = None
    """The kind of that task."""
    bhir: Annotated[Number, Field(ge=0)] | None = None
    """The beyond-horizon impact ratio: lasting benefit over human input; below 1 the input was not worth it."""
    task_efficacy: Score | None = None
    """How well the task reached the user's goal, 0–1."""
    user_skill_before: Score | None = None
    """The user's skill before the task, 0–1."""
    user_skill_after: Score | None = None
    """The user's skill after the task, 0–1."""
    task_description: Annotated[str, Field(max_length=10_000)] | None = None
    """What the task was."""
    task_complexity: Identifier | None = None
    """How complex the task was, as a word."""
    session_id: Identifier | None = None
    """The session it belongs to."""
    metadata: dict[str, JsonValue] | None = None
    """Anything else the system that took it wants to keep."""


ARI_SNAPSHOTS = RecordType(
    name="ari-snapshots",
    model=AriSnapshot,
    id_field="snapshot_id",
    summary="Measurements of how autonomous a user is while working with an AI.",
)

PERCENTS = (5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which snapshots a question is about; both ends belong to it."""

    user_id: str | None  # None is all users
    since: datetime
    until: datetime

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return it as the terms of a WHERE."""
        columns = ARI_SNAPSHOTS.table.c
        terms = [columns.timestamp >= self.since, columns.timestamp <= self.until]
        return terms if self.user_id is None else [columns.user_id == self.user_id, *terms]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much there is in a window."""

    snapshots: int
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPage:
    """Some snapshots of one user, oldest first, in columns."""

    times: list[datetime]
    scores: list[tuple[float | None, ...]]  # each: the metrics in the order of Metric, then bhir; only bhir can be None


async def measure_extent(database: Database, window: Window) -> Extent:
    """Count the snapshots and the users of a window."""
    columns = ARI_SNAPSHOTS.table.c
    counts = sa.select(sa.func.count(), sa.func.count(columns.user_id.distinct())).where(*window.conditions())
    async with database.read() as connection:
        snapshots, users = (await connection.execute(counts)).one()
    return Extent(snapshots=snapshots, users=users)


async def summarize_metric(database: Database, window: Window, metric: Metric) -> MetricSummary:
    """Summarise one metric in the database; nothing but the few numbers of the answer leaves it.

    The variance is the mean of squared deviations from the average (two passes), not the difference of two
    large sums, which loses its digits when the values are close together.
    """
    moments, latest, places = _moments(window, metric), _latest(window, metric), _places(window, metric)
    async with database.read() as connection:
        count, average, low, high, deviations = (await connection.execute(moments)).one()
        if count == 0:
            return MetricSummary()
        newest = (await connection.execute(latest)).scalar_one()
        ordered = {row.place: (row.value, row.total) for row in await connection.execute(places)}
    return MetricSummary(
        count=count,
        average=average,
        min=low,
        max=high,
        latest=newest,
        stdev=(deviations / (count - 1)) ** 0.5 if count > 1 else None,
        quantiles=Quantiles(**{f"p{percent:02}": _quantile(ordered, percent) for percent in PERCENTS}),
    )


def _moments(window: Window, metric: Metric) -> sa.Select[Any]:
    """Return count, average, least, greatest and the sum of squared deviations."""
    value = ARI_SNAPSHOTS.table.c[metric]
    mean = sa.select(sa.func.avg(value).label("mean")).where(*window.conditions()).cte("mean")
    deviation = value - mean.c.mean
    return (
        sa.select(
            sa.func.count(value),
            sa.func.avg(value),
            sa.func.min(value),
            sa.func.max(value),
            sa.func.sum(deviation * deviation),
        )
        .select_from(ARI_SNAPSHOTS.table.join(mean, sa.true()))
        .where(*window.conditions())
    )


def _latest(window: Window, metric: Metric) -> sa.Select[Any]:
    columns = ARI_SNAPSHOTS.table.c
    newest_first = (columns.timestamp.desc(), columns.snapshot_id.desc())
    return sa.select(columns[metric]).where(*window.conditions()).order_by(*newest_first).limit(1)


def _places(window: Window, metric: Metric) -> sa.Select[Any]:
    """Return the two ordered values around every quantile, by their place from 1, with the number of values.

    Places are whole-number arithmetic, so that both databases find the same ones: a quantile of n values
    lies (n − 1)·percent/100 steps after the first.
    """
    value = ARI_SNAPSHOTS.table.c[metric]
    place = sa.func.row_number().over(order_by=value).label("place")
    total = sa.func.count().over().label("total")
    ranked = sa.select(value.label("value"), place, total).where(*window.conditions()).subquery()
    floors = [1 + (ranked.c.total - 1) * percent // 100 for percent in PERCENTS]
    return sa.select(ranked).where(sa.or_(*(ranked.c.place.in_([floor, floor + 1]) for floor in floors)))


def _quantile(ordered: dict[int, tuple[float, int]], percent: int) -> float:
    """Interpolate between the two values around a quantile; ``ordered`` is place → (value, number of values)."""
    total = next(iter(ordered.values()))[1]
    steps, rest = divmod((total - 1) * percent, 100)
    low = ordered[1 + steps][0]
    return low + (ordered[2 + steps][0] - low) * rest / 100 if rest else low


async def summarize_users(database: Database, window: Window, *, batch: int = 100) -> AsyncIterator[list[UserSummary]]:
    """Yield a window's users in the order of their ids, ``batch`` at a time, grouped in SQL."""
    columns = ARI_SNAPSHOTS.table.c
    averages = [sa.func.avg(columns[metric]) for metric in Metric]
    grouped = (
        sa.select(columns.user_id, sa.func.count(), sa.func.max(columns.timestamp), *averages)
        .where(*window.conditions())
        .group_by(columns.user_id)
        .order_by(columns.user_id)
        .limit(batch)
    )
    page = grouped
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(page)).all()
        if rows:
            yield [_user_summary(row) for row in rows]
        if len(rows) < batch:
            return
        page = grouped.where(columns.user_id > rows[-1][0])


async def read_users(database: Database, window: Window, *, batch: int = 200) -> AsyncIterator[list[str]]:
    """Yield the users who have a snapshot in the window, in the order of their ids, ``batch`` at a time."""
    user = ARI_SNAPSHOTS.table.c.user_id
    ordered = sa.select(user).distinct().where(*window.conditions()).order_by(user).limit(batch)
    page = ordered
    while True:
        async with database.read() as connection:
            users = list((await connection.execute(page)).scalars())
        if users:
            yield users
        if len(users) < batch:
            return
        page = ordered.where(user > users[-1])


def _user_summary(row: Sequence[Any]) -> UserSummary:
    user_id, count, latest_at, *averages = row
    return UserSummary(
        user_id=user_id,
        aggregated_count=count,
        latest_at=latest_at,
        averages={metric: round(average, 6) for metric, average in zip(Metric, averages, strict=True)},
    )


async def read_snapshots(database: Database, window: Window, *, batch: int = 1000) -> AsyncIterator[SnapshotPage]:
    """Yield the scores of a window's snapshots, oldest first, ``batch`` at a time.

    A window on one user walks the index on (user, time, id). A thousand rows keep the event loop for about
    ten milliseconds while their times are parsed.
    """
    columns = ARI_SNAPSHOTS.table.c
    position = sa.tuple_(columns.timestamp, columns.snapshot_id)
    ordered = (
        sa.select(columns.timestamp, columns.snapshot_id, *(columns[metric] for metric in Metric), columns.bhir)
        .where(*window.conditions())
        .order_by(columns.timestamp, columns.snapshot_id)
        .limit(batch)
    )
    page = ordered
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(page)).all()
        if rows:
            yield SnapshotPage(times=[row[0] for row in rows], scores=[tuple(row[2:]) for row in rows])
        if len(rows) < batch:
            return
        # Typed, or SQLite compares its stored text with the driver's own spelling of a time.
        reached = (sa.literal(rows[-1][0], columns.timestamp.type), sa.literal(rows[-1][1]))
        page = ordered.where(position > sa.tuple_(*reached))
