"""Which tasks a list is asked for: from the query string to a filter of the history. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field

from app.api.auth import Caller
from app.api.schemas import State
from app.errors import BadRequest
from app.history.reader import JobFilter, Sort
from app.jobs.catalogue import QUEUE_ALIASES, Catalogue
from app.jobs.contract import TaskType
from app.jobs.fields import Model, Moment
from app.jobs.status import Status
from app.live.events import Event

T = TypeVar("T")

Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=1_000_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=255)]

# What each word for a status asks of a job: its status and, for one that waits, whether it was tried before.
# A running job's progress is not in SQL, so STARTED and PROGRESS ask for the same.
_EITHER = frozenset({True, False})
_WORDS: dict[str, tuple[Status, frozenset[bool]]] = {
    **{status.value: (status, _EITHER) for status in Status},
    State.PENDING.value: (Status.PENDING, frozenset({False})),
    State.RETRY.value: (Status.PENDING, frozenset({True})),
    State.STARTED.value: (Status.RUNNING, _EITHER),
    State.PROGRESS.value: (Status.RUNNING, _EITHER),
    State.SUCCESS.value: (Status.COMPLETED, _EITHER),
    State.FAILURE.value: (Status.FAILED, _EITHER),
    State.REVOKED.value: (Status.CANCELLED, _EITHER),
}


class OriginFilter(Model):
    """Whether what the schedule submitted is meant."""

    scheduled_by: str | None = None
    """``cron``: only what the schedule submitted; without it, that is left out."""
    include: str | None = None
    """``all``: also what the schedule submitted."""


class Filters(OriginFilter):
    """Which tasks are meant; conditions combine."""

    task_type: str | None = None
    """The broad class."""
    task_name: str | None = None
    """The kind, or one of its aliases."""
    family: str | None = None
    """The family of kinds."""
    queue: str | None = None
    """The queue."""
    user_id: Text | None = None
    """Whom the task is about."""
    priority: Annotated[int, Field(ge=1, le=10)] | None = None
    """The priority."""
    created_after: Moment | None = None
    """Accepted at this time or later."""
    created_before: Moment | None = None
    """Accepted before this time."""
    q: Text | None = None
    """A piece of the id, the kind, the user or the error message, in any case."""


class StatusFilters(Filters):
    """The same, and the status."""

    status: tuple[str, ...] = ()
    """The status, in either vocabulary; several are joined by commas, or the parameter is repeated."""


class EventFilters(Model):
    """Which events are wanted; conditions combine."""

    status: tuple[str, ...] = ()
    """The status that an event tells, in either vocabulary; several are joined by commas, or it is repeated."""
    task_type: str | None = None
    """The broad class."""
    task_name: str | None = None
    """The kind, or one of its aliases."""
    family: str | None = None
    """The family of kinds."""
    queue: str | None = None
    """The queue."""
    user_id: Text | None = None
    """Whom the task is about."""
    type: tuple[str, ...] = ()
    """The type of event, ``task.completed``; several are joined by commas, or it is repeated."""


class Paging(Model):
    """Which part of a list is wanted."""

    offset: Offset = 0
    """How many tasks to leave out from the start."""
    cursor: Annotated[str, Field(max_length=1000)] | None = None
    """The ``next_cursor`` of the page before; not together with ``offset``."""
    sort: str = "-created_at"
    """``-created_at`` (newest first), ``created_at``, ``-priority`` or ``priority``."""


class TaskQuery(StatusFilters, Paging):
    """Which tasks, and which part of the list."""

    limit: Limit = 100
    """The most tasks to answer."""


class ShortTaskQuery(StatusFilters, Paging):
    """Which tasks, and which part of the list."""

    limit: Annotated[Limit, Field()] = 20
    """The most tasks to answer."""


class GlanceQuery(Filters, Paging):
    """Which tasks of one status, and which part of the list."""

    limit: Limit = 10
    """The most tasks to answer."""


def filter_of(wanted: Filters, *, catalogue: Catalogue, caller: Caller, statuses: Iterable[str] = ()) -> JobFilter:
    """Return what a caller asks for, within what they may see; raises BadRequest for a value that nothing has."""
    given = wanted.status if isinstance(wanted, StatusFilters) else ()
    status_set, was_tried = _statuses([*statuses, *(word for text in given for word in text.split(","))])
    return JobFilter(
        owner=None if caller.is_admin else caller.user_id,
        statuses=status_set,
        was_tried=was_tried,
        task_type=_known("task_type", wanted.task_type, [task_type.value for task_type in TaskType]),
        kind=None if wanted.task_name is None else _kind(wanted.task_name, catalogue),
        family=_known("family", wanted.family, catalogue.families),
        queue=_queue(wanted.queue, catalogue),
        user_id=wanted.user_id,
        priority=wanted.priority,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        q=wanted.q,
        origin=origin_of(wanted),
    )


def event_filter_of(wanted: EventFilters, *, catalogue: Catalogue, types: Sequence[str]) -> Callable[[Event], bool]:
    """Return the test that events have to pass; raises BadRequest for a value that nothing has."""
    statuses, was_tried = _statuses([word for text in wanted.status for word in text.split(",")])
    named = frozenset(_known("type", word.strip(), types) for text in wanted.type for word in text.split(","))
    task_type = _known("task_type", wanted.task_type, [task_type.value for task_type in TaskType])
    of_type = frozenset(job_type.kind for job_type in catalogue if job_type.task_type == task_type)
    kind = None if wanted.task_name is None else _kind(wanted.task_name, catalogue)
    family = _known("family", wanted.family, catalogue.families)
    queue = _queue(wanted.queue, catalogue)
    is_of_tasks = any(x is not None for x in (statuses, task_type, kind, family, wanted.user_id))

    def wants(event: Event) -> bool:
        if named and event.type not in named:
            return False
        if not event.job_id:  # of a queue
            return not is_of_tasks and queue in (None, event.queue)
        return (
            (statuses is None or event.status in statuses)
            and (was_tried is None or event.status is not Status.PENDING or was_tried == (event.attempt > 0))
            and (task_type is None or event.kind in of_type)
            and kind in (None, event.kind)
            and family in (None, event.kind.partition(".")[0])
            and queue in (None, event.queue)
            and wanted.user_id in (None, event.user_id)
        )

    return wants


def sort_of(paging: Paging) -> Sort:
    """Return the order that is wanted; raises BadRequest for one that there is not."""
    if paging.cursor is not None and paging.offset:
        raise BadRequest("Give offset or cursor, not both.")
    orders: tuple[Sort, ...] = get_args(Sort)
    _known("sort", paging.sort, orders)
    return next(order for order in orders if order == paging.sort)


def _statuses(words: Sequence[str]) -> tuple[frozenset[Status] | None, bool | None]:
    if not words:
        return None, None
    meanings = [_WORDS[_known("status", word.strip(), _WORDS) or ""] for word in words]
    tried = frozenset[bool]().union(*(tried for status, tried in meanings if status is Status.PENDING))
    return frozenset(status for status, _ in meanings), next(iter(tried)) if len(tried) == 1 else None


def _kind(name: str, catalogue: Catalogue) -> str:
    known = next((job_type for job_type in catalogue if name in (job_type.kind, *job_type.aliases)), None)
    if known is None:
        _known("task_name", name, sorted(job_type.kind for job_type in catalogue))
        return name
    return known.kind


def _queue(name: str | None, catalogue: Catalogue) -> str | None:
    meant = QUEUE_ALIASES.get(name, name) if name is not None else None
    return _known("queue", meant, catalogue.queues)


def origin_of(wanted: OriginFilter) -> Literal["people", "cron", "all"]:
    """Return whose tasks are meant; raise BadRequest for words that are not known."""
    _known("scheduled_by", wanted.scheduled_by, ["cron"])
    _known("include", wanted.include, ["all"])
    if wanted.scheduled_by is not None:
        return "cron"
    return "all" if wanted.include is not None else "people"


def _known(name: str, value: str | None, known: Iterable[str]) -> str | None:
    names = list(known)
    if value is None or value in names:
        return value
    raise BadRequest(f"There is no {name} {value!r}; known are: {', '.join(names)}.", name=name, value=value)
