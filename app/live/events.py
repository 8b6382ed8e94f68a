"""Events: what changed, as published after the commit, in one Redis stream."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from redis.exceptions import ResponseError

from app.clock import utc_now
from app.history.rows import Job
from app.jobs.status import Status
from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis
from app.queue.mend import is_wrong_type, mend

log = get_log()

MAX_EVENTS = 100_000  # kept in the stream, roughly; older ones are trimmed

_BLOCK_MS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one job. A follower drops what is not newer than what it has: see :attr:`version`."""

    type: str  # task.submitted, task.started, task.progress, task.retrying, task.completed, …
    job_id: str
    kind: str
    queue: str
    owner: str
    user_id: str | None
    status: Status
    attempt: int
    progress: float = 0.0
    message: str | None = None
    stage: str | None = None
    error: str | None = None
    at: datetime = field(default_factory=utc_now)

    @property
    def version(self) -> tuple[int, int, float]:
        """Orders the events of one job: attempt, then status, then progress."""
        is_back = self.status is Status.PENDING and self.attempt > 0  # retrying ends its attempt; a cancel may follow
        return (self.attempt, 2 if is_back else self.status.rank, self.progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An event with its place in the stream (``milliseconds-sequence``)."""

    id: str
    event: Event


def ending_of(job: Job) -> Event:
    """Make the event that tells how a job stands by its row: the terminal event of one that has ended."""
    return Event(
        type=_type_of(job),
        job_id=job.id,
        kind=job.kind,
        queue=job.queue,
        owner=job.submitted_by,
        user_id=job.user_id,
        status=job.status,
        attempt=job.attempts,
        progress=job.progress,
        message=job.progress_message,
        stage=job.stage,
        error=job.error.message if job.error else None,
        at=job.completed_at or job.started_at or utc_now(),
    )


def queue_event(name: str, queue: str) -> Event:
    """Make an event of a queue (``queue.paused``, ``queue.resumed``): it is no job's, whose fields are empty."""
    status = Status.PENDING
    return Event(type=name, job_id="", kind="", queue=queue, owner="", user_id=None, status=status, attempt=0)


def _type_of(job: Job) -> str:
    match job.status:
        case Status.PENDING:
            return "task.retrying" if job.attempts else "task.submitted"
        case Status.RUNNING:
            return "task.started"
        case final:
            return f"task.{final}"


def dump_event(event: Event) -> bytes:
    """Write an event as it stands in the stream."""
    return orjson.dumps(event)


def load_event(raw: bytes) -> Event:
    """Read what :func:`dump_event` wrote."""
    value: dict[str, Any] = orjson.loads(raw)
    known = {name: value[name] for name in Event.__dataclass_fields__ if name in value}  # a newer version says more
    return Event(**(known | {"status": Status(value["status"]), "at": datetime.fromisoformat(value["at"])}))


def _load_safely(fields: dict[bytes, bytes]) -> Event | None:
    """Read an entry of the stream; None for what is no event, or one of another version: the row tells its end."""
    try:
        return load_event(fields[b"e"])
    except (ValueError, TypeError, KeyError) as error:
        log.warning("event_unreadable", reason=repr(error))
        return None


async def follow(redis: Redis, after: str) -> AsyncIterator[list[Published]]:
    """Yield events that come after the stream position ``after``, in batches, for ever; empty when idle."""
    position = after
    while True:
        try:
            reply = await redis.xread({keys.EVENTS: position}, count=500, block=_BLOCK_MS)
        except ResponseError as error:
            if not (is_wrong_type(error) and await mend(redis, ())):
                raise
            continue
        entries = reply[0][1] if reply else []
        if entries:
            position = entries[-1][0].decode()
        read = [(entry_id.decode(), _load_safely(fields)) for entry_id, fields in entries]
        yield [Published(id=entry_id, event=event) for entry_id, event in read if event is not None]


async def last_position(redis: Redis) -> str:
    """Return the stream's present end, from where :func:`follow` misses nothing that comes."""
    newest = await redis.xrevrange(keys.EVENTS, count=1)
    return newest[0][0].decode() if newest else "0-0"
