"""The routes of dead letters: what failed, why, and what became of it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.filters import Filters, Limit, filter_of
from app.api.schemas import AnsweredTask, JsonObject, TaskError, error_of
from app.api.tasks import replay
from app.clock import utc_now
from app.errors import Conflict, NotFound
from app.history.dead_letters import DeadLetter, DeadLetterFilter, dead_letters, discard
from app.history.reader import JobFilter
from app.jobs.dead_letters import KEPT, Category, Fate, category_of
from app.jobs.fields import Model


class DeadTask(Model):
    """One task that failed, and what became of it."""

    id: str
    """The dead letter's id, which is the task's."""
    task_id: str
    """The task."""
    task_name: str
    """Its kind."""
    task_type: str
    """The broad class."""
    queue: str
    """The queue it waited in."""
    user_id: str | None
    """Whom it is about."""
    params: JsonObject
    """What it was submitted with."""
    category: Category
    """Why it failed, in one of seven words."""
    status: Fate
    """What became of it."""
    error: TaskError | None
    """Why it failed."""
    attempts: int
    """How often it was started."""
    created_at: datetime
    """When it was accepted."""
    failed_at: datetime | None
    """When it failed."""
    expires_at: datetime | None
    """When it expires, unless something is done about it."""
    discarded_at: datetime | None
    """When it was given up."""
    discarded_by: str | None
    """By whom."""
    replays: tuple[str, ...]
    """The tasks that ran it again, oldest first."""


class DeadTasks(Model):
    """One page of dead letters."""

    dead_letters: tuple[DeadTask, ...]
    """Newest first."""
    total_count: int
    """How many there are of this description, on all pages; 10,000 stands for any number above."""
    total_is_exact: bool
    """Whether they were all counted; false where there are more than 10,000."""
    limit: int
    """The most on this page."""
    next_cursor: str | None
    """Where the next page starts; null on the last."""


class DeadTaskQuery(Filters):
    """Which dead letters are meant; conditions combine. What cron submitted is among them."""

    category: Category | None = None
    """Why it failed."""
    status: Fate | None = None
    """What became of it."""
    limit: Limit = 100
    """The most to answer."""
    cursor: Annotated[str, Field(max_length=1000)] | None = None
    """The ``next_cursor`` of the page before."""


def dead_letter_endpoints() -> Iterator[Endpoint]:
    """Yield the routes; reading is for everybody, of their own tasks, the rest for administrators."""
    yield endpoint("GET", "/dead-letters", list_dead_letters)
    yield endpoint("POST", "/dead-letters/{id}/replay", replay_dead_letter, status=202, access=Access.ADMIN)
    yield endpoint("POST", "/dead-letters/{id}/discard", discard_dead_letter, access=Access.ADMIN)


async def list_dead_letters(call: Call, query: DeadTaskQuery) -> DeadTasks:
    """List tasks that failed, and what became of them, newest first."""
    wanted = filter_of(query, catalogue=call.installation.catalogue, caller=call.caller)
    everybody = wanted if query.scheduled_by else replace(wanted, origin="all")
    page = await dead_letters(
        call.installation.database,
        DeadLetterFilter(jobs=everybody, category=query.category, fate=query.status),
        now=utc_now(),
        limit=query.limit,
        cursor=query.cursor,
    )
    shown = tuple(map(_shown, page.letters))
    return DeadTasks(
        dead_letters=shown,
        total_count=page.total,
        total_is_exact=page.is_exact,
        limit=query.limit,
        next_cursor=page.next_cursor,
    )


async def replay_dead_letter(call: Call) -> AnsweredTask:
    """Run a failed task again, as a new one; once that completes, the dead letter is recovered."""
    letter = await _pending(call, "replayed")
    return await replay(call, letter.job.id, is_dead_letter=True)


async def discard_dead_letter(call: Call) -> DeadTask:
    """Give a failed task up."""
    letter = await _pending(call, "discarded")
    await discard(call.installation.database, letter.job.id, by=call.caller.user_id, now=utc_now())
    return _shown(await _find(call))


async def _pending(call: Call, verb: str) -> DeadLetter:
    letter = await _find(call)
    if letter.fate is not Fate.PENDING:
        raise Conflict(f"The dead letter is {letter.fate} and can no longer be {verb}.")
    return letter


async def _find(call: Call) -> DeadLetter:
    wanted = JobFilter(ids=[call.request.match_info["id"]], origin="all")
    page = await dead_letters(call.installation.database, DeadLetterFilter(jobs=wanted), now=utc_now(), limit=1)
    if not page.letters:
        raise NotFound("There is no such dead letter: not found.")
    return page.letters[0]


def _shown(letter: DeadLetter) -> DeadTask:
    job = letter.job
    return DeadTask(
        id=job.id,
        task_id=job.id,
        task_name=job.kind,
        task_type=job.task_type,
        queue=job.queue,
        user_id=job.user_id,
        params=job.params,
        category=category_of(job.error.code if job.error else None),
        status=letter.fate,
        error=error_of(job.error),
        attempts=job.attempts,
        created_at=job.created_at,
        failed_at=job.completed_at,
        expires_at=job.completed_at + KEPT if job.completed_at else None,
        discarded_at=letter.discarded_at,
        discarded_by=letter.discarded_by,
        replays=letter.replays,
    )
