"""The sweep: whatever happens to Redis or to the database, every live job is offered again, and nothing runs twice."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa
from arq.jobs import Job as ArqJob

from app.clock import new_id, utc_now
from app.embedded import EmbeddedRedis
from app.errors import Misconfigured
from app.history.epochs import read_epoch
from app.history.pauses import Pause, add_pause, end_pause
from app.history.reader import JobFilter
from app.history.tables import attempts, epochs, jobs
from app.installation import Installation, check_stores, open_installation
from app.jobs.status import Status
from app.log import get_log
from app.orders import Order
from app.queue import keys
from app.settings import Settings
from tests.support import house as steps
from tests.support.house import QUEUES, die, entry, new_job, open_house, order, reply
from tests.support.waiting import eventually
from tests.support.watching import Watched
from tests.support.workplace import Anything, at_work, catalogue_of, make_worker, trial_type
from workers.sweep import Sweep

JOB = trial_type()

pytestmark = [pytest.mark.databases("sqlite", "postgresql"), pytest.mark.timeout(120)]


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as house:
        yield house


@pytest.fixture
def sweep(house: Installation) -> Sweep:
    return Sweep(house, worker_id="the-sweeper")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sweep._PAGE", 2)


async def look(sweep: Sweep) -> None:
    """Do what a worker does when it is its turn."""
    await sweep._look(*await sweep._read_epoch())


async def submit(house: Installation, count: int) -> set[str]:
    return {job.id for job in await house.lifecycle.submit([order() for _ in range(count)])}


async def offered(house: Installation) -> set[str]:
    found = [await house.redis.zrange(keys.queue(name, p), 0, -1) for name in QUEUES for p in keys.PRIORITIES]
    return {raw.decode() for ids in found for raw in ids}


def after_each_page(house: Installation, monkeypatch: pytest.MonkeyPatch, do: Callable[[int], Awaitable[None]]) -> None:
    """Let something happen after each page that is restored; it is told how many pages there were."""
    restore, pages = house.lifecycle.restore, iter(range(1, 1000))

    async def restore_then(page: Any, *, walk: str = "") -> int:
        restored = await restore(page, walk=walk)
        await do(next(pages))
        return restored

    monkeypatch.setattr(house.lifecycle, "restore", restore_then)


# --- one epoch after another -------------------------------------------------------------------


async def test_a_first_look_begins_the_first_epoch_and_a_second_finds_it_current(
    house: Installation, sweep: Sweep
) -> None:
    await look(sweep)

    mark, counter = await sweep._read_epoch()
    assert (mark.counter, counter, mark.is_current(counter)) == (1, 1, True)


async def test_after_a_flush_every_job_is_back(house: Installation, sweep: Sweep) -> None:
    await look(sweep)
    running = await steps.start_one(house)
    waiting = await submit(house, 5)
    await house.redis.flushdb()

    await look(sweep)

    assert await offered(house) == {running.id, *waiting}
    assert (await entry(house.redis, running) or 0) > keys.RUNNING_OFFSET
    assert {job.id for job in await steps.start(house)} == waiting


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("page", [1, 4])  # in the middle, and after the last
async def test_a_second_flush_starts_a_rebuild_over(
    house: Installation, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    waiting = await submit(house, 7)
    await house.redis.flushdb()

    async def flush_once(number: int) -> None:
        if number == page:
            await house.redis.flushdb()

    after_each_page(house, monkeypatch, flush_once)
    await sweep.rebuild()

    assert await offered(house) == waiting


@pytest.mark.usefixtures("small_pages")
async def test_who_loses_the_turn_in_a_rebuild_leaves_it_to_the_one_who_has_it(
    house: Installation, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, dropped = Sweep(house, worker_id="another"), []
    waiting = await submit(house, 7)

    async def lose_the_turn(number: int) -> None:
        if number == 1:
            await house.redis.delete(keys.SWEEPER)  # it ran out
            assert await other._has_turn()
            await other.rebuild()

    async def note_drop() -> int:
        dropped.append(sweep)
        return 0

    after_each_page(house, monkeypatch, lose_the_turn)
    monkeypatch.setattr(sweep, "drop_ghosts", note_drop)
    assert await sweep._has_turn()
    await look(sweep)

    mark, counter = await other._read_epoch()
    assert (counter, mark.is_current(counter)) == (2, True)  # one walk of each
    assert (await offered(house), dropped) == (waiting, [])


async def test_a_page_of_a_walk_that_is_not_the_current_one_is_not_rung(house: Installation, sweep: Sweep) -> None:
    await submit(house, 2)
    await sweep.rebuild()
    await house.redis.delete(keys.queue("alpha", 5))

    rung = await house.lifecycle.restore(await house.reader.live_page(before=None), walk="another")

    assert (rung, await offered(house)) == (-1, set())


@pytest.mark.usefixtures("small_pages")
async def test_pauses_stand_before_the_first_job_is_back(
    house: Installation, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    async def note_pauses(_number: int) -> None:
        seen.append(await house.queue.paused())

    await add_pause(house.database, Pause(queue="alpha", paused_at=utc_now(), paused_by="ada"))
    await submit(house, 3)
    await house.redis.flushdb()
    after_each_page(house, monkeypatch, note_pauses)

    await sweep.rebuild()

    assert seen == [{"alpha"}, {"alpha"}]


async def test_a_rebuild_gives_every_lease_one_fresh_period(house: Installation, sweep: Sweep) -> None:
    job = await steps.start_one(house)
    await die(house.redis, job)

    await sweep.rebuild()

    assert (await steps.claim(house)).claims == []
    assert await reply(house.redis.zscore(keys.LEASES, job.id)) > 1


async def test_a_worker_whose_turn_it_is_not_does_not_sweep(
    house: Installation, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, looks = 0, list[int]()

    async def read_epoch_and_count(*args: Any) -> Any:
        nonlocal read
        read += 1
        return await Sweep._read_epoch(sweep, *args)

    async def note(*_seen: object) -> None:
        looks.append(read)

    monkeypatch.setattr("workers.sweep._LOOK_S", 0.01)
    monkeypatch.setattr(sweep, "_read_epoch", read_epoch_and_count)
    monkeypatch.setattr(sweep, "_look", note)
    await house.redis.set(keys.SWEEPER, "another", ex=60)
    running = asyncio.create_task(sweep.run())
    await eventually(lambda: read >= 3)
    before = [*looks]
    await house.redis.delete(keys.SWEEPER)
    await eventually(lambda: looks)
    running.cancel()
    await asyncio.wait([running])

    assert before == []


async def test_a_rebuild_that_begins_leaves_neither_the_end_nor_the_pauses_of_the_one_before(
    house: Installation, sweep: Sweep
) -> None:
    await look(sweep)
    epoch = await read_epoch(house.database)
    await house.queue.pause("alpha", is_paused=True)  # SQL knows of none

    await sweep._epochs.begin(epoch.installation, epoch.counter, new_id(), ["beta"])

    mark, counter = await sweep._read_epoch()
    assert not mark.is_current(counter)
    assert await house.queue.paused() == {"beta"}


@pytest.mark.parametrize("counter", ["99", "0", "", "pickle", "-3"])
async def test_a_counter_other_than_that_of_the_database_starts_a_rebuild(
    house: Installation, sweep: Sweep, counter: str
) -> None:
    await look(sweep)
    await reply(house.redis.hset(keys.EPOCH, "counter", counter))
    waiting = await submit(house, 2)
    await house.redis.delete(keys.queue("alpha", 5))

    await look(sweep)

    mark, in_sql = await sweep._read_epoch()
    assert mark.is_current(in_sql)
    assert in_sql == (100 if counter == "99" else 2)
    assert await offered(house) == waiting


async def test_an_unfinished_rebuild_is_done_again_by_the_next_sweeper(house: Installation, sweep: Sweep) -> None:
    epoch = await read_epoch(house.database)
    await sweep._epochs.begin(epoch.installation, epoch.counter, new_id(), ())
    unfinished, counter = await sweep._read_epoch()

    await look(sweep)

    mark, later = await sweep._read_epoch()
    assert (unfinished.is_current(counter), mark.is_current(later)) == (False, True)


async def test_a_redis_of_another_installation_is_refused(house: Installation, sweep: Sweep) -> None:
    await look(sweep)
    async with house.database.write() as connection:
        await connection.execute(sa.update(epochs).values(installation=new_id()))

    with pytest.raises(Misconfigured, match="belongs to another installation"):
        await check_stores(house)
    with pytest.raises(Misconfigured, match="belongs to another installation"):
        await sweep.run()


async def test_an_epoch_that_nobody_can_read_is_replaced(house: Installation, sweep: Sweep) -> None:
    await reply(
        house.redis.hset(keys.EPOCH, mapping={"installation": b"\x80\x04", "counter": b"\xff", "run_id": b"\0"})
    )
    await check_stores(house)

    await look(sweep)

    mark, counter = await sweep._read_epoch()
    assert mark.is_current(counter)


@pytest.mark.databases("sqlite")
async def test_a_redis_that_was_restarted_with_its_data_begins_another_epoch(settings: Settings) -> None:
    with EmbeddedRedis() as redis:
        async with open_house(settings.model_copy(update={"redis_url": redis.url})) as house:
            sweep = Sweep(house, worker_id="the-sweeper")
            await look(sweep)
            redis.kill()
            redis.start()

            await look(sweep)

            mark, counter = await sweep._read_epoch()
    assert (counter, mark.is_current(counter)) == (2, True)


# --- what a walk puts right --------------------------------------------------------------------


async def test_a_running_entry_without_lease_and_claim_can_be_found_dead_again(
    house: Installation, sweep: Sweep
) -> None:
    job = await steps.start_one(house)
    await house.redis.delete(keys.LEASES, keys.CLAIMS, keys.holder(job.id))

    await sweep.walk()
    await die(house.redis, job)

    assert [(claim.id, claim.dead) for claim in (await steps.claim(house)).claims] == [(job.id, job.claim)]


async def test_an_entry_that_waits_for_longer_than_its_row_says_is_brought_forward(
    house: Installation, sweep: Sweep
) -> None:
    (job_id,) = await submit(house, 1)
    await house.redis.zadd(keys.queue("alpha", 5), {job_id: 3e12})

    await sweep.walk()

    assert [job.id for job in await steps.start(house)] == [job_id]


async def test_a_retry_that_is_due_later_stays_where_it_is(house: Installation, sweep: Sweep) -> None:
    job = await steps.start_one(house)
    await steps.settle(house, job, Status.PENDING)
    before = await entry(house.redis, job)

    await sweep.walk()

    assert await entry(house.redis, job) == before


async def test_a_pause_that_redis_missed_is_told_and_one_that_has_ended_is_taken_back(
    house: Installation, sweep: Sweep
) -> None:
    await add_pause(house.database, Pause(queue="alpha", paused_at=utc_now(), paused_by="ada"))
    await sweep.walk()
    told = await house.queue.paused()
    await end_pause(house.database, "alpha")

    await sweep.walk()

    assert (told, await house.queue.paused()) == ({"alpha"}, set())


async def test_entries_without_a_live_row_leave_and_those_of_stock_clients_stay(
    house: Installation, sweep: Sweep
) -> None:
    never_accepted, ended = new_job(), await steps.start_one(house)
    await steps.settle(house, ended)
    held = await steps.start_one(house)
    (waiting,) = await submit(house, 1)
    for job_id in (never_accepted.id, ended.id):
        await house.redis.set(keys.body(job_id), await house.redis.get(keys.body(held.id)) or b"")
        await house.redis.zadd(keys.queue("alpha", 5), {job_id: 3e12})
    theirs = await house.redis.enqueue_job("test.note", _queue_name=keys.queue("alpha", 5))
    assert isinstance(theirs, ArqJob)
    async with house.database.write() as connection:
        await connection.execute(sa.delete(jobs).where(jobs.c.id == held.id))

    dropped = await sweep.drop_ghosts()

    assert dropped == 2
    assert await offered(house) == {waiting, held.id, theirs.job_id}  # what is held is left to its holder


# --- while workers go on -----------------------------------------------------------------------

LEASE_S = 1.5


@contextmanager
def own_redis(settings: Settings, directory: Path | None = None) -> Iterator[tuple[EmbeddedRedis, Settings]]:
    """A Redis that the test may kill, and settings of a short lease on it."""
    with EmbeddedRedis(directory=directory) as redis:
        yield redis, settings.model_copy(update={"redis_url": redis.url, "lease_s": LEASE_S})


async def order_many(house: Installation, values: range) -> None:
    orders = [Order(job_type=JOB, params=Anything(value=value), owner="ann") for value in values]
    for at in range(0, len(orders), 1000):
        await house.lifecycle.submit(orders[at : at + 1000])


async def ended(house: Installation, count: int) -> bool:
    return await house.reader.count(JobFilter(statuses=frozenset({Status.COMPLETED}))) == count


async def test_nothing_runs_twice_when_redis_is_flushed_under_working_workers(settings: Settings) -> None:
    watched = Watched(seconds=0.3)
    short = settings.model_copy(update={"lease_s": LEASE_S})
    async with open_installation(short, catalogue_of(JOB)) as house:
        await order_many(house, range(120))
        async with (
            at_work(make_worker(house, {JOB.kind: watched.work})),
            at_work(make_worker(house, {JOB.kind: watched.work})),
        ):
            for _ in range(3):
                await eventually(lambda: len(watched.running) == 20)
                await house.redis.flushdb()
                seen = sum(watched.runs.values())
                await eventually(lambda seen=seen: sum(watched.runs.values()) > seen + 10, within=15)  # type: ignore[misc]
            await eventually(lambda: ended(house, 120), within=30)

    assert (set(watched.runs.values()), watched.overlaps) == ({1}, [])


@pytest.mark.databases("sqlite")
async def test_jobs_run_on_when_redis_is_restored_from_before(settings: Settings, tmp_path: Path) -> None:
    watched, long = Watched(seconds=0.1), Watched(seconds=3.5)
    other = trial_type("long")
    directory, backup = tmp_path / "redis", tmp_path / "backup"
    with own_redis(settings, directory) as (redis, own):
        async with open_installation(own, catalogue_of(JOB, other)) as house:
            works = {JOB.kind: watched.work, other.kind: long.work}
            await order_many(house, range(60))
            async with at_work(make_worker(house, works, slots=6)), at_work(make_worker(house, works, slots=6)):
                await eventually(lambda: sum(watched.runs.values()) >= 12)
                shutil.copytree(directory, backup)
                longs = [Order(job_type=other, params=Anything(value=n), owner="ann", priority=9) for n in range(4)]
                await house.lifecycle.submit(longs)
                await eventually(lambda: len(long.running) == 4 and sum(watched.runs.values()) >= 30)
                redis.kill()
                shutil.rmtree(directory)
                shutil.copytree(backup, directory)
                redis.start()
                await eventually(lambda: ended(house, 64), within=40)

    assert (watched.overlaps, long.overlaps) == ([], [])
    assert (set(watched.runs.values()), set(long.runs.values())) == ({1}, {1})


async def test_jobs_run_on_when_the_database_is_restored_from_before(settings: Settings) -> None:
    watched = Watched(seconds=0.15)
    short = settings.model_copy(update={"lease_s": LEASE_S})
    async with open_installation(short, catalogue_of(JOB)) as house:
        await order_many(house, range(40))
        async with at_work(make_worker(house, {JOB.kind: watched.work}, slots=5)):
            await eventually(lambda: sum(watched.runs.values()) >= 10)
            backup = await dump(house)
            await order_many(house, range(100, 110))
            await eventually(lambda: sum(watched.runs.values()) >= 25)
            await bring_back(house, backup)
            await eventually(lambda: ended(house, 40), within=40)
            await eventually(lambda: _is_empty(house), within=20)

    assert watched.overlaps == []
    assert set(range(40)) <= watched.runs.keys()


async def dump(house: Installation) -> dict[sa.Table, list[dict[str, Any]]]:
    async with house.database.read() as connection:
        return {
            table: [
                dict(row)
                for row in (await connection.execute(sa.select(*(c.label(c.key) for c in table.c)))).mappings()
            ]
            for table in (jobs, attempts, epochs)
        }


async def bring_back(house: Installation, backup: dict[sa.Table, list[dict[str, Any]]]) -> None:
    async with house.database.write() as connection:
        for table, rows in backup.items():
            await connection.execute(sa.delete(table))
            if rows:
                await connection.execute(sa.insert(table), rows)


async def _is_empty(house: Installation) -> bool:
    (stats,) = await house.queue.stats(["north"])
    return not (stats.ready or stats.scheduled or stats.running)


# --- how long it takes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "running"),
    [(1500, 10), pytest.param(15_000, 50, marks=[pytest.mark.chaos, pytest.mark.timeout(300)])],
)
@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_everything_is_offered_again_within_ten_seconds(
    settings: Settings, waiting: int, running: int, how: str, record_property: Callable[[str, object], None]
) -> None:
    watched = Watched(seconds=600)
    with own_redis(settings) as (redis, own):
        patient = own.model_copy(update={"lease_s": 9.0, "worker_grace_s": 0.0})
        async with open_installation(patient, catalogue_of(JOB)) as house:
            await order_many(house, range(waiting + running))
            async with at_work(make_worker(house, {JOB.kind: watched.work}, slots=running)):
                await eventually(lambda: len(watched.running) == running, within=20)
                await eventually(lambda: house.redis.hexists(keys.EPOCH, "run_id"), within=20)
                if how == "flush":
                    await house.redis.flushall()
                else:
                    restart_empty(redis)
                before = monotonic()
                await eventually(lambda: _holds(house, waiting, running), within=30)
                took = monotonic() - before

    record_property("seconds", round(took, 2))  # shown by --junit-xml
    get_log().info("offered_again", waiting=waiting, running=running, how=how, seconds=round(took, 2))
    assert took <= 10
    assert (set(watched.runs.values()), watched.overlaps) == ({1}, [])


def restart_empty(redis: EmbeddedRedis) -> None:
    redis.kill()
    for found in redis._directory().iterdir():
        if found.is_dir():
            shutil.rmtree(found)
    redis.start()


async def _holds(house: Installation, waiting: int, running: int) -> bool:
    (stats,) = await house.queue.stats(["north"])
    return (stats.ready, stats.running) == (waiting, running)
