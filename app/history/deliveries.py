"""Deliveries to webhooks: each is a row, and a job that is inserted in the transaction that ends another job.

Their ids follow from the task, the webhook and the event, so that the same end never tells a webhook twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import derived_id, from_ms, to_ms
from app.database import Database
from app.history.rows import Job, NewJob, insertable, job_from
from app.history.tables import jobs
from app.history.webhooks import Webhook, concerned, deliveries, webhooks
from app.jobs.status import FINAL, Status
from app.jobs.webhook import EVENT_OF, DeliverParams, deliver

Offer = Callable[[Sequence[NewJob]], None]  # rings jobs that are committed

_ANY = sa.select(sa.literal(1)).select_from(webhooks).limit(1)
_JOB_COLUMNS = [column.label(column.key) for column in jobs.c]
_ROWS = 1000  # of one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """One event for one webhook. ``task_id`` is None for a test."""

    id: str
    webhook_id: str
    event: str
    task_id: str | None
    job_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(NewDelivery):
    """A delivery, how its last attempt went, and where its job stands (None once that row is gone)."""

    attempts: int
    last_attempt_at: datetime | None
    status_code: int | None
    duration_s: float | None
    error: str | None
    delivered_at: datetime | None
    status: Status | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """How one attempt to deliver went; without an ``error`` it was taken."""

    job_id: str
    at: datetime
    duration_s: float
    status_code: int | None = None
    error: str | None = None


def insert_deliveries(connection: sa.Connection, ended: Sequence[str]) -> list[NewJob]:
    """Insert what is to be told of the ends of these jobs; return the jobs that will, to be rung after the commit.

    Called in the transaction that ends them, after the rows say so. Where no webhook is registered it costs one
    look into an empty table. What is there already is not inserted again, and not returned.
    """
    if not ended or connection.execute(_ANY).first() is None:
        return []
    query = sa.select(*_JOB_COLUMNS).where(jobs.c.id.in_(ended), jobs.c.status.in_(FINAL), jobs.c.kind != deliver.kind)
    rows = [job_from(row) for row in connection.execute(query).mappings()]
    told = concerned(connection, rows) if rows else []
    pairs = [(job, webhook) for job in rows for webhook in told if webhook.wants(job, EVENT_OF[job.status])]
    fresh = _absent(connection, {(found := _delivery_of(*pair)).id: (found, pair[1].owner) for pair in pairs})
    made = [job_of(delivery, owner=owner) for delivery, owner in fresh]
    _insert(connection, [delivery for delivery, _ in fresh], made)
    return made


def offer_nobody(_jobs: Sequence[NewJob]) -> None:
    """Ring nothing: the sweep will."""


def job_of(delivery: NewDelivery, *, owner: str) -> NewJob:
    """Return the job that makes a delivery."""
    return NewJob(
        id=delivery.job_id,
        kind=deliver.kind,
        task_type=deliver.task_type.value,
        queue=deliver.queue,
        user_id=None,
        submitted_by=owner,
        priority=deliver.priority,
        params=DeliverParams(delivery_id=delivery.id).model_dump(mode="json"),
        max_retries=deliver.retry.max_retries,
        created_at=delivery.created_at,
        due_at=from_ms(to_ms(delivery.created_at)),  # Redis counts in milliseconds: it must not be due after now
    )


async def accept_delivery(database: Database, delivery: NewDelivery, *, owner: str) -> NewJob:
    """Store a delivery with its job, which is returned; one that is there already gets this job instead of its last."""
    job = job_of(delivery, owner=owner)
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(deliveries)
    values = {name: getattr(delivery, name) for name in NewDelivery.__dataclass_fields__}
    statement = insert.values(values).on_conflict_do_update(
        index_elements=[deliveries.c.id], set_={"job_id": insert.excluded.job_id}
    )
    async with database.write() as connection:
        await connection.execute(statement)
        await connection.execute(sa.insert(jobs).values(insertable(job)))
    return job


async def find_delivery(database: Database, delivery_id: str) -> Delivery | None:
    """Return a delivery by its id."""
    async with database.read() as connection:
        row = (await connection.execute(_selected().where(deliveries.c.id == delivery_id))).mappings().first()
    return None if row is None else _delivery_from(row)


async def list_deliveries(
    database: Database, webhook_id: str, *, after: NewDelivery | None, limit: int
) -> list[Delivery]:
    """Return deliveries to a webhook, the newest first, from the one ``after`` on."""
    place = (deliveries.c.created_at, deliveries.c.id)
    query = _selected().where(deliveries.c.webhook_id == webhook_id)
    if after is not None:
        last = (sa.literal(after.created_at, deliveries.c.created_at.type), sa.literal(after.id))
        query = query.where(sa.tuple_(*place) < sa.tuple_(*last))
    query = query.order_by(*(column.desc() for column in place)).limit(limit)
    async with database.read() as connection:
        return [_delivery_from(row) for row in (await connection.execute(query)).mappings()]


async def note_try(database: Database, delivery_id: str, tried: Try) -> None:
    """Note how an attempt went."""
    values: dict[str, Any] = {
        "job_id": tried.job_id,
        "attempts": deliveries.c.attempts + 1,
        "last_attempt_at": tried.at,
        "status_code": tried.status_code,
        "duration_s": tried.duration_s,
        "error": tried.error,
    }
    if tried.error is None:
        values["delivered_at"] = tried.at
    async with database.write() as connection:
        await connection.execute(sa.update(deliveries).where(deliveries.c.id == delivery_id).values(values))


def _delivery_of(job: Job, webhook: Webhook) -> NewDelivery:
    event = EVENT_OF[job.status]
    delivery_id = derived_id(job.id, f"{webhook.id} {event}")
    return NewDelivery(
        id=delivery_id,
        webhook_id=webhook.id,
        event=event,
        task_id=job.id,
        job_id=delivery_id,
        created_at=job.completed_at or job.created_at,
    )


def _absent(connection: sa.Connection, found: Mapping[str, tuple[NewDelivery, str]]) -> list[tuple[NewDelivery, str]]:
    ids, there = list(found), set[str]()
    for at in range(0, len(ids), _ROWS):
        known = sa.select(deliveries.c.id).where(deliveries.c.id.in_(ids[at : at + _ROWS]))
        there |= set(connection.execute(known).scalars())
    return [found[delivery_id] for delivery_id in ids if delivery_id not in there]


def _insert(connection: sa.Connection, fresh: Sequence[NewDelivery], made: Sequence[NewJob]) -> None:
    rows = [{name: getattr(one, name) for name in NewDelivery.__dataclass_fields__} for one in fresh]
    for at in range(0, len(fresh), _ROWS):
        connection.execute(sa.insert(deliveries), rows[at : at + _ROWS])
        connection.execute(sa.insert(jobs), [insertable(job) for job in made[at : at + _ROWS]])


def _selected() -> "sa.Select[Any]":
    columns = [column.label(column.key) for column in deliveries.c]
    joined = deliveries.outerjoin(jobs, jobs.c.id == deliveries.c.job_id)
    return sa.select(*columns, jobs.c.status, jobs.c.due_at).select_from(joined)


def _delivery_from(row: sa.RowMapping) -> Delivery:
    status = None if row["status"] is None else Status(row["status"])
    plain = {name: row[name] for name in Delivery.__dataclass_fields__ if name not in ("status", "next_attempt_at")}
    return Delivery(**plain, status=status, next_attempt_at=row["due_at"] if status is Status.PENDING else None)
