"""Dead letters: failed jobs and what became of them. All but the discards follows from the rows of jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.history.reader import COUNTED, JobFilter, conditions_of, cursor_of, read_cursor, status_terms
from app.history.rows import Job, job_from
from app.history.tables import discards, jobs
from app.jobs.dead_letters import CODES, KEPT, Category, Fate
from app.jobs.status import Status

_child = jobs.alias("child")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A failed job, and what became of it."""

    job: Job
    fate: Fate
    discarded_at: datetime | None
    discarded_by: str | None
    replays: tuple[str, ...]  # the jobs that ran it again, oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters are meant; conditions combine."""

    jobs: JobFilter
    category: Category | None = None
    fate: Fate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """One page, newest first; ``next_cursor`` is None on the last."""

    letters: list[DeadLetter]
    next_cursor: str | None
    total: int  # as far as :data:`COUNTED`
    is_exact: bool


async def dead_letters(
    database: Database, wanted: DeadLetterFilter, *, now: datetime, limit: int, cursor: str | None = None
) -> DeadLetterPage:
    """Return one page of dead letters, and how many there are on all."""
    fate = _fate(now)
    where = [*status_terms({Status.FAILED}), *conditions_of(wanted.jobs), *_category(wanted.category)]
    if wanted.fate is not None:
        where.append(fate == wanted.fate.value)
    columns = [column.label(column.key) for column in jobs.c]
    source = jobs.outerjoin(discards, discards.c.job_id == jobs.c.id)
    query = sa.select(*columns, discards.c.discarded_at, discards.c.discarded_by, fate.label("fate"))
    query = query.select_from(source).where(*where).limit(limit + 1)
    if cursor is not None:
        value, job_id = read_cursor(cursor, jobs.c.created_at)
        last = sa.tuple_(sa.literal(value, jobs.c.created_at.type), sa.literal(job_id))
        query = query.where(sa.tuple_(jobs.c.created_at, jobs.c.id) < last)
    found = sa.select(sa.literal(1)).select_from(source).where(*where).limit(COUNTED + 1).subquery()
    counted = sa.select(sa.func.count()).select_from(found)
    async with database.read() as connection:
        total = (await connection.execute(counted)).scalar_one()
        newest_first = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        rows = (await connection.execute(newest_first)).mappings().all()
        replays = await _replays(connection, [row["id"] for row in rows[:limit]])
    letters = [_letter(row, replays) for row in rows[:limit]]
    more = cursor_of(letters[-1].job, jobs.c.created_at) if len(rows) > limit else None
    return DeadLetterPage(letters=letters, next_cursor=more, total=min(total, COUNTED), is_exact=total <= COUNTED)


async def discard(database: Database, job_id: str, *, by: str, now: datetime) -> bool:
    """Give a failed job up; return whether that was news."""
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(discards)
    row = {"job_id": job_id, "discarded_at": now, "discarded_by": by}
    statement = insert.values(row).on_conflict_do_nothing().returning(discards.c.job_id)
    async with database.write() as connection:
        return (await connection.execute(statement)).first() is not None


def _fate(now: datetime) -> sa.Case[str]:
    return sa.case(
        (jobs.c.id.in_(_recovered()), sa.literal(Fate.RECOVERED.value)),
        (discards.c.job_id.is_not(None), sa.literal(Fate.DISCARDED.value)),
        (jobs.c.completed_at < now - KEPT, sa.literal(Fate.EXPIRED.value)),
        else_=sa.literal(Fate.PENDING.value),
    )


def _recovered() -> sa.Select[tuple[str]]:
    """Select what was run again with success, at once or after more failures: few rows, by the index of retries."""
    done = sa.select(_child.c.retried_from.label("id")).where(
        _child.c.retried_from.is_not(None), _child.c.status == Status.COMPLETED
    )
    found = done.cte("recovered", recursive=True)
    above = sa.select(_child.c.retried_from).where(_child.c.id == found.c.id, _child.c.retried_from.is_not(None))
    found = found.union(above)
    return sa.select(found.c.id)


def _category(category: Category | None) -> list[sa.ColumnElement[bool]]:
    if category is None:
        return []
    if category is not Category.UNKNOWN:
        return [jobs.c.error_code.in_(CODES[category])]
    known = frozenset[str]().union(*CODES.values())
    return [sa.or_(jobs.c.error_code.is_(None), jobs.c.error_code.not_in(known))]


async def _replays(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[str]]:
    query = sa.select(jobs.c.retried_from, jobs.c.id).where(jobs.c.retried_from.in_(ids)).order_by(jobs.c.id)
    found: dict[str, list[str]] = {}
    for parent, child in await connection.execute(query):
        found.setdefault(parent, []).append(child)
    return found


def _letter(row: sa.RowMapping, replays: dict[str, list[str]]) -> DeadLetter:
    return DeadLetter(
        job=job_from(row),
        fate=Fate(row["fate"]),
        discarded_at=row["discarded_at"],
        discarded_by=row["discarded_by"],
        replays=tuple(replays.get(row["id"], ())),
    )
