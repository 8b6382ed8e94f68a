"""Leases under a worker: renewed from a thread, doubted by the clock, settled by the row; zombies are harmless."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic

import pytest

from app.clock import to_ms, utc_now
from app.embedded import EmbeddedRedis
from app.history.writer import Started
from app.installation import Installation, open_installation
from app.jobs.catalogue import load_catalogue
from app.jobs.status import Status
from app.orders import Order
from app.queue import keys
from app.queue.client import Claim
from app.settings import Settings
from tests.support import house as steps
from tests.support.house import cut_off_from_sql, die, entry, open_house, reply
from tests.support.service import process
from tests.support.waiting import eventually
from tests.support.watching import Watched
from tests.support.workplace import (
    Anything,
    Something,
    at_work,
    becomes,
    catalogue_of,
    make_worker,
    row,
    submit,
    trial_type,
)
from workers.attempt import StopReason
from workers.context import Context
from workers.lease import Held, LeaseKeeper
from workers.worker import Worker

JOB = trial_type()
LEASE_S = 1.2

pytestmark = [pytest.mark.databases("sqlite", "postgresql"), pytest.mark.timeout(120)]


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    """A house with a short lease."""
    async with open_installation(settings.model_copy(update={"lease_s": LEASE_S}), catalogue_of(JOB)) as house:
        yield house


@pytest.fixture
async def quiet(settings: Settings) -> AsyncIterator[Installation]:
    """A house in which only the test acts."""
    async with open_house(settings) as house:
        yield house


async def lease_of(house: Installation, job_id: str) -> float:
    """Return the deadline of a lease in ms of Redis time; 0 when there is none."""
    return await house.redis.zscore(keys.LEASES, job_id) or 0.0


# --- a silence of all workers ------------------------------------------------------------------


@pytest.mark.parametrize("jump_ms", [-6000, 6000])
async def test_a_jump_of_redis_time_gives_every_lease_one_period_of_grace(quiet: Installation, jump_ms: int) -> None:
    job = await steps.start_one(quiet)
    await die(quiet.redis, job)
    await quiet.redis.set(keys.CLOCK, to_ms(await quiet.queue.now()) + jump_ms)

    assert (await steps.claim(quiet)).claims == []
    assert await lease_of(quiet, job.id) > to_ms(await quiet.queue.now()) + 8000


async def test_a_redis_that_forgot_when_it_was_last_asked_gives_every_lease_its_grace(quiet: Installation) -> None:
    job = await steps.start_one(quiet)
    await die(quiet.redis, job)
    await quiet.redis.delete(keys.CLOCK)

    assert (await steps.claim(quiet)).claims == []


async def test_a_silence_that_a_live_worker_may_keep_gives_no_grace(quiet: Installation) -> None:
    job = await steps.start_one(quiet)
    await die(quiet.redis, job)
    await quiet.redis.set(keys.CLOCK, to_ms(await quiet.queue.now()) - 4500)

    assert [claim.dead for claim in (await steps.claim(quiet)).claims] == [job.claim]


async def test_a_renewal_gives_the_grace_before_it_hides_the_silence(quiet: Installation) -> None:
    job = await steps.start_one(quiet)
    await die(quiet.redis, job)
    await quiet.redis.set(keys.CLOCK, 1)
    keeper = LeaseKeeper(quiet.settings.redis_url, 9.0, on_doubt=print, on_aborted=print)

    await asyncio.to_thread(keeper._renew, [])

    assert (await steps.claim(quiet)).claims == []


async def test_a_worker_that_holds_nothing_tells_redis_that_it_lives(quiet: Installation) -> None:
    keeper = LeaseKeeper(quiet.settings.redis_url, 0.3, on_doubt=print, on_aborted=print)
    keeper.start()
    try:
        await eventually(lambda: quiet.redis.exists(keys.CLOCK))
    finally:
        keeper.stop()


# --- the deadline ------------------------------------------------------------------------------


async def test_a_lease_is_good_from_when_its_renewal_was_sent(quiet: Installation) -> None:
    keeper = LeaseKeeper(quiet.settings.redis_url, 9.0, on_doubt=print, on_aborted=print)
    script, sent_at = keeper._script, monotonic()

    def slow(args: list[str | int]) -> object:
        found = script(args=args)
        keeper._stopping.wait(0.3)  # an answer that was long on its way
        return found

    keeper._script = slow  # type: ignore[assignment]  # in a script's place
    keeper.hold("a-job", keys.queue("alpha", 5), "mine", asked_at=sent_at - 100)
    await asyncio.to_thread(keeper._renew, list(keeper._held.values()))

    (held,) = keeper._held.values()
    assert sent_at + 9.0 <= held.good_until < sent_at + 9.25


async def test_a_lease_that_is_dropped_while_it_is_renewed_stays_dropped(
    quiet: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = LeaseKeeper(quiet.settings.redis_url, 9.0, on_doubt=print, on_aborted=print)
    keeper.hold("a-job", "arq:queue:alpha:5", "ours", asked_at=monotonic())

    def renew(**_args: object) -> tuple[list[bytes], list[bytes]]:
        keeper.drop("a-job", "ours")
        return [], []

    monkeypatch.setattr(keeper, "_script", renew)
    keeper._renew(list(keeper._held.values()))

    assert keeper._held == {}


async def test_two_claims_of_one_job_are_held_and_dropped_apart(quiet: Installation) -> None:
    keeper = LeaseKeeper(quiet.settings.redis_url, 9.0, on_doubt=print, on_aborted=print)
    for token in ("first", "second"):
        keeper.hold("a-job", keys.queue("alpha", 5), token, asked_at=monotonic())

    keeper.drop("a-job", "second")

    assert [held.token for held in keeper._held.values()] == ["first"]


async def test_a_healthy_job_lives_through_a_redis_that_is_away_for_longer_than_its_lease(settings: Settings) -> None:
    watched = Watched(seconds=4.0)
    with EmbeddedRedis() as redis:
        own = settings.model_copy(update={"redis_url": redis.url, "lease_s": LEASE_S})
        async with open_installation(own, catalogue_of(JOB)) as house:
            job_id = await submit(house, JOB, "patient")
            works = {JOB.kind: watched.work}
            async with at_work(make_worker(house, works)), at_work(make_worker(house, works)):
                await becomes(house, job_id, Status.RUNNING)
                redis.kill()
                await asyncio.sleep(2.5 * LEASE_S)  # the outage is what is tested
                redis.start()
                job = await becomes(house, job_id, Status.COMPLETED, within=20)

    assert (job.attempts, job.interruptions, job.releases, watched.runs["patient"]) == (1, 0, 0, 1)


async def test_a_healthy_job_lives_through_a_database_that_is_away(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(seconds=2.5 * LEASE_S)
    job_id = await submit(house, JOB, "patient")
    async with at_work(make_worker(house, {JOB.kind: watched.work})):
        await becomes(house, job_id, Status.RUNNING)
        with monkeypatch.context() as outage:
            cut_off_from_sql(house, outage)
            await eventually(lambda: not watched.running, within=10)
        job = await becomes(house, job_id, Status.COMPLETED)

    assert (job.attempts, job.interruptions, watched.runs["patient"]) == (1, 0, 1)


async def test_a_worker_without_either_store_stops_its_jobs_and_releases_them_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(seconds=60)
    with EmbeddedRedis() as redis:
        own = settings.model_copy(update={"redis_url": redis.url, "lease_s": LEASE_S})
        async with open_installation(own, catalogue_of(JOB)) as house:
            job_id = await submit(house, JOB, "cut off")
            async with at_work(make_worker(house, {JOB.kind: watched.work})):
                await becomes(house, job_id, Status.RUNNING)
                redis.kill()
                with monkeypatch.context() as outage:
                    cut_off_from_sql(house, outage)
                    await eventually(lambda: not watched.running, within=10)
                watched.seconds = 0
                redis.start()
                job = await becomes(house, job_id, Status.COMPLETED, within=20)

    assert (job.attempts, job.releases, job.interruptions, watched.overlaps) == (2, 1, 0, [])


async def test_a_job_that_redis_calls_lost_goes_on_while_its_row_calls_it_ours(house: Installation) -> None:
    watched = Watched(seconds=2.0)
    job_id = await submit(house, JOB, "ours")
    async with at_work(make_worker(house, {JOB.kind: watched.work})):
        job = await becomes(house, job_id, Status.RUNNING)
        await house.redis.set(keys.holder(job_id), "somebody-else", px=60_000)
        await reply(house.redis.hset(keys.CLAIMS, job_id, f"{keys.queue('north', 5)}|somebody-else"))
        job = await becomes(house, job_id, Status.COMPLETED)

    assert (job.attempts, watched.runs["ours"]) == (1, 1)


async def test_a_job_whose_row_another_claim_has_is_stopped_at_the_next_renewal(house: Installation) -> None:
    watched = Watched(seconds=60)
    job_id = await submit(house, JOB, "taken")
    async with at_work(make_worker(house, {JOB.kind: watched.work})):
        job = await becomes(house, job_id, Status.RUNNING)
        before = monotonic()
        await take_over(house, job_id, dead=str(job.claim))
        await eventually(lambda: not watched.running, within=3)

    assert monotonic() - before < 3
    assert (await row(house, job_id)).claim == "the-rescuer"


async def take_over(house: Installation, job_id: str, *, dead: str) -> Started:
    """Run a job under another claim, as a worker does that was told that this one is dead."""
    queue_key = keys.queue("north", 5)
    await house.redis.set(keys.holder(job_id), "the-rescuer", px=60_000)
    await reply(house.redis.hset(keys.CLAIMS, job_id, f"{queue_key}|the-rescuer"))
    claims = await house.queue.claim(["north"], want=0, token="nobody")
    claim = steps_claim(job_id, queue_key, dead)
    (started,) = await house.lifecycle.start(replace(claims, claims=[claim]), worker_id="the-rescuer")
    return started


def steps_claim(job_id: str, queue_key: str, dead: str) -> Claim:
    return Claim(id=job_id, queue_key=queue_key, token="the-rescuer", dead=dead, is_aborted=False)


async def test_a_job_that_runs_here_is_not_run_again_when_redis_offers_it(house: Installation) -> None:
    watched = Watched(seconds=1.5)
    job_id = await submit(house, JOB, "here")
    async with at_work(make_worker(house, {JOB.kind: watched.work})):
        job = await becomes(house, job_id, Status.RUNNING)
        assert job.claim is not None
        await house.redis.zadd(keys.queue("north", 5), {job_id: 1})  # as it stood before Redis was set back
        await house.redis.zrem(keys.LEASES, job_id)
        await house.redis.delete(keys.holder(job_id))
        await reply(house.redis.lpush(keys.bell("north"), b"1"))
        done = await becomes(house, job_id, Status.COMPLETED)

    assert (done.attempts, done.interruptions, watched.runs["here"], watched.overlaps) == (1, 0, 1, [])


# --- zombies -----------------------------------------------------------------------------------


async def test_a_stale_claim_writes_nothing(quiet: Installation) -> None:
    stale = await steps.start_one(quiet)
    await die(quiet.redis, stale)
    (fresh,) = await steps.start(quiet)
    before = await steps.row(quiet, stale.id), await entry(quiet.redis, stale), await lease_of(quiet, stale.id)

    wins = [await steps.settle(quiet, stale, status) for status in (Status.COMPLETED, Status.FAILED, Status.PENDING)]
    checkpoint = await quiet.lifecycle.checkpoint(stale, {"at": 1})
    await quiet.lifecycle.acknowledge(stale, steps.ending(stale))

    after = await steps.row(quiet, stale.id), await entry(quiet.redis, stale), await lease_of(quiet, stale.id)
    assert (wins, checkpoint, after) == ([False] * 3, False, before)
    assert await steps.settle(quiet, fresh)


@pytest.mark.databases("sqlite")
async def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing(settings: Settings) -> None:
    quick = settings.model_copy(update={"lease_s": 2.0, "worker_cron": False})
    catalogue = load_catalogue()
    async with open_installation(quick, catalogue) as house:
        with ExitStack() as processes:
            zombie = processes.enter_context(process(quick, "workers", "--queues", "default"))
            job_type = catalogue.find("system.echo")
            params = job_type.params.model_validate({"wait_seconds": 1.0, "steps": 4, "payload": "once"})
            (job,) = await house.lifecycle.submit([Order(job_type=job_type, params=params, owner="ann")])
            await becomes(house, job.id, Status.RUNNING, within=60)
            await eventually(
                lambda: house.redis.hexists(keys.EPOCH, "run_id")
            )  # stopped in SQLite's lock, it blocks all
            zombie.send_signal(signal.SIGSTOP)
            processes.callback(zombie.send_signal, signal.SIGCONT)
            processes.enter_context(process(quick, "workers", "--queues", "default"))
            done = await becomes(house, job.id, Status.COMPLETED, within=60)
            zombie.send_signal(signal.SIGCONT)
            await eventually(lambda: _has_given_up(quick), within=15)

        after = await row(house, job.id)
    assert after == done
    assert (done.attempts, done.interruptions) == (2, 1)


def _has_given_up(settings: Settings) -> bool:
    return any("job_given_up" in log.read_text() for log in settings.data_dir.glob("workers-*.log"))


async def test_a_cut_off_job_that_completes_all_the_same_keeps_its_result(house: Installation) -> None:
    async def finish_on_stop(_ctx: Context, params: Anything) -> Something:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return Something(value=params.value)
        raise AssertionError("was never stopped")

    job_id = await submit(house, JOB, "done")
    worker: Worker = make_worker(house, {JOB.kind: finish_on_stop})
    async with at_work(worker):
        job = await becomes(house, job_id, Status.RUNNING)
        expired = Held(job_id=job_id, queue_key=keys.queue("north", 5), token=str(job.claim), good_until=0.0)
        worker._stop_attempts([expired.job_id], StopReason.CUT_OFF)
        done = await becomes(house, job_id, Status.COMPLETED)

    assert (done.result, done.completed_at is not None and done.completed_at <= utc_now()) == ({"value": "done"}, True)
