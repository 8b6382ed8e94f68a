"""The one door: the row first, then Redis; who loses acts by the row; an outage of either loses nothing."""

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from arq.jobs import Job as ArqJob

from app.clock import new_id, to_ms, utc_now
from app.errors import Conflict, NotFound, Unavailable
from app.history.reader import JobFilter
from app.history.tables import jobs
from app.history.writer import ALONE_AT, Started
from app.installation import Installation
from app.jobs.status import FINAL, Status
from app.live.control import orders
from app.live.events import Event, load_event, worker_event
from app.live.totals import read_totals
from app.queue import keys
from app.queue.client import Claims
from app.queue.wire import JobFailed, body_of
from app.settings import Settings
from tests.support.house import (
    OOPS,
    WORKER,
    NoteParams,
    all_keys,
    claim,
    count,
    die,
    ending,
    entry,
    note,
    open_house,
    order,
    reply,
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

NOWHERE = "redis://127.0.0.1:1/0"  # nothing listens there
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


async def events(house: Installation) -> list[Event]:
    return [load_event(fields[b"e"]) for _, fields in await house.redis.xrange(keys.EVENTS)]


async def events_of(house: Installation, job_id: str, *types: str) -> list[Event]:
    """Wait until exactly these events of a job were published, and return them."""

    async def told() -> list[Event] | None:
        found = [event for event in await events(house) if event.job_id == job_id]
        assert [event.type for event in found] == list(types)
        return found

    return await eventually(told)


async def stranger(house: Installation, function: str = note.kind, *args: Any, **kwargs: Any) -> str:
    """Put a job into ``alpha`` as a stock arq client does; return its id."""
    job = await house.redis.enqueue_job(function, *args, _queue_name=keys.queue("alpha", 5), **kwargs)
    assert job is not None
    await house.redis.zincrby(keys.queue("alpha", 5), -1, job.job_id)  # arq rounds the time up, by half a millisecond
    return job.job_id


async def result(house: Installation, job_id: str) -> Any:
    """Return or raise what arq's client gets for a job that has ended."""
    stored = ArqJob(job_id, house.redis, _deserializer=house.redis.job_deserializer)
    return await stored.result(timeout=5, poll_delay=0.01)


async def lose_entry(house: Installation, job: Any) -> None:
    """Make Redis forget everything about a job."""
    await house.redis.zrem(keys.queue(job.queue, job.priority), job.id)
    await house.redis.zrem(keys.LEASES, job.id)
    await reply(house.redis.hdel(keys.CLAIMS, job.id))
    await house.redis.delete(keys.holder(job.id), keys.body(job.id))


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


# --- a loser acts by the row -------------------------------------------------------------------


async def claims_of(house: Installation, *jobs: Any) -> Claims:
    """Claim what waits, expecting exactly these."""
    claims = await claim(house)
    assert {one.id for one in claims.claims} == {job.id for job in jobs}
    return claims


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_entry_of_an_ended_job_leaves_with_the_result_of_the_row(house: Installation, status: Status) -> None:
    started = await start_one(house)
    if status is Status.CANCELLED:
        await house.lifecycle._writer.cancel(started.id, include_running=True, now=utc_now())
    else:
        await house.lifecycle.settle(started, ending(started, status))
    await die(house.redis, started)

    assert await start(house) == []

    assert await entry(house.redis, started) is None
    assert await house.redis.exists(keys.result(started.id)) == 1
    assert await eventually(lambda: _last_status(house, started)) is status


async def _last_status(house: Installation, job: Started) -> Status | None:
    told = [event.status for event in await events(house) if event.job_id == job.id]
    return told[-1] if told and told[-1].is_final else None


async def test_an_entry_of_a_job_that_is_due_later_goes_back_to_its_time(house: Installation) -> None:
    (job,) = await submit(house, order(scheduled_for=utc_now() + HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {job.id: 2})

    assert await start(house) == []

    assert await entry(house.redis, job) == to_ms(job.due_at)
    assert await house.redis.exists(keys.holder(job.id)) == 0


async def test_a_job_whose_time_to_expire_is_still_to_come_goes_on_waiting(house: Installation) -> None:
    (job,) = await submit(house, order(scheduled_for=utc_now() + HOUR, expires_in=HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {job.id: 1})

    assert await start(house) == []

    assert (await row(house, job.id)).status is Status.PENDING


async def test_a_suspect_that_was_set_aside_stays_held(house: Installation) -> None:
    (suspect,) = await submit(house)
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == suspect.id).values(interruptions=ALONE_AT))
    claims = await claims_of(house, suspect)

    assert await house.lifecycle.start(claims, worker_id=WORKER, take_aside=lambda _claim: True) == []

    assert await house.redis.get(keys.holder(suspect.id)) == claims.claims[0].token.encode()


async def test_a_loser_that_cannot_ask_for_the_row_spares_the_winners(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, early = await submit(house, order(), order(scheduled_for=utc_now() + HOUR))
    await house.redis.zadd(keys.queue("alpha", 5), {early.id: 1})

    async def refuse(_ids: object) -> None:
        raise Unavailable

    monkeypatch.setattr(house.reader, "get_many", refuse)

    assert [job.id for job in await start(house)] == [waiting.id]


async def test_an_entry_of_a_job_that_runs_elsewhere_is_lent_to_its_claim(house: Installation) -> None:
    started = await start_one(house)
    await lose_entry(house, started)
    await house.redis.zadd(keys.queue("alpha", 5), {started.id: 1})

    assert await start(house) == []

    assert await house.redis.get(keys.holder(started.id)) == started.claim.encode()
    assert await settle(house, started)
    assert await entry(house.redis, started) is None


async def test_an_expired_job_ends_failed(house: Installation) -> None:
    (job,) = await submit(house, order(expires_in=timedelta(milliseconds=1)))
    claims = await claims_of(house, job)

    late = replace(claims, now=claims.now + HOUR)
    assert await house.lifecycle.start(late, worker_id=WORKER) == []

    stored = await row(house, job.id)
    assert (stored.status, stored.error and stored.error.code, stored.attempts) == (Status.FAILED, "expired", 0)
    assert await entry(house.redis, job) is None
    await events_of(house, job.id, "task.submitted", "task.failed")


async def test_a_worker_that_lost_its_job_to_a_cancel_drops_the_entry(house: Installation) -> None:
    started = await start_one(house)
    await house.lifecycle.cancel(started.id)
    assert not await settle(house, started)

    await house.lifecycle.stand_down(started)

    assert await entry(house.redis, started) is None
    with pytest.raises(asyncio.CancelledError):
        await result(house, started.id)


# --- adoption ----------------------------------------------------------------------------------


async def test_a_stock_clients_job_is_adopted_and_runs(house: Installation) -> None:
    job_id = await stranger(house, note.kind, text="theirs", user_id="eve")
    assert await start(house) == []

    (started,) = await start(house)

    assert (started.id, started.kind, started.params["text"]) == (job_id, note.kind, "theirs")
    stored = await row(house, job_id)
    assert (stored.submitted_by, stored.user_id, stored.queue, stored.priority) == ("arq", "eve", "alpha", 5)
    assert (stored.max_retries, stored.task_type) == (note.retry.max_retries, note.task_type)


async def test_a_stock_clients_job_may_go_by_an_alias(house: Installation) -> None:
    job_id = await stranger(house, "note")

    await start(house)

    assert (await row(house, job_id)).kind == note.kind


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "reason"),
    [
        ("nobody.knows", [], {}, ("unknown_task", "nobody.knows")),
        (count.kind, [], {"up_to": "three"}, ("validation_error", "/up_to")),
        (count.kind, [3], {}, ("validation_error", "named parameters only")),
    ],
    ids=["unknown-function", "invalid-params", "positional-arguments"],
)
async def test_a_stock_clients_job_that_cannot_run_ends_failed_and_says_why(
    house: Installation, function: str, args: list[Any], kwargs: dict[str, Any], reason: tuple[str, str]
) -> None:
    job_id = await stranger(house, function, *args, **kwargs)

    assert await start(house) == []

    stored = await row(house, job_id)
    assert stored.error is not None
    assert (stored.status, stored.error.code) == (Status.FAILED, reason[0])
    assert reason[1] in stored.error.message
    with pytest.raises(JobFailed):
        await result(house, job_id)
    assert (await claim(house)).claims == []


async def test_an_entry_of_ours_without_a_row_is_dropped(house: Installation) -> None:
    job_id = new_id()
    await house.redis.set(keys.body(job_id), body_of(note.kind, {}, 1))
    await house.redis.zadd(keys.queue("alpha", 5), {job_id: 1})

    await start(house)
    await claim(house)

    assert await house.reader.get(job_id) is None
    assert await all_keys(house.redis) <= {keys.bell("alpha")}


async def test_an_entry_without_row_and_body_is_dropped(house: Installation) -> None:
    await house.redis.zadd(keys.queue("alpha", 5), {"nothing": 1})

    await start(house)

    assert await house.redis.exists(keys.queue("alpha", 5)) == 0


class Bomb:
    """Leaves a trace when a pickle of it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.databases("sqlite")
async def test_a_pickle_is_quarantined_and_never_loaded(house: Installation, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    body = pickle.dumps({"t": None, "f": note.kind, "a": [Bomb(trace)], "k": {}, "et": 1})
    await house.redis.set(keys.body("evil"), body)
    await house.redis.zadd(keys.queue("alpha", 5), {"evil": 1})

    await start(house)

    assert not trace.exists()
    assert await reply(house.redis.hgetall(keys.QUARANTINE)) == {b"evil": b"unreadable body|" + body}
    assert await house.redis.exists(keys.queue("alpha", 5)) == 0


async def test_a_kind_that_no_database_can_hold_is_quarantined_and_its_neighbours_run(house: Installation) -> None:
    (neighbour,) = await submit(house)
    job_id = await stranger(house, "nul\0")

    started = await start(house)

    assert [job.id for job in started] == [neighbour.id]
    assert await house.reader.get(job_id) is None
    assert await reply(house.redis.hkeys(keys.QUARANTINE)) == [job_id.encode()]
    assert (await claim(house)).claims == []


async def test_params_that_no_database_can_hold_end_their_job_and_its_neighbours_run(house: Installation) -> None:
    (neighbour,) = await submit(house)
    job_id = await stranger(house, note.kind, user_id="nul\0", text="nul\0")

    started = await start(house)

    assert [job.id for job in started] == [neighbour.id]
    stored = await row(house, job_id)
    assert (stored.status, stored.user_id, stored.error and stored.error.code) == (
        Status.FAILED,
        None,
        "validation_error",
    )


# --- cancel ------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_and_leaves_redis(house: Installation) -> None:
    (job,) = await submit(house)

    cancelled = await house.lifecycle.cancel(job.id)

    assert cancelled == await row(house, job.id)
    assert cancelled.status is Status.CANCELLED
    assert (await claim(house)).claims == []
    with pytest.raises(asyncio.CancelledError):
        await result(house, job.id)
    await events_of(house, job.id, "task.submitted", "task.cancelled")


async def test_a_running_job_is_cancelled_in_its_row_and_its_worker_told(house: Installation) -> None:
    started = await start_one(house)
    told = orders(house.redis)
    listening = asyncio.ensure_future(anext(told))
    await eventually(lambda: _listeners(house))

    await house.lifecycle.cancel(started.id)

    assert await asyncio.wait_for(listening, 5) == ("cancel", started.id)
    assert (await row(house, started.id)).status is Status.CANCELLED
    assert await entry(house.redis, started) is not None  # its holder's to drop
    await told.aclose()  # type: ignore[attr-defined]  # it is an async generator


async def _listeners(house: Installation) -> bool:
    return bool((await house.redis.pubsub_numsub(keys.CONTROL))[0][1])


async def test_a_running_job_is_spared_if_so_asked(house: Installation) -> None:
    started = await start_one(house)

    with pytest.raises(Conflict, match="running"):
        await house.lifecycle.cancel(started.id, include_running=False)

    assert (await row(house, started.id)).status is Status.RUNNING


async def test_a_second_cancel_conflicts(house: Installation) -> None:
    (job,) = await submit(house)
    await house.lifecycle.cancel(job.id)

    with pytest.raises(Conflict, match="cancelled"):
        await house.lifecycle.cancel(job.id)


async def test_a_cancel_holds_while_redis_is_out(house_without_redis: Installation, house: Installation) -> None:
    (job,) = await submit(house)

    await house_without_redis.lifecycle.cancel(job.id)

    assert await start(house) == []
    assert await entry(house.redis, job) is None
    assert (await row(house, job.id)).status is Status.CANCELLED


async def test_a_job_that_arqs_abort_named_while_it_waited_is_cancelled(house: Installation) -> None:
    job, other = await submit(house, order(), order())
    await house.redis.zadd(keys.ABORTS, {job.id: 1})

    started = await start(house)

    assert [one.id for one in started] == [other.id]
    assert (await row(house, job.id)).status is Status.CANCELLED
    assert await entry(house.redis, job) is None
    assert await house.redis.zscore(keys.ABORTS, job.id) is None


async def test_a_job_that_is_not_there_is_not_found(house: Installation) -> None:
    changes = [
        house.lifecycle.cancel(new_id()),
        house.lifecycle.retry(new_id(), owner="ada"),
        house.lifecycle.reprioritise(new_id(), priority=9),
    ]

    answers = await asyncio.gather(*changes, return_exceptions=True)

    assert [type(answer) for answer in answers] == [NotFound] * 3


# --- retry -------------------------------------------------------------------------------------


async def test_a_retry_by_hand_is_a_new_job_that_names_the_old_one(house: Installation) -> None:
    (job,) = await submit(
        house, order(params=NoteParams(text="again"), priority=7, user_id="eve", max_retries=4, expires_in=HOUR)
    )
    await settle(house, (await start(house))[0], Status.FAILED)
    before = await row(house, job.id)

    again = await house.lifecycle.retry(job.id, owner="bob")

    stored = await row(house, again.id)
    assert (stored.retried_from, stored.submitted_by, stored.status) == (job.id, "bob", Status.PENDING)
    assert (stored.params, stored.priority, stored.user_id) == (before.params, 7, "eve")
    assert (stored.max_retries, stored.expires_at, stored.attempts, stored.error) == (4, None, 0, None)
    assert await row(house, job.id) == before
    assert [started.id for started in await start(house)] == [again.id]
    await events_of(house, again.id, "task.submitted", "task.started")


async def test_a_retry_of_a_tick_is_no_tick(house: Installation) -> None:
    tick = await house.lifecycle.submit_tick(order(schedule="hourly", tick_at=utc_now()))
    assert tick is not None
    await house.lifecycle.cancel(tick.id)

    again = await house.lifecycle.retry(tick.id, owner="ada")

    assert (again.schedule, again.tick_at) == (None, None)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.COMPLETED])
async def test_only_a_failed_or_cancelled_job_is_retried(house: Installation, status: Status) -> None:
    (job,) = await submit(house)
    if status is not Status.PENDING:
        (started,) = await start(house)
        if status.is_final:
            await settle(house, started, status)

    with pytest.raises(Conflict, match=status):
        await house.lifecycle.retry(job.id, owner="ada")

    assert await house.reader.count(JobFilter()) == 1


# --- reprioritise ------------------------------------------------------------------------------


async def test_a_job_with_a_new_priority_is_started_by_that(house: Installation) -> None:
    first, second = await submit(house, order(), order())

    changed = await house.lifecycle.reprioritise(second.id, priority=9)

    assert (changed.priority, changed.status) == (9, Status.PENDING)
    assert [job.id for job in await start(house)] == [second.id, first.id]


async def test_a_job_that_runs_keeps_its_priority(house: Installation) -> None:
    started = await start_one(house)

    with pytest.raises(Conflict, match="running"):
        await house.lifecycle.reprioritise(started.id, priority=9)

    assert (await row(house, started.id)).priority == 5


# --- restore -----------------------------------------------------------------------------------


async def restore(house: Installation) -> int:
    return await house.lifecycle.restore(await house.reader.live_page(before=None))


async def test_nothing_is_restored_where_nothing_is_missing(house: Installation) -> None:
    await start_one(house)
    await submit(house)

    assert await restore(house) == 0


async def test_a_waiting_job_that_redis_lost_is_put_back_at_its_time(house: Installation) -> None:
    lost, scheduled, _ = await submit(house, order(), order(scheduled_for=utc_now() + HOUR), order())
    await lose_entry(house, lost)
    await lose_entry(house, scheduled)

    assert await restore(house) == 2

    assert await entry(house.redis, lost) == to_ms(lost.due_at)
    assert await entry(house.redis, scheduled) == to_ms(scheduled.due_at)
    assert await house.redis.exists(keys.body(lost.id)) == 1


async def test_a_running_job_that_redis_lost_is_put_back_under_its_claim(house: Installation) -> None:
    started = await start_one(house)
    await lose_entry(house, started)

    assert await restore(house) == 1

    assert await house.redis.get(keys.holder(started.id)) == started.claim.encode()
    assert (await claim(house)).claims == []
    assert await settle(house, started)
    assert await entry(house.redis, started) is None


async def test_after_redis_lost_everything_every_job_still_runs(house: Installation) -> None:
    started = await start_one(house)
    (waiting,) = await submit(house)
    await house.redis.flushdb()
    await restore(house)
    await die(house.redis, started)

    again = {job.id: job.interruptions for job in await start(house)}

    assert again == {started.id: 1, waiting.id: 0}


async def test_an_ended_job_is_not_put_back(house: Installation) -> None:
    started = await start_one(house)
    page = await house.reader.live_page(before=None)
    await settle(house, started)

    assert await house.lifecycle.restore(page) == 0
    assert await entry(house.redis, started) is None


async def test_a_move_that_redis_missed_is_made_up_for(house: Installation, house_without_redis: Installation) -> None:
    first, second = await submit(house, order(), order())
    await house_without_redis.lifecycle.reprioritise(second.id, priority=9)

    await restore(house)

    assert await entry(house.redis, second) is None
    assert [job.id for job in await start(house)] == [second.id, first.id]


async def test_a_job_whose_priority_changed_while_it_was_claimed_leaves_nothing_behind(house: Installation) -> None:
    (job,) = await submit(house)
    claims = await claims_of(house, job)
    await house.lifecycle.reprioritise(job.id, priority=9)
    (started,) = await house.lifecycle.start(claims, worker_id=WORKER)

    await restore(house)
    await settle(house, started)
    await claim(house)

    left = await all_keys(house.redis)
    assert {key for key in left if key.startswith(keys.QUEUE) or key in {keys.LEASES, keys.CLAIMS, keys.BUSY}} == set()
