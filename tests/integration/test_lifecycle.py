"""The one door: the row first, then Redis; only who runs a job ends it; an outage of either loses nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import to_ms, utc_now
from app.errors import Unavailable
from app.history.reader import JobFilter
from app.installation import Installation
from app.jobs.status import Status
from app.live.events import Event, worker_event
from app.live.totals import read_totals
from app.queue import keys
from app.queue.wire import JobFailed, body_of
from app.settings import Settings
from tests.support.house import (
    NOWHERE,
    OOPS,
    WORKER,
    NoteParams,
    all_keys,
    claim,
    count,
    die,
    ending,
    entry,
    events,
    events_of,
    note,
    open_house,
    order,
    result,
    row,
    settle,
    start,
    start_one,
    submit,
    whole_ms,
)
from tests.support.postgres_server import PostgresUnderTest
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite", "postgresql")

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as house:
        yield house


@pytest.fixture
async def house_without_redis(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings.model_copy(update={"redis_url": NOWHERE})) as house:
        yield house


Outage = Callable[[], Any]


@pytest.fixture
def outage(house: Installation, request: pytest.FixtureRequest) -> Outage:
    """A way to be without the house's database for a while: ``async with outage():``."""
    url = sa.make_url(house.settings.sql_url)
    if house.database.dialect == "sqlite":
        return lambda: _file_away(house, Path(str(url.database)))
    return lambda: _connections_refused(house, request.getfixturevalue("postgres"), str(url.database))


@asynccontextmanager
async def _file_away(house: Installation, path: Path) -> AsyncIterator[None]:
    await _hang_up(house)
    await asyncio.to_thread(_put_away, path)
    yield
    await asyncio.to_thread(_put_back, path)


def _put_away(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.mkdir()


def _put_back(path: Path) -> None:
    path.rmdir()
    path.with_name("away").rename(path)


@asynccontextmanager
async def _connections_refused(house: Installation, server: PostgresUnderTest, name: str) -> AsyncIterator[None]:
    await asyncio.to_thread(server._execute, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await _hang_up(house)
    yield
    await asyncio.to_thread(server._execute, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


async def _hang_up(house: Installation) -> None:
    await house.database.reads.dispose()
    await house.database._writes.dispose()
    if house.database._hot is not None:
        house.database._hot.hang_up()


# --- submit ------------------------------------------------------------------------------------


async def test_a_submitted_job_has_a_row_an_entry_a_body_and_an_event(house: Installation) -> None:
    (job,) = await submit(house, order(params=NoteParams(text="hello"), user_id="eve", owner="bob"))

    stored = await row(house, job.id)
    assert (stored.kind, stored.status, stored.queue, stored.submitted_by) == (
        note.kind,
        Status.PENDING,
        "alpha",
        "bob",
    )
    assert (stored.params, stored.user_id) == ({"text": "hello", "user_id": None}, "eve")
    assert await entry(house.redis, job) is not None
    body = await house.redis.get(keys.body(job.id))
    assert body == body_of(note.kind, stored.params, to_ms(job.created_at))
    (event,) = await events_of(house, job.id, "task.submitted")
    assert (event.status, event.owner, event.user_id, event.attempt) == (Status.PENDING, "bob", "eve", 0)


async def test_an_order_that_says_nothing_gets_its_job_types_defaults(house: Installation) -> None:
    (job,) = await submit(house, order(count))

    stored = await row(house, job.id)
    assert (stored.priority, stored.max_retries, stored.queue) == (5, 0, "beta")
    assert (stored.task_type, stored.scheduled_for, stored.expires_at) == ("maintenance", None, None)


async def test_an_order_is_lowered_to_the_job_types_highest_priority(house: Installation) -> None:
    (job,) = await submit(house, order(count, priority=10))

    assert (await row(house, job.id)).priority == 9


async def test_a_scheduled_job_waits_for_its_time_and_expires_after_that(house: Installation) -> None:
    at = utc_now() + HOUR

    (job,) = await submit(house, order(scheduled_for=at, expires_in=HOUR))

    assert (job.due_at, job.expires_at) == (whole_ms(at), whole_ms(at) + HOUR)
    assert await entry(house.redis, job) == to_ms(at)
    assert (await claim(house)).claims == []


async def test_a_time_in_the_past_is_now(house: Installation) -> None:
    (job,) = await submit(house, order(scheduled_for=utc_now() - HOUR))

    assert job.due_at == job.created_at
    assert [started.id for started in await start(house)] == [job.id]


async def test_orders_are_accepted_all_or_none(house: Installation) -> None:
    bad = order(params=NoteParams.model_construct(text="\ud800"))

    with pytest.raises(Exception, match="surrogates"):
        await submit(house, order(), bad)

    assert await house.reader.count(JobFilter()) == 0
    assert await all_keys(house.redis) == set()


async def test_a_job_is_accepted_while_redis_is_out(house_without_redis: Installation, house: Installation) -> None:
    began = time.monotonic()

    (job,) = await submit(house_without_redis)

    assert time.monotonic() - began < 1
    assert (await row(house, job.id)).status is Status.PENDING


async def test_nothing_is_accepted_or_rung_while_the_database_is_out(house: Installation, outage: Outage) -> None:
    async with outage():
        with pytest.raises(Unavailable):
            await submit(house)

    assert await house.reader.count(JobFilter()) == 0
    assert await all_keys(house.redis) == set()


async def test_a_job_is_accepted_again_once_the_database_is_back(house: Installation, outage: Outage) -> None:
    async with outage():
        with pytest.raises(Unavailable):
            await submit(house)

    await submit(house)

    assert await house.reader.count(JobFilter()) == 1


@pytest.mark.databases("sqlite")
async def test_a_caller_that_leaves_after_the_commit_does_not_stop_the_ring(house: Installation) -> None:
    slow: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ring = house.lifecycle._rings._flush

    async def ring_late(groups: Any) -> Any:
        await slow
        return await ring(groups)

    house.lifecycle._rings._flush = ring_late
    caller = asyncio.create_task(submit(house))
    await eventually(lambda: house.lifecycle._rings._flusher is not None)

    caller.cancel()
    await asyncio.wait([caller])
    slow.set_result(None)
    await house.lifecycle.close()

    assert len((await claim(house)).claims) == 1


async def test_a_tick_is_submitted_once_and_rung_once(house: Installation) -> None:
    tick = order(schedule="hourly", tick_at=whole_ms(utc_now()))

    ticks = await asyncio.gather(*(house.lifecycle.submit_tick(tick) for _ in range(5)))

    (job,) = [job for job in ticks if job is not None]
    assert [one.id for one in (await claim(house)).claims] == [job.id]
    await events_of(house, job.id, "task.submitted")


# --- start, settle, acknowledge ----------------------------------------------------------------


async def test_a_job_that_is_done_leaves_its_row_its_result_and_its_events(house: Installation) -> None:
    started = await start_one(house)

    assert await settle(house, started)

    stored = await row(house, started.id)
    assert (stored.status, stored.result, stored.worker_id) == (Status.COMPLETED, {"text": "done"}, WORKER)
    assert await result(house, started.id) == {"text": "done"}
    told = await events_of(house, started.id, "task.submitted", "task.started", "task.completed")
    assert [event.attempt for event in told] == [0, 1, 1]
    assert sorted(told, key=lambda event: event.version) == told
    await claim(house)
    assert await all_keys(house.redis) <= {keys.result(started.id), keys.EVENTS, keys.TOTALS, keys.bell("alpha")}


async def test_an_end_is_counted_with_its_duration(house: Installation) -> None:
    started = await start_one(house)

    await settle(house, started, ended_at=started.started_at + timedelta(seconds=2))

    async def counted() -> bool:
        totals = await read_totals(house.redis)
        return (
            totals.get(("micros", note.kind, "alpha")) == 2_000_000
            and totals.get(("tasks", note.kind, "alpha", "completed")) == 1
        )

    assert await eventually(counted)


async def test_a_failed_job_raises_for_arqs_client(house: Installation) -> None:
    started = await start_one(house)

    await settle(house, started, Status.FAILED)

    with pytest.raises(JobFailed, match="oops"):
        await result(house, started.id)


async def test_a_retry_is_due_at_its_time(house: Installation) -> None:
    started = await start_one(house)
    due_at = whole_ms(utc_now() + HOUR)

    await settle(house, started, Status.PENDING, due_at=due_at)

    assert await entry(house.redis, started) == to_ms(due_at)
    (*_, retrying) = await events_of(house, started.id, "task.submitted", "task.started", "task.retrying")
    assert (retrying.status, retrying.error) == (Status.PENDING, OOPS.message)


async def test_a_released_job_is_taken_by_the_next_worker(house: Installation) -> None:
    started = await start_one(house)
    await settle(house, started, Status.PENDING, outcome="released", error=None, due_at=None)

    (again,) = await start(house)

    assert (again.id, again.attempts, again.interruptions, again.failures) == (started.id, 2, 0, 0)


async def test_jobs_start_in_the_order_they_were_claimed(house: Installation) -> None:
    jobs = await submit(house, *(order(note if at % 2 else count, priority=1 + at % 3) for at in range(12)))

    started = await start(house, want=12)

    priorities = {job.id: job.priority for job in jobs}
    assert [priorities[job.id] for job in started] == sorted(priorities.values(), reverse=True)


async def test_a_job_whose_worker_died_is_rescued_and_the_dead_worker_cannot_settle(house: Installation) -> None:
    stale = await start_one(house)
    await die(house.redis, stale)
    (rescued,) = await start(house, worker_id="the-rescuer")

    assert not await settle(house, stale)
    await house.lifecycle.stand_down(stale)
    assert await settle(house, rescued)

    assert (rescued.attempts, rescued.interruptions) == (2, 1)
    assert (await row(house, stale.id)).worker_id == "the-rescuer"
    assert await result(house, stale.id) == {"text": "done"}


async def test_a_stale_end_is_told_to_nobody(house: Installation) -> None:
    stale = await start_one(house)
    await die(house.redis, stale)
    await start(house)

    assert not await house.lifecycle.settle(stale, ending(stale, Status.FAILED))
    house.outbox.post(worker_event("worker.started", "the-next-to-tell"))

    told = await eventually(lambda: _told_until(house, "worker.started"))
    assert [event.type for event in told if event.job_id == stale.id] == ["task.submitted", *["task.started"] * 2]


async def _told_until(house: Installation, last: str) -> list[Event] | None:
    told = await events(house)
    return told if told and told[-1].type == last else None


async def test_an_outage_delays_a_settle_and_loses_nothing(house: Installation, outage: Outage) -> None:
    started = await start_one(house)
    async with outage():
        settling = asyncio.create_task(settle(house, started))
        assert await asyncio.wait([settling], timeout=0.1) == (set(), {settling})

    assert await settling
    assert (await row(house, started.id)).status is Status.COMPLETED


async def test_a_start_while_the_database_is_out_gives_everything_back(house: Installation, outage: Outage) -> None:
    waiting, aborted = await submit(house, order(), order())
    await house.redis.zadd(keys.ABORTS, {aborted.id: 1})
    claims = await claim(house)

    async with outage():
        with pytest.raises(Unavailable):
            await house.lifecycle.start(claims, worker_id=WORKER)

    assert [one.id for one in (await claim(house)).claims] == [waiting.id, aborted.id]
