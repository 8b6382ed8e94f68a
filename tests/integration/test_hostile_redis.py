"""Whatever stands in Redis: what nobody can use is quarantined and counted, no worker dies, and good jobs run."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.live.events import follow
from app.live.progress import read_progress
from app.live.totals import read_totals
from app.live.workers import alive_workers
from app.losers import Losers
from app.queue import keys
from app.queue.client import Entry
from app.queue.mend import MAX_QUARANTINED
from app.settings import Settings
from tests.support.api import running_api
from tests.support.house import reply
from tests.support.waiting import eventually
from tests.support.workplace import (
    at_work,
    becomes,
    catalogue_of,
    drain,
    give_back,
    make_worker,
    row,
    submit,
    trial_type,
)
from workers.sweep import Sweep

JOB = trial_type()
QUEUE = keys.queue("north", 5)
WORKS = {JOB.kind: give_back}

pytestmark = pytest.mark.databases("sqlite")  # where rows are concerned, both


class Bomb:
    """Leaves a trace when a pickle of it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings.model_copy(update={"lease_s": 1.0}), catalogue_of(JOB)) as house:
        yield house


async def quarantined(house: Installation) -> dict[bytes, bytes]:
    return await reply(house.redis.hgetall(keys.QUARANTINE))


async def counted(house: Installation) -> int:
    totals = await read_totals(house.redis)
    return sum(count for key, count in totals.items() if key[0] == "quarantined")


async def runs_a_job(house: Installation) -> None:
    """Let a worker run one good job beside whatever is there; it must end by itself."""
    job_id = await submit(house, JOB, "good")
    await drain(make_worker(house, WORKS, burst=True))
    await becomes(house, job_id, Status.COMPLETED)


# --- ids ---------------------------------------------------------------------------------------

IDS = {
    "nul": b"nul\0",
    "not utf-8": b"\xff\xfe",
    "pickle": pickle.dumps(["x"]),
    "very long": b"x" * 100_000,
    "empty": b"",
    "newline": b"two\nlines",
}


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("raw", IDS.values(), ids=IDS.keys())
async def test_an_id_that_no_store_can_hold_is_quarantined_and_its_neighbours_run(
    house: Installation, raw: bytes
) -> None:
    await house.redis.zadd(QUEUE, {raw: 1})

    await runs_a_job(house)

    assert await quarantined(house) == {raw[:512]: b"unusable id|" + raw[:4096]}
    assert await counted(house) == 1
    assert await house.redis.exists(QUEUE, keys.LEASES, keys.CLAIMS) == 0


async def test_many_bad_entries_do_not_starve_the_good_ones_and_only_some_are_kept(house: Installation) -> None:
    await house.redis.zadd(QUEUE, {b"\xff%d" % number: 1 for number in range(1500)})

    await runs_a_job(house)

    assert (len(await quarantined(house)), await counted(house)) == (MAX_QUARANTINED, 1500)


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_row_that_the_database_refuses_quarantines_its_entry_alone(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.redis.enqueue_job(JOB.kind, value=1, _job_id="refused", _queue_name=QUEUE)
    await house.redis.enqueue_job(JOB.kind, value=2, _job_id="fine", _queue_name=QUEUE)
    adopt = Losers._adopt_one

    async def refuse_one(self: Losers, claim: Any, *args: Any) -> Any:
        if claim.id == "refused":
            raise ValueError("no such row")
        return await adopt(self, claim, *args)

    monkeypatch.setattr(Losers, "_adopt_one", refuse_one)
    await runs_a_job(house)

    assert list(await quarantined(house)) == [b"refused"]
    assert (await becomes(house, "fine", Status.COMPLETED)).result == {"value": 2}


# --- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["-inf", "-5", "0", "1e-300"])
async def test_a_job_with_an_absurd_score_runs_once(house: Installation, score: str) -> None:
    job_id = await submit(house, JOB, "odd")
    await house.redis.zadd(QUEUE, {job_id: score})

    await runs_a_job(house)

    assert (await becomes(house, job_id, Status.COMPLETED)).attempts == 1


@pytest.mark.parametrize("score", ["+inf", "1.7e308", "9e15"])
async def test_a_job_that_seems_to_run_for_ever_is_offered_again(house: Installation, score: str) -> None:
    job_id = await submit(house, JOB, "odd")
    await house.redis.zadd(QUEUE, {job_id: score})

    await Sweep(house, worker_id="a-sweeper").walk()

    async with at_work(make_worker(house, WORKS)):
        assert (await becomes(house, job_id, Status.COMPLETED)).attempts == 1


# --- keys that lead elsewhere ------------------------------------------------------------------

ELSEWHERE = [
    b"\xff\xfe",
    b"somewhere",
    b"jobs:events",
    b"xrq:queue:north:5",
    b"arq:queue:north:05",
    b"arq:queue:north:0",
    b"arq:queue:north:11",
    b"arq:queue:north:5:x",
    b"arq:queue::5",
    b"",
]


async def test_keys_in_the_busy_set_that_are_none_of_ours_are_forgotten(house: Installation) -> None:
    await reply(house.redis.sadd(keys.BUSY, *ELSEWHERE, "arq:queue:unknown:5"))
    await house.redis.set("somewhere", "precious")

    await runs_a_job(house)

    assert await reply(house.redis.smembers(keys.BUSY)) <= {b"arq:queue:unknown:5", QUEUE.encode()}
    assert await house.redis.get("somewhere") == b"precious"


@pytest.mark.parametrize(
    "claim", [b"", b"\xff", b"no bar", b"somewhere|dead", b"arq:queue:north:77|dead", b"|", pickle.dumps([1])]
)
async def test_a_claim_that_nobody_can_read_leaves_its_job_rescuable(house: Installation, claim: bytes) -> None:
    job_id = await submit(house, JOB, "held")
    claims = await house.queue.claim(["north"], want=1, token="a-worker-that-dies")
    assert [one.id for one in claims.claims] == [job_id]
    await house.redis.set("somewhere", "precious")
    await reply(house.redis.hset(keys.CLAIMS, mapping={job_id: claim}))

    async with at_work(make_worker(house, WORKS)):
        await becomes(house, job_id, Status.COMPLETED)

    assert await house.redis.get("somewhere") == b"precious"


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_dead_token_that_no_row_can_bear_is_none(house: Installation) -> None:
    job_id = await submit(house, JOB, "held")
    await house.queue.claim(["north"], want=1, token="a-worker-that-dies")
    await reply(house.redis.hset(keys.CLAIMS, mapping={job_id: QUEUE.encode() + b"|nul\0\xff"}))

    async with at_work(make_worker(house, WORKS)):
        await becomes(house, job_id, Status.COMPLETED)


async def test_a_sweeping_lock_that_never_ends_is_given_an_end(house: Installation) -> None:
    await house.redis.set(keys.SWEEPER, pickle.dumps(["nobody"]))

    await Sweep(house, worker_id="a-sweeper")._has_turn()

    assert 0 < await house.redis.ttl(keys.SWEEPER) <= 5


# --- types -------------------------------------------------------------------------------------

EXPECTED = {QUEUE: "zset", keys.bell("north"): "list", **keys.FIXED}


@pytest.mark.parametrize("key", EXPECTED)
async def test_a_key_of_the_wrong_type_is_moved_aside_and_stops_nobody(house: Installation, key: str) -> None:
    async with at_work(make_worker(house, WORKS)):
        first = await submit(house, JOB, 1)
        await becomes(house, first, Status.COMPLETED)
        pipe = house.redis.pipeline(transaction=True)  # the worker writes there too
        pipe.delete(key)
        if EXPECTED[key] == "string":
            pipe.rpush(key, "a list")
        else:
            pipe.set(key, "a string")
        await pipe.execute()
        if key == keys.QUARANTINE:
            await house.redis.zadd(QUEUE, {b"\xff": 1})  # else nobody would touch it
        second = await submit(house, JOB, 2)
        done = await becomes(house, second, Status.COMPLETED, within=15)

        async def is_aside() -> bool:
            is_gone = await house.redis.type(key) in (EXPECTED[key].encode(), b"none")  # a rebuild may have been first
            return is_gone or bool(await house.redis.exists(keys.ASIDE + key))

        await eventually(is_aside, within=10)

    assert done.result == {"value": 2}


async def test_what_is_asked_in_one_go_is_asked_again_once_the_wrong_key_is_out_of_the_way(house: Installation) -> None:
    job_id = await submit(house, JOB, 1)
    job = await row(house, job_id)

    async def spoil(key: str) -> None:
        await house.redis.delete(key)
        await house.redis.set(key, "a string")

    await spoil(QUEUE)
    astray = await house.queue.astray([Entry(job.id, job.queue, job.priority, job.due_at)])
    await spoil(keys.PAUSED)
    (stats,) = await house.queue.stats(["north"])
    await spoil(keys.PAUSED)
    await house.queue.pause("north", is_paused=True)

    assert astray == [job_id]
    assert (stats.name, stats.is_paused) == ("north", False)
    assert await house.queue.paused() == {"north"}


async def test_a_holder_of_the_wrong_type_does_not_end_the_renewals(house: Installation) -> None:
    async def wait(ctx: Any, params: Any) -> Any:
        await ctx.sleep(2.5)
        return await give_back(ctx, params)

    job_id = await submit(house, JOB, "held")
    async with at_work(make_worker(house, {JOB.kind: wait})), at_work(make_worker(house, {JOB.kind: wait})):
        await becomes(house, job_id, Status.RUNNING)
        await house.redis.delete(keys.holder(job_id))
        await reply(house.redis.rpush(keys.holder(job_id), "a list"))
        done = await becomes(house, job_id, Status.COMPLETED)

    assert (done.attempts, done.interruptions) == (1, 0)


# --- pickles -----------------------------------------------------------------------------------


async def test_a_pickle_bomb_in_every_key_that_is_read_does_nothing(settings: Settings, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    async with running_api(settings.model_copy(update={"lease_s": 1.0}), catalogue=catalogue_of(JOB)) as api:
        house = api.house
        job_id = await submit(house, JOB, "good")
        await plant(house, bomb, job_id)
        async with at_work(make_worker(house, WORKS)):
            await house.redis.publish(keys.CONTROL, bomb)
            done = await becomes(house, job_id, Status.COMPLETED, within=15)
            again = await becomes(house, await submit(house, JOB, "again"), Status.COMPLETED, within=15)
            pages = ("tasks/queues/stats", "tasks/workers/status", "tasks/health", f"tasks/{job_id}", "tasks")
            shown = [(await api.ask("GET", f"/api/{page}")).status for page in pages]
            shown.append((await api.ask("GET", "/metrics")).status)
            await read_events(house)

    assert (done.result, again.result) == ({"value": "good"}, {"value": "again"})
    assert shown == [200] * 6
    assert not trace.exists()


async def plant(house: Installation, bomb: bytes, job_id: str) -> None:
    """Put a bomb wherever something is read: under our keys, and into every field, member and element."""
    redis = house.redis
    for key in (keys.body("evil"), keys.holder("evil"), keys.result("evil"), keys.CLOCK, keys.SWEEPER):
        await redis.set(key, bomb)
    await redis.set(keys.body(job_id), bomb)
    await redis.set(keys.progress(job_id), bomb)
    await redis.set(keys.worker("evil"), bomb)
    await redis.zadd(keys.WORKERS, {b"evil": 9e15, bomb: 9e15})
    await redis.zadd(QUEUE, {b"evil": 1, bomb: 2})
    await redis.zadd(keys.LEASES, {bomb: 1, b"evil-lease": 1})
    await redis.zadd(keys.ABORTS, {bomb: 1})
    await reply(redis.hset(keys.CLAIMS, mapping={"evil-lease": bomb, bomb: bomb}))
    await reply(redis.hset(keys.TOTALS, mapping={bomb: bomb, "tasks|a": bomb}))
    await reply(redis.hset(keys.QUARANTINE, mapping={bomb: bomb}))
    await reply(redis.hset(keys.EPOCH, mapping={"installation": bomb, "counter": bomb, "run_id": bomb, "walk": bomb}))
    await reply(redis.sadd(keys.BUSY, bomb))
    await reply(redis.sadd(keys.PAUSED, bomb))
    await reply(redis.lpush(keys.bell("north"), bomb))
    await redis.xadd(keys.EVENTS, {"e": bomb})
    await redis.xadd(keys.EVENTS, {"other": bomb})


async def read_events(house: Installation) -> None:
    """Read the stream from its beginning to the end of a good job."""
    async with asyncio.timeout(10):
        async for batch in follow(house.redis, "0-0"):
            if any(one.event.type == "task.completed" for one in batch):
                return


@pytest.mark.parametrize("raw", [b"\x80\x04", b"[]", b"[1]", b'{"a":1}', b'[1,"x",null,null]', b"null"])
async def test_progress_and_heartbeats_that_nobody_can_read_tell_of_nobody(house: Installation, raw: bytes) -> None:
    await house.redis.set(keys.progress("a-job"), raw)
    await house.redis.set(keys.worker("a-worker"), raw)
    await house.redis.zadd(keys.WORKERS, {"a-worker": 9e15})

    assert await read_progress(house.redis, ["a-job"]) == {}
    assert await alive_workers(house.redis) == []
