"""The reading half of history: single jobs, keyset lists, counts, attempts, and the sweep's pages."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson
import sqlalchemy as sa

from app.clock import iso, parse_iso
from app.database import Database
from app.errors import BadRequest
from app.history.rows import Attempt, Job, failure_from, job_from
from app.history.switches import Switch, read_switches
from app.history.tables import attempts, checkpoints, jobs
from app.jobs.status import LIVE, Status
from app.jobs.webhook import deliver

_JOB_COLUMNS = [column.label(column.key) for column in jobs.c]
# As in the partial indexes, to the letter: neither database finds them by a parameter.
_LIVE: sa.ColumnElement[bool] = sa.literal_column("background_tasks.status IN ('pending', 'running')")
_DEAD: sa.ColumnElement[bool] = sa.literal_column("background_tasks.status IN ('failed', 'cancelled')")
_DEAD_STATUSES = frozenset({Status.FAILED, Status.CANCELLED})

COUNTED = 10_000  # how far the jobs of a list are counted; of a longer one only that is said

_WAITING: sa.ColumnElement[bool] = sa.literal_column("status = 'pending'")  # the same

Sort = Literal["-created_at", "created_at", "-priority", "priority"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are meant; conditions combine, None asks for nothing."""

    owner: str | None = None  # whose jobs: the caller's own, or everybody's
    statuses: frozenset[Status] | None = None
    was_tried: bool | None = None  # of the pending ones: only those after an attempt, or only those before any
    task_type: str | None = None
    kind: str | None = None
    family: str | None = None
    queue: str | None = None
    user_id: str | None = None
    priority: int | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    q: str | None = None  # a piece of the id, kind, user or error message
    origin: Literal["people", "cron", "all"] = "people"
    ids: Sequence[str] | None = None  # only these, at most 1,000
    due_after: datetime | None = None  # of the waiting ones: only those that wait for a later time
    has_result: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of jobs; ``next_cursor`` is None on the last."""

    jobs: list[Job]
    next_cursor: str | None


class LiveJob(NamedTuple):
    """Where in Redis a job that has not ended must be found."""

    id: str
    created_at: datetime
    queue: str
    priority: int
    due_at: datetime


class Reader:
    """Queries over history. Never writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> Job | None:
        """Return one job by id."""
        return (await self.get_many([job_id])).get(job_id)

    async def get_many(self, ids: Sequence[str]) -> dict[str, Job]:
        """Return the jobs among ``ids`` (at most 1,000) that exist, by id."""
        query = sa.select(*_JOB_COLUMNS).where(jobs.c.id.in_(ids))
        async with self._database.read() as connection:
            return {row["id"]: job_from(row) for row in (await connection.execute(query)).mappings()}

    async def page(
        self,
        wanted: JobFilter,
        *,
        sort: Sort = "-created_at",
        limit: int = 100,
        offset: int = 0,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page in ``sort`` order, ties by id; start after ``cursor`` or at ``offset``."""
        column = jobs.c[sort.removeprefix("-")]
        is_falling = sort.startswith("-")
        query = sa.select(*_JOB_COLUMNS).where(*conditions_of(wanted)).limit(limit + 1).offset(offset)
        if cursor is not None:
            value, job_id = read_cursor(cursor, column)
            after, last = sa.tuple_(column, jobs.c.id), sa.tuple_(sa.literal(value, column.type), job_id)
            query = query.where(after < last if is_falling else after > last)
        order = (column.desc(), jobs.c.id.desc()) if is_falling else (column, jobs.c.id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(*order))).mappings().all()
        found = [job_from(row) for row in rows[:limit]]
        return JobPage(jobs=found, next_cursor=cursor_of(found[-1], column) if len(rows) > limit else None)

    async def ids(self, wanted: JobFilter, *, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        """Return the ids of one page, oldest first, and where the next one starts, None on the last."""
        place = (jobs.c.created_at, jobs.c.id)
        query = sa.select(*place).where(*conditions_of(wanted)).order_by(*place).limit(limit + 1)
        if cursor is not None:
            at, job_id = read_cursor(cursor, jobs.c.created_at)
            last = sa.tuple_(sa.literal(at, jobs.c.created_at.type), sa.literal(job_id))
            query = query.where(sa.tuple_(*place) > last)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        found = [row.id for row in rows[:limit]]
        return found, _pack(iso(rows[limit - 1].created_at), found[-1]) if len(rows) > limit else None

    async def count(self, wanted: JobFilter, *, limit: int | None = None) -> int:
        """Return how many jobs there are of this description; with a ``limit``, no more than that are counted."""
        found = sa.select(sa.literal(1)).select_from(jobs).where(*conditions_of(wanted)).limit(limit).subquery()
        query = sa.select(sa.func.count()).select_from(found)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def ended_between(self, since: datetime, until: datetime, *, limit: int) -> list[str]:
        """Return the ids of jobs that ended in a span of time, oldest first, at most ``limit``."""
        query = sa.select(jobs.c.id).where(jobs.c.completed_at >= since, jobs.c.completed_at < until)
        async with self._database.read() as connection:
            ordered = query.order_by(jobs.c.completed_at, jobs.c.id).limit(limit)
            return list((await connection.execute(ordered)).scalars())

    async def count_waiting(self, owners: Iterable[str], *, at_most: int) -> dict[str, int]:
        """Return how many jobs of each owner wait; ``at_most`` are counted, by an index of just these."""
        is_theirs = jobs.c.submitted_by == sa.bindparam("owner")
        found = sa.select(sa.literal(1)).select_from(jobs).where(is_theirs, _WAITING).limit(at_most)
        query = sa.select(sa.func.count()).select_from(found.subquery())
        async with self._database.read() as connection:
            return {owner: int((await connection.execute(query, {"owner": owner})).scalar_one()) for owner in owners}

    async def attempts(self, job: Job) -> list[Attempt]:
        """Return every attempt of a job in order; the latest is told by the job's own row."""
        query = sa.select(*(c.label(c.key) for c in attempts.c)).where(attempts.c.job_id == job.id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(attempts.c.attempt))).mappings().all()
        told = [
            Attempt(
                error=failure_from(row), **{name: row[name] for name in Attempt.__dataclass_fields__ if name != "error"}
            )
            for row in rows
        ]
        if job.attempts and (not told or told[-1].attempt < job.attempts):
            told.append(_latest_attempt(job))
        return told

    async def live_page(self, *, before: LiveJob | None, limit: int = 1000) -> list[LiveJob]:
        """Return jobs that have not ended, youngest first, older than ``before``.

        Read from the index by status, so as two pages merged: a job that starts meanwhile keeps its place.
        """
        pages = [_live_page(status, before, limit) for status in (Status.PENDING, Status.RUNNING)]
        both = sa.union_all(*(sa.select(page.subquery()) for page in pages)).subquery()
        query = sa.select(both).order_by(both.c.created_at.desc(), both.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [LiveJob._make(row) for row in await connection.execute(query)]

    async def live_among(self, ids: Sequence[str]) -> set[str]:
        """Return which of these jobs (at most 1,000) have not ended."""
        query = sa.select(jobs.c.id).where(jobs.c.id.in_(ids), _LIVE)
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def running_under(self, claims: dict[str, str]) -> set[str]:
        """Return which of these jobs (id → claim) still run under that claim."""
        query = sa.select(jobs.c.id, jobs.c.claim).where(jobs.c.id.in_(claims), jobs.c.status == Status.RUNNING)
        async with self._database.read() as connection:
            return {job_id for job_id, claim in (await connection.execute(query)) if claims[job_id] == claim}

    async def checkpoint(self, job_id: str) -> Any:
        """Return the state that a live job's last checkpoint holds; None if there is none."""
        query = sa.select(checkpoints.c.state).where(checkpoints.c.job_id == job_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def last_ticks(self) -> dict[str, datetime]:
        """Return the latest tick that each schedule has submitted: two looks into the index a schedule."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_LAST_TICKS)).all()
        return {name: tick for name, tick in rows if tick is not None}

    async def switches(self) -> dict[str, Switch]:
        """Return the switches of schedules that were ever turned, by name."""
        return await read_switches(self._database)


def conditions_of(wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    """Return a filter as the terms of a WHERE."""
    equal = {
        jobs.c.submitted_by: wanted.owner,
        jobs.c.task_type: wanted.task_type,
        jobs.c.kind: wanted.kind,
        jobs.c.queue: wanted.queue,
        jobs.c.user_id: wanted.user_id,
        jobs.c.priority: wanted.priority,
    }
    found = [column == value for column, value in equal.items() if value is not None]
    if wanted.ids is not None:
        found.append(jobs.c.id.in_(wanted.ids))
    if wanted.statuses is not None:
        found += status_terms(wanted.statuses)
    if wanted.was_tried is not None:
        tried = jobs.c.attempts > 0 if wanted.was_tried else jobs.c.attempts == 0
        found.append(sa.or_(jobs.c.status != Status.PENDING, tried))
    if wanted.family is not None:
        found.append(jobs.c.kind.startswith(f"{wanted.family}.", autoescape=True))
    if wanted.q is not None:
        searched = (jobs.c.id, jobs.c.kind, jobs.c.user_id, jobs.c.error_message)
        found.append(sa.or_(*(column.icontains(wanted.q, autoescape=True) for column in searched)))
    if wanted.has_result:
        found.append(jobs.c.result.is_not(None))
    return [*found, *_times(wanted), *_origin(wanted)]


def status_terms(statuses: Collection[Status]) -> list[sa.ColumnElement[bool]]:
    """Return "is one of these" as literal terms, with the predicate of the partial index that holds them all."""
    if not statuses:
        return [sa.false()]
    words = ", ".join(f"'{status.value}'" for status in Status if status in statuses)
    terms: list[sa.ColumnElement[bool]] = [
        sa.literal_column(f"background_tasks.status {'IN (' + words + ')' if ',' in words else '= ' + words}")
    ]
    if LIVE.issuperset(statuses):
        terms.append(_LIVE)
    elif _DEAD_STATUSES.issuperset(statuses):
        terms.append(_DEAD)
    return terms


def _live_page(status: Status, before: LiveJob | None, limit: int) -> sa.Select[Any]:
    columns = [jobs.c[name].label(name) for name in LiveJob._fields]
    place = (jobs.c.created_at, jobs.c.id)
    query = sa.select(*columns).where(*status_terms({status})).limit(limit)
    if before is not None:
        last = sa.tuple_(sa.literal(before.created_at, jobs.c.created_at.type), sa.literal(before.id))
        query = query.where(sa.tuple_(*place) < last)
    return query.order_by(*(column.desc() for column in place))


def _last_ticks() -> sa.Select[str, datetime | None]:
    """Ask for the next name again and again: neither database skips through an index by itself."""
    is_tick = (jobs.c.schedule.is_not(None), jobs.c.tick_at.is_not(None))
    names = (
        sa.select(sa.func.min(jobs.c.schedule).label("name"))
        .where(jobs.c.schedule.is_not(None))
        .cte("names", recursive=True)
    )
    following = sa.select(sa.func.min(jobs.c.schedule)).where(jobs.c.schedule > names.c.name).scalar_subquery()
    names = names.union_all(sa.select(following).where(names.c.name.is_not(None)))
    last = sa.select(sa.func.max(jobs.c.tick_at, type_=jobs.c.tick_at.type)).where(
        jobs.c.schedule == names.c.name, *is_tick
    )
    return sa.select(names.c.name, last.scalar_subquery()).where(names.c.name.is_not(None))


_LAST_TICKS = _last_ticks()


def _times(wanted: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.created_after is not None:
        yield jobs.c.created_at >= wanted.created_after
    if wanted.created_before is not None:
        yield jobs.c.created_at < wanted.created_before
    if wanted.due_after is not None:
        yield jobs.c.due_at > wanted.due_after


def _origin(wanted: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    match wanted.origin:
        case "people":
            yield jobs.c.tick_at.is_(None)  # what somebody runs by hand names its schedule, but no tick
            if wanted.kind is None and wanted.family is None and wanted.queue is None:
                yield jobs.c.kind != deliver.kind
        case "cron":
            yield jobs.c.tick_at.is_not(None)
        case "all":
            pass


def _latest_attempt(job: Job) -> Attempt:
    return Attempt(
        attempt=job.attempts,
        outcome=job.status.value,
        worker_id=job.worker_id,
        started_at=job.started_at,
        ended_at=job.completed_at,
        error=job.error,
    )


def cursor_of(job: Job, column: sa.Column[Any]) -> str:
    """Write where the page after this job starts, in the order of a column."""
    value = getattr(job, column.key)
    plain = iso(value) if isinstance(value, datetime) else value
    return _pack(plain, job.id)


def _pack(place: str | int, job_id: str) -> str:
    return urlsafe_b64encode(orjson.dumps([place, job_id])).decode().rstrip("=")


def read_cursor(cursor: str, column: sa.Column[Any]) -> tuple[Any, str]:
    """Read what :func:`cursor_of` wrote; raise BadRequest for anything else."""
    try:
        value, job_id = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = parse_iso(value) if column.key == "created_at" else int(value)
        if isinstance(place, int) and place not in range(1, 11):
            raise ValueError("not a priority")
        return place, str(job_id)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest("The cursor is not one that a list answered; leave it out to start over.") from error
