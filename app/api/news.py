"""What followers are told: every type of message, the shape of its data, and how it is written. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import orjson
from pydantic import BaseModel
from pydantic_core import to_json

from app.api.schemas import Task
from app.clock import iso, utc_now
from app.jobs.fields import Model
from app.jobs.status import Status
from app.live.events import Event, Position

SNAPSHOT, OPENED, GAP, CLOSED = "task.snapshot", "stream.opened", "stream.gap", "stream.closed"

END = ".end"  # behind the position of a task's last message: there is nothing to come back for


class TaskNews(Model):
    """A task has changed."""

    task_id: str
    """Its id."""
    task_name: str
    """Its kind."""
    queue: str
    """The queue it waits in."""
    user_id: str | None
    """Whom it is about."""
    status: Status
    """Where it is in its life now."""
    attempt: int
    """The attempt that tells this, counted from 1; 0 before the first."""
    progress: float
    """How far it is, 0–100."""
    progress_message: str | None
    """What it is doing, in words."""
    stage: str | None
    """What it is doing, as a stable word."""
    error_message: str | None
    """Why the attempt failed."""


class QueueNews(Model):
    """A queue was paused or goes on."""

    queue: str
    """Its name."""


class WorkerNews(Model):
    """A worker has come or gone."""

    worker_id: str
    """Its id."""


class StreamOpened(Model):
    """The tasks that have not ended and pass the filters have been shown; every later event that passes follows."""

    resume_with: str
    """The position from which nothing is missed: for ``after``, or the header ``Last-Event-ID``."""
    snapshots: int
    """How many tasks were shown."""
    is_complete: bool
    """Whether these are all of them: false where only the newest thousand were looked at."""


class StreamGap(Model):
    """Events between the asked position and the present are gone; what follows begins with a fresh snapshot."""

    after: str
    """The position that could not be resumed."""


class StreamClosed(Model):
    """The last message of a stream of server-sent events; a websocket has its close frame for this."""

    code: int
    """As the close code of a websocket: 1000 the end, 1001 the service restarts, 4401, 4408 too slow …"""
    reason: str
    """The same in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageType:
    """One type of message. A task's own stream shows the whole task where ``whole`` is set."""

    summary: str
    data: type[BaseModel]
    whole: bool = False


MESSAGE_TYPES: Mapping[str, MessageType] = MappingProxyType(
    {
        SNAPSHOT: MessageType(summary="How a task stands when the stream begins.", data=Task),
        OPENED: MessageType(summary="The tasks of a list have been shown.", data=StreamOpened),
        GAP: MessageType(summary="History was trimmed, or Redis lost it.", data=StreamGap),
        CLOSED: MessageType(summary="The stream of server-sent events ends.", data=StreamClosed),
        "task.submitted": MessageType(summary="A task was accepted.", data=TaskNews),
        "task.started": MessageType(summary="An attempt has started.", data=TaskNews),
        "task.progress": MessageType(summary="An attempt tells how far it is; may be coalesced.", data=TaskNews),
        "task.retrying": MessageType(summary="An attempt has ended, and there will be another.", data=TaskNews),
        "task.completed": MessageType(summary="The task has ended with a result.", data=TaskNews, whole=True),
        "task.failed": MessageType(summary="The task has ended with an error.", data=TaskNews, whole=True),
        "task.cancelled": MessageType(summary="The task was cancelled.", data=TaskNews, whole=True),
        "queue.paused": MessageType(summary="A queue starts no more tasks.", data=QueueNews),
        "queue.resumed": MessageType(summary="A queue goes on.", data=QueueNews),
        "worker.started": MessageType(summary="A worker takes tasks.", data=WorkerNews),
        "worker.stopped": MessageType(summary="A worker has ended in good order.", data=WorkerNews),
        "worker.lost": MessageType(summary="A worker fell silent; what it ran starts again.", data=WorkerNews),
    }
)
EVENT_TYPES = tuple(name for name in MESSAGE_TYPES if name not in {SNAPSHOT, OPENED, GAP, CLOSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as it goes out. ``body`` is the whole of it as JSON; an empty id moves no position."""

    id: str
    type: str
    body: bytes


def message_of(position: Position | str, name: str, data: BaseModel, at: datetime | None = None) -> Message:
    """Write a message with a model as its data."""
    return _message(str(position), name, at or utc_now(), to_json(data))


def news_of(event: Event, position: Position) -> Message:
    """Write what an event tells, the same for whoever follows."""
    data = _task_news(event) if event.job_id else _other_news(event)
    return _message(str(position), event.type, event.at, orjson.dumps(data))


def _message(position: str, name: str, at: datetime, content: bytes) -> Message:
    body = orjson.dumps({"id": position, "type": name, "timestamp": iso(at), "data": orjson.Fragment(content)})
    return Message(id=position, type=name, body=body)


def _other_news(event: Event) -> dict[str, object]:
    return {"queue": event.queue} if event.worker_id is None else {"worker_id": event.worker_id}


def _task_news(event: Event) -> dict[str, object]:
    # Not through the model: this is written a thousand times a second, and a test compares the two.
    return {
        "task_id": event.job_id,
        "task_name": event.kind,
        "queue": event.queue,
        "user_id": event.user_id,
        "status": event.status,
        "attempt": event.attempt,
        "progress": event.progress,
        "progress_message": event.message,
        "stage": event.stage,
        "error_message": event.error,
    }
