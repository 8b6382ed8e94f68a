"""The route that changes many tasks: it answers a task that does it."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Self

from aiohttp import web
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.api.endpoint import Access, Call, Endpoint, endpoint, json_response
from app.api.filters import StatusFilters, filter_of
from app.api.schemas import AnsweredTask, answered_task_of, fresh_job, path_of
from app.bulk import meant_by
from app.clock import utc_now
from app.errors import Conflict
from app.jobs.bulk import MAX_IDS, BulkAction, BulkParams, Selection, bulk
from app.jobs.fields import Identifier, Integer, Model, Priority
from app.orders import Order


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class BulkFilter(StatusFilters):
    """Which tasks are meant, in the words of the list."""

    status: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The status, or several, in either vocabulary; only those that the action applies to are ever meant."""


class BulkRequest(Model):
    """Change many tasks."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "cancel", "filter": {"queue": "default", "status": ["pending"]}}]}
    )

    action: BulkAction
    """What to do: ``cancel`` what lives, ``retry`` what failed or was cancelled, ``delete`` what has ended,
    ``reprioritise`` what waits."""
    filter: BulkFilter | None = None
    """Which tasks; instead of ``ids``."""
    ids: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=MAX_IDS)] | None = None
    """The tasks by id; instead of ``filter``."""
    priority: Priority | None = None
    """The priority to give; for ``reprioritise`` alone, which needs it."""
    expected_count: Annotated[Integer, Field(ge=0)] | None = None
    """How many tasks this should be about; any other count is a 409, and nothing is done."""
    dry_run: bool = False
    """Only answer how many tasks it would be about."""

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if (self.filter is None) == (self.ids is None):
            raise ValueError("give either filter or ids")
        if (self.action is BulkAction.REPRIORITISE) != (self.priority is not None):
            raise ValueError("priority belongs to the action reprioritise, which needs it")
        if self.filter == BulkFilter() and self.expected_count is None and not self.dry_run:
            raise ValueError("a filter without a condition means every task; say expected_count if that is meant")
        return self


class BulkCount(Model):
    """What a bulk change would be about."""

    action: BulkAction
    """What would be done."""
    count: int
    """To how many tasks."""
    dry_run: bool = True
    """Always true: nothing was done."""


def bulk_endpoints() -> Iterator[Endpoint]:
    """Yield the route, which is for administrators."""
    yield endpoint(
        "POST",
        "/tasks/bulk",
        change_tasks,
        status=202,
        access=Access.ADMIN,
        answer=AnsweredTask,
        other_answers={200: BulkCount},
    )


async def change_tasks(call: Call, body: BulkRequest) -> web.Response:
    """Cancel, retry, delete or reprioritise many tasks, by a task of its own; with dry_run, count them."""
    now = utc_now()
    params = BulkParams(action=body.action, selection=_selection_of(call, body, now), new_priority=body.priority)
    count = await call.installation.reader.count(meant_by(params, now=now))
    if body.expected_count is not None and body.expected_count != count:
        message = f"This is about {count:,} tasks, not {body.expected_count:,}; nothing was done."
        raise Conflict(message, count=count)
    if body.dry_run:
        return json_response(BulkCount(action=body.action, count=count))
    (job,) = await call.installation.lifecycle.submit([Order(job_type=bulk, params=params, owner=call.caller.user_id)])
    answer = answered_task_of(fresh_job(job), f"This task will {body.action} {count:,} tasks")
    return json_response(answer, status=202, headers={"Location": path_of(job.id)})


def _selection_of(call: Call, body: BulkRequest, now: datetime) -> Selection:
    """Return what the request means, now: what is submitted later is never meant."""
    if body.filter is None:
        return Selection(ids=body.ids, origin="all", created_before=now)
    found = filter_of(body.filter, catalogue=call.installation.catalogue, caller=call.caller)
    plain = {field.name: getattr(found, field.name) for field in fields(found) if field.name in Selection.model_fields}
    statuses = None if found.statuses is None else tuple(sorted(found.statuses))
    return Selection(**plain | {"statuses": statuses, "created_before": min(found.created_before or now, now)})
