"""A house to test in: an installation with two small job types, and the steps of a job's life as functions.

``note`` waits in the queue ``alpha``, ``count`` in ``beta``. Nothing here is a fixture; a test file that
needs a house opens one by :func:`open_house`.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from arq.jobs import Job as ArqJob

from app.clock import from_ms, new_id, to_ms, utc_now
from app.errors import Unavailable
from app.history.rows import Failure, Job, NewJob
from app.history.writer import Settlement, Started
from app.installation import Installation, open_installation
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.contract import Family, JobType, Limits, RetryPolicy, TaskType
from app.jobs.fields import Integer, Params, Result
from app.jobs.status import Status
from app.live.events import Event, load_event
from app.orders import Order
from app.queue import keys
from app.queue.client import Claims
from app.queue.connect import Redis
from app.settings import Settings
from tests.support.waiting import eventually

T = TypeVar("T")

QUEUES = ("alpha", "beta")
WORKER = "the-worker"
NOWHERE = "redis://127.0.0.1:1/0"  # nothing listens there

OOPS = Failure(code="unknown", type="ValueError", message="oops", traceback="Traceback: oops")


class NoteParams(Params):
    """Something to write down."""

    text: str = ""
    user_id: str | None = None


class NoteResult(Result):
    """What was written down."""

    text: str = ""


class CountParams(Params):
    """How far to count."""

    up_to: Integer = 1


class CountResult(Result):
    """How far it came."""

    reached: int = 0


note = JobType(
    kind="test.note",
    summary="Write something down.",
    params=NoteParams,
    result=NoteResult,
    queue="alpha",
    task_type=TaskType.SYSTEM,
    retry=RetryPolicy(max_retries=2, base_s=0.05, max_s=0.2),
    limits=Limits(hard_s=20.0, soft_s=15.0),
    aliases=("note",),
)
count = JobType(
    kind="test.count",
    summary="Count.",
    params=CountParams,
    result=CountResult,
    queue="beta",
    task_type=TaskType.MAINTENANCE,
    max_priority=9,
    retry=RetryPolicy(max_retries=0),
)


def catalogue() -> Catalogue:
    """Return a catalogue of ``note`` and ``count``."""
    return Catalogue([Family(name="test", summary="For tests.", job_types=(note, count))])


def open_house(settings: Settings) -> AbstractAsyncContextManager[Installation]:
    """Open an installation that knows ``note`` and ``count``."""
    return open_installation(settings, catalogue())


# --- things to put into it ---------------------------------------------------------------------


def order(job_type: AnyJobType = note, *, params: Params | None = None, **changes: Any) -> Order:
    """Return an order of ada's for ``job_type``, with its default params."""
    return Order(job_type=job_type, params=params or job_type.params(), **{"owner": "ada"} | changes)


def new_job(**changes: Any) -> NewJob:
    """Return a row that is about to be accepted, due since an hour, without the lifecycle."""
    at = whole_ms(utc_now()) - timedelta(hours=1)
    plain: dict[str, Any] = {
        "id": new_id(),
        "kind": note.kind,
        "task_type": note.task_type.value,
        "queue": note.queue,
        "user_id": None,
        "submitted_by": "ada",
        "priority": 5,
        "params": {"text": ""},
        "max_retries": 2,
        "created_at": at,
        "due_at": at,
    }
    return NewJob(**plain | changes)


def ending(job: Started, status: Status = Status.COMPLETED, **changes: Any) -> Settlement:
    """Return how an attempt ended: completed with a result, failed, or pending for a retry in a minute."""
    now = whole_ms(utc_now())
    outcome = "completed" if status is Status.COMPLETED else "failed"
    plain: dict[str, Any] = {
        "id": job.id,
        "attempts": job.attempts,
        "claim": job.claim,
        "status": status,
        "outcome": outcome,
        "ended_at": now,
        "due_at": now + timedelta(minutes=1) if status is Status.PENDING else None,
        "result": '{"text":"done"}' if status is Status.COMPLETED else None,
        "error": OOPS if outcome == "failed" else None,
    }
    return Settlement(**plain | changes)


# --- the steps of a job's life -----------------------------------------------------------------


async def submit(house: Installation, *orders: Order) -> list[NewJob]:
    """Submit orders, one plain ``note`` if none is given."""
    return await house.lifecycle.submit(orders or [order()])


async def claim(
    house: Installation, *, want: int = 10, token: str | None = None, queues: Sequence[str] = QUEUES
) -> Claims:
    """Claim what is due, also what a stock client put there, under a token of its own."""
    return await house.queue.claim(queues, want=want, token=token or new_id(), search=True)


async def start(house: Installation, *, want: int = 10, worker_id: str = WORKER) -> list[Started]:
    """Claim what is due and start it."""
    return await house.lifecycle.start(await claim(house, want=want), worker_id=worker_id)


async def start_one(house: Installation) -> Started:
    """Submit one ``note`` and start it."""
    await submit(house)
    (started,) = await start(house)
    return started


async def settle(house: Installation, job: Started, status: Status = Status.COMPLETED, **changes: Any) -> bool:
    """Settle an attempt and, if that won, acknowledge it; return whether it won."""
    settlement = ending(job, status, **changes)
    won = await house.lifecycle.settle(job, settlement)
    if won:
        await house.lifecycle.acknowledge(job, settlement)
    return won


async def die(redis: Redis, job: Started) -> None:
    """Let a lease run out at once, as that of a worker that was killed while others live."""
    await redis.set(keys.CLOCK, (await redis.time())[0] * 1000)
    await redis.zadd(keys.LEASES, {job.id: 1})
    await redis.delete(keys.holder(job.id))


def cut_off_from_sql(house: Installation, monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> None:
    """Let questions and writes of this house fail as they do when the database is away, all but the first few."""
    left = iter(range(after))

    def refuse_from_now_on(ask: Callable[..., T]) -> Callable[..., T]:
        def answer(*args: Any, **options: Any) -> T:
            if next(left, None) is None:
                raise Unavailable
            return ask(*args, **options)

        return answer

    for name in ("read", "write", "transact"):
        monkeypatch.setattr(house.database, name, refuse_from_now_on(getattr(house.database, name)))


# --- looking at it -----------------------------------------------------------------------------


async def row(house: Installation, job_id: str) -> Job:
    """Return a job's row; fail if there is none."""
    found = await house.reader.get(job_id)
    assert found is not None, f"no row for {job_id}"
    return found


async def entry(redis: Redis, job: NewJob | Job | Started) -> float | None:
    """Return the score of a job in its sorted set, None if it is not there."""
    score: float | None = await redis.zscore(keys.queue(job.queue, job.priority), job.id)
    return score


async def reply(answer: Awaitable[T] | T) -> T:
    """Return Redis's answer to a command that redis-py declares as perhaps not awaitable."""
    return await answer if inspect.isawaitable(answer) else answer


async def all_keys(redis: Redis) -> set[str]:
    """Return every key there is but those that are always there."""
    return {key.decode() for key in await redis.keys("*")} - {keys.CLOCK, keys.EPOCH}


async def events(house: Installation) -> list[Event]:
    """Return every event that the stream holds."""
    return [load_event(fields[b"e"]) for _, fields in await house.redis.xrange(keys.EVENTS)]


async def events_of(house: Installation, job_id: str, *types: str) -> list[Event]:
    """Wait until exactly these events of a job were published, and return them."""

    async def told() -> list[Event] | None:
        found = [event for event in await events(house) if event.job_id == job_id]
        assert [event.type for event in found] == list(types)
        return found

    return await eventually(told)


async def result(house: Installation, job_id: str) -> Any:
    """Return or raise what arq's client gets for a job that has ended."""
    stored = ArqJob(job_id, house.redis, _deserializer=house.redis.job_deserializer)
    return await stored.result(timeout=5, poll_delay=0.01)


def whole_ms(moment: datetime) -> datetime:
    """Cut a time to what Redis knows."""
    return from_ms(to_ms(moment))


def but(job: NewJob, **changes: Any) -> NewJob:
    """Return a job like this one, with a new id and these changes."""
    return replace(job, **{"id": new_id()} | changes)
