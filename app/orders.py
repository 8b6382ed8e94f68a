"""Orders: what somebody wants done, validated, and the row it becomes. ``app.lifecycle`` accepts them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from app.clock import new_id, utc_now
from app.history.rows import NewJob
from app.jobs.catalogue import AnyJobType
from app.jobs.fields import Params
from app.references import Mention


class Order(NamedTuple):
    """What somebody wants done, validated. Times are aware UTC; None takes the job type's default.

    A tuple, since every submit makes one: a frozen dataclass of its size takes three times as long to make.
    """

    job_type: AnyJobType
    params: Params
    owner: str
    user_id: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    scheduled_for: datetime | None = None
    expires_in: timedelta | None = None
    schedule: str | None = None
    tick_at: datetime | None = None
    place: str = ""  # where the params stood in the document they came from, as a JSON pointer: for errors
    unique_key: str | None = None
    webhook: str | None = None  # what the submit says of the webhook to tell of its end: an id, or a URL
    webhook_id: str | None = None  # of that webhook


def mentions_in(orders: Sequence[Order]) -> list[Mention]:
    """Return what the params of orders name, where their types say that they name anything."""
    return [
        Mention(
            reference=reference,
            name=getattr(order.params, reference.field),
            user_id=getattr(order.params, "user_id", None) or order.user_id,
            place=f"{order.place}/{reference.field}",
        )
        for order in orders
        if (reference := order.job_type.reference) is not None
    ]


def this_moment() -> datetime:
    """Return the present moment as a row keeps it."""
    return whole_ms(utc_now())


def whole_ms(moment: datetime) -> datetime:
    """Cut to whole milliseconds: Redis time has no more, and a due time must never lie after it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def new_jobs(orders: Sequence[Order]) -> list[NewJob]:
    """Return the rows that orders become, in their order; all are created at the same moment."""
    now = this_moment()
    return [new_job(order, now) for order in orders]


def new_job(order: Order, now: datetime | None = None) -> NewJob:
    """Return the row that an order becomes: what it does not say is its job type's default."""
    now, job_type = now or this_moment(), order.job_type
    due_at = max(whole_ms(order.scheduled_for), now) if order.scheduled_for else now
    return NewJob(
        id=new_id(),
        kind=job_type.kind,
        task_type=job_type.task_type.value,
        queue=job_type.queue,
        user_id=order.user_id,
        submitted_by=order.owner,
        priority=min(order.priority or job_type.priority, job_type.max_priority),
        params=order.params.model_dump(mode="json"),
        max_retries=job_type.retry.max_retries if order.max_retries is None else order.max_retries,
        created_at=now,
        due_at=due_at,
        scheduled_for=order.scheduled_for,
        expires_at=due_at + order.expires_in if order.expires_in else None,
        schedule=order.schedule,
        tick_at=order.tick_at,
        unique_key=order.unique_key,
        webhook_id=order.webhook_id,
    )
