"""The routes that sweep away: the results of ended tasks, what waits in one queue, everything that lives."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.bulk import BATCH
from app.clock import utc_now
from app.errors import BadRequest
from app.history.reader import JobFilter
from app.jobs.catalogue import QUEUE_ALIASES
from app.jobs.fields import Model
from app.jobs.status import FINAL, LIVE, Status

_WAITING = frozenset({Status.PENDING})


class Confirmed(Model):
    """Whether it is meant."""

    confirm: bool = False
    """Must be true: there is no way back."""


class QueuePurgeQuery(Confirmed):
    """Which queue."""

    queue_name: str
    """The queue, or one of its aliases."""


class CancelAllQuery(Confirmed):
    """How far to go."""

    terminate: bool = False
    """Whether running tasks are stopped, too."""


class Purge(Model):
    """What was swept away."""

    success: bool
    """Always true: what cannot be done is answered with a problem."""
    count: int
    """How many tasks it happened to."""
    queue_name: str | None = None
    """The queue, when it was one."""
    message: str
    """What was done, in words."""


def purge_endpoints() -> Iterator[Endpoint]:
    """Yield the routes, which are for administrators."""
    yield endpoint("POST", "/tasks/purge/results", purge_results, access=Access.ADMIN)
    yield endpoint("POST", "/tasks/purge/queue", purge_queue, access=Access.ADMIN)
    yield endpoint("POST", "/tasks/cancel/all", cancel_all, access=Access.ADMIN)


async def purge_results(call: Call, query: Confirmed) -> Purge:
    """Forget what ended tasks have returned; the tasks stay in the history."""
    _check(query, "forgets the results of every ended task")
    lifecycle = call.installation.lifecycle
    wanted = JobFilter(statuses=FINAL, has_result=True, origin="all")
    count = await _each_page(call, wanted, lifecycle.bulk.forget_results)
    return Purge(success=True, count=count, message=f"{count:,} results purged")


async def purge_queue(call: Call, query: QueuePurgeQuery) -> Purge:
    """Cancel every task that waits in one queue; what runs goes on."""
    known = call.installation.catalogue.queues
    queue = QUEUE_ALIASES.get(query.queue_name, query.queue_name)
    if queue not in known:
        raise BadRequest(f"There is no queue {query.queue_name!r}; known are: {', '.join(known)}.")
    _check(query, f"cancels every task that waits in the queue {queue!r}")
    wanted = JobFilter(queue=queue, statuses=_WAITING, origin="all")
    count = await _each_page(call, wanted, _canceller(call, include_running=False))
    return Purge(success=True, count=count, queue_name=queue, message=f"{count:,} tasks purged from {queue}")


async def cancel_all(call: Call, query: CancelAllQuery) -> Purge:
    """Cancel every task that waits and, with terminate=true, every one that runs."""
    _check(query, "cancels every task of every queue")
    wanted = JobFilter(statuses=LIVE if query.terminate else _WAITING, origin="all")
    count = await _each_page(call, wanted, _canceller(call, include_running=query.terminate))
    return Purge(success=True, count=count, message=f"{count:,} tasks cancelled")


def _canceller(call: Call, *, include_running: bool) -> Callable[[Sequence[str]], Awaitable[int]]:
    async def cancel(ids: Sequence[str]) -> int:
        return await call.installation.lifecycle.bulk.cancel(ids, include_running=include_running)

    return cancel


async def _each_page(call: Call, wanted: JobFilter, change: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    """Change what there is at this moment, page by page; what comes meanwhile is not meant."""
    wanted, count, cursor = replace(wanted, created_before=utc_now()), 0, None
    while True:
        ids, cursor = await call.installation.reader.ids(wanted, cursor=cursor, limit=BATCH)
        count += await change(ids) if ids else 0
        if cursor is None:
            return count


def _check(query: Confirmed, what: str) -> None:
    if not query.confirm:
        raise BadRequest(f"This {what}; add confirm=true if that is meant.")
