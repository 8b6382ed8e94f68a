"""Events: what changed, as published after the commit, in one Redis stream."""

import re
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import orjson
from redis.exceptions import ResponseError

from app.clock import utc_now
from app.history.rows import Job
from app.jobs.status import Status
from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis

log = get_log()

MAX_EVENTS = 100_000  # kept in the stream, roughly; older ones are trimmed
LOST = "stream.lost"  # the type of the mark that a process leaves where it had to drop events

_BLOCK_MS = 5000
_PAGE = 500
_START = "0-0"
_NOWHERE = "unknown"
_POSITION = re.compile(r"(\d{1,18})\.(\d{1,19}-\d{1,19}|unknown)", re.ASCII)


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
    worker_id: str | None = None  # of an event of a worker, which is no job's
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the stream, and in which life of Redis: after a flush or a restore the epoch is another."""

    entry: str = _NOWHERE  # the id of the last entry before it, "0-0" at the start
    epoch: int = 0  # 0: not known

    def at(self, entry: str) -> "Position":
        """Return the place behind an entry, in the same life."""
        return Position(entry=entry, epoch=self.epoch)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.entry}"


NOWHERE = Position()


def parse_position(text: str) -> Position | None:
    """Read what ``str`` made of a position; None for anything else."""
    found = _POSITION.fullmatch(text)
    return Position(epoch=int(found[1]), entry=found[2]) if found else None


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
    return _jobless(name, queue=queue)


def worker_event(name: str, worker_id: str) -> Event:
    """Make an event of a worker (``worker.started``, ``worker.stopped``, ``worker.lost``)."""
    return _jobless(name, worker_id=worker_id)


def lost_event() -> Event:
    """Make the mark of events that were never published: whoever reads it knows that something is missing here."""
    return _jobless(LOST)


def _jobless(name: str, *, queue: str = "", worker_id: str | None = None) -> Event:
    return Event(
        type=name,
        job_id="",
        kind="",
        queue=queue,
        owner="",
        user_id=None,
        status=Status.PENDING,
        attempt=0,
        worker_id=worker_id,
    )


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
        reply = await redis.xread({keys.EVENTS: position}, count=_PAGE, block=_BLOCK_MS)
        entries = reply[0][1] if reply else []
        if entries:
            position = entries[-1][0].decode()
        yield _published(entries)


async def replay(redis: Redis, after: Position, until: Position) -> AsyncIterator[list[Published]]:
    """Yield the events behind ``after`` and up to ``until``, oldest first, in batches."""
    start = after.entry
    while entries := await redis.xrange(keys.EVENTS, min=f"({start}", max=until.entry, count=_PAGE):
        start = entries[-1][0].decode()
        yield _published(entries)


async def latest(redis: Redis, until: Position | None = None) -> list[Published]:
    """Return the last few hundred events up to a position, or of all, oldest first."""
    entries = await redis.xrevrange(keys.EVENTS, max=until.entry if until else "+", count=_PAGE)
    return _published(reversed(entries))


async def last_position(redis: Redis) -> Position:
    """Return the stream's present end, from where :func:`follow` misses nothing that comes."""
    epoch = await current_epoch(redis)
    newest = await redis.xrevrange(keys.EVENTS, count=1)
    return Position(entry=newest[0][0].decode() if newest else _START, epoch=epoch)


async def current_epoch(redis: Redis) -> int:
    """Return in which of its lives Redis is, as the last walk over all jobs left it; 0 before one and after a loss."""
    try:
        raw = await cast("Awaitable[bytes | None]", redis.hget(keys.EPOCH, "counter"))
    except ResponseError:  # no hash: as good as missing
        return 0
    return int(raw) if raw is not None and raw.isdigit() and len(raw) < 19 else 0


async def is_held(redis: Redis, position: Position) -> bool:
    """Whether every event behind a position is still in the stream: none was trimmed, and Redis has lost nothing."""
    if position.entry == _NOWHERE or is_another_life(position.epoch, await current_epoch(redis)):
        return False
    if position.entry == _START:  # nothing is trimmed from a stream that was never full
        return int(await redis.xlen(keys.EVENTS)) < MAX_EVENTS
    # What is trimmed is the oldest: while the entry itself is there, so are all that came after it.
    return bool(await redis.xrange(keys.EVENTS, min=position.entry, max=position.entry))


def is_another_life(before: int, now: int) -> bool:
    """Whether Redis has lost something between two readings of the epoch; nothing was, if the first walk ended."""
    return before not in (0, now)


def _published(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Published]:
    read = [(entry_id.decode(), _load_safely(fields)) for entry_id, fields in entries]
    return [Published(id=entry_id, event=event) for entry_id, event in read if event is not None]
