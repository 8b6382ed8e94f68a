"""Jobs that were interrupted twice: they run alone, and what kills its process there is at fault."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import sqlalchemy as sa

from app.errors import Conflict, Unavailable
from app.history.rows import Job
from app.history.tables import jobs
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.queue.client import Claims
from app.settings import Settings
from tests.support.environment import environment_of
from tests.support.poison import CATALOGUE, COMMAND, DEAF, GOOD, POISON, WORKS
from tests.support.processes import is_alive
from tests.support.service import kill, process
from tests.support.waiting import eventually
from tests.support.workplace import Anything, Something, TrialType, at_work, becomes, make_worker, row, submit
from workers.alone import LoneWorker
from workers.context import Context
from workers.verdict import convict
from workers.worker import Worker

pytestmark = pytest.mark.timeout(120)  # a limit, not an expectation: a busy machine starts a process slowly


@pytest.fixture
def hasty(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a lease that a test can wait for, also in the environment of every process started here."""
    hasty = settings.model_copy(update={"lease_s": 2.0, "worker_grace_s": 1.0, "worker_hang_s": 2.0})
    for name, value in environment_of(hasty).items():
        monkeypatch.setenv(name, value)
    return hasty


@pytest.fixture
async def house(hasty: Settings) -> AsyncIterator[Installation]:
    async with open_installation(hasty, CATALOGUE) as installation:
        yield installation


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def worker(house: Installation, *, slots: int = 10) -> Worker:
    return make_worker(house, WORKS, slots=slots, alone_command=[*COMMAND, "--alone"])


async def suspect(house: Installation, job_type: TrialType, value: Any = None, *, in_s: float = 0) -> str:
    """Submit a job that was interrupted twice; beside a worker at work, it must not be due before it is so."""
    due_at = await house.queue.now() + timedelta(seconds=in_s)
    job_id = await submit(house, job_type, value, scheduled_for=due_at)
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(interruptions=2))
    return job_id


async def test_a_suspect_runs_in_a_process_that_holds_nothing_else(house: Installation) -> None:
    ids = [await suspect(house, GOOD) for _ in range(4)]
    plain = await submit(house, GOOD)
    async with at_work(worker(house)):
        done = [await becomes(house, job_id, Status.COMPLETED, within=60) for job_id in ids]
        beside = await becomes(house, plain, Status.COMPLETED)

    assert beside.result["value"]["pid"] == os.getpid()
    assert all(job.result["value"]["pid"] != os.getpid() for job in done)
    assert [job.result["value"]["running"] for job in done] == [0, 0, 0, 0]
    assert {(job.attempts, job.interruptions) for job in done} == {(1, 2)}
    assert not _children()


async def test_a_lone_worker_runs_one_job_at_a_time_whatever_it_is_handed(house: Installation) -> None:
    running, seen, release = 0, list[int](), asyncio.Event()

    async def count(ctx: Context, _params: Anything) -> Something:
        nonlocal running
        running += 1
        seen.append(running)
        await release.wait()
        await ctx.sleep(0.4)
        running -= 1
        return Something()

    ids = [await suspect(house, GOOD) for _ in range(2)]
    first, second = (await house.queue.claim(["north"], want=2, token="a-test")).claims
    near, far = socket.socketpair()
    lone = LoneWorker(house, far, functions={GOOD.kind: count}, queues=["north"], handle_signals=False)
    serving = asyncio.create_task(lone.async_run())
    near.sendall(orjson.dumps(first._asdict()) + b"\n")
    await eventually(lambda: seen)
    near.sendall(orjson.dumps(second._asdict()) + b"\n")
    await eventually(lambda: lone._handed_over)
    await eventually(lambda: not lone._wake.is_set())  # it has thought about that
    release.set()
    done = [await becomes(house, job_id, Status.COMPLETED) for job_id in ids]
    near.close()
    await asyncio.wait_for(serving, 20)

    assert seen == [1, 1]
    assert [job.attempts for job in done] == [1, 1]


async def test_a_lone_worker_renews_the_lease_of_what_it_runs(house: Installation) -> None:
    job_id = await suspect(house, GOOD, {"seconds": 60})
    async with _handed_to_lone_worker(house) as (lone, _):
        await eventually(lambda: job_id in lone._attempts)
        await asyncio.sleep(1.4 * house.settings.lease_s)
        others = await house.queue.claim(["north"], want=1, token="another")

    assert others.claims == []


async def test_an_outage_when_a_suspect_starts_leaves_it_to_whoever_comes_next(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await suspect(house, GOOD)
    start, failures = house.lifecycle.start, iter([Unavailable("The database is away.")])

    async def start_or_fail(claims: Claims, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return await start(claims, **options)

    monkeypatch.setattr(house.lifecycle, "start", start_or_fail)
    async with _handed_to_lone_worker(house) as (lone, answers):
        assert await asyncio.wait_for(answers.readline(), 20) == b"\n"  # it is up
        assert await asyncio.wait_for(answers.readline(), 20) == f"{job_id}\n".encode()
        assert not lone._attempts
        async with at_work(worker(house)):  # its lease is renewed by nobody
            done = await becomes(house, job_id, Status.COMPLETED, within=60)

    assert (done.attempts, done.interruptions) == (1, 2)


@asynccontextmanager
async def _handed_to_lone_worker(house: Installation) -> AsyncIterator[tuple[LoneWorker, asyncio.StreamReader]]:
    """Claim one job and hand it to a lone worker in this process; offer that, and what it answers."""
    (claim,) = (await house.queue.claim(["north"], want=1, token="a-test")).claims
    near, far = socket.socketpair()
    lone = LoneWorker(house, far, functions=WORKS, queues=["north"], handle_signals=False)
    serving = asyncio.create_task(lone.async_run())
    reader, writer = await asyncio.open_unix_connection(sock=near)
    writer.write(orjson.dumps(claim._asdict()) + b"\n")
    try:
        yield lone, reader
    finally:
        writer.close()
        await asyncio.wait_for(serving, 30)


@pytest.mark.parametrize("harm", ["kill", "hang"])
async def test_a_suspect_that_kills_its_process_ends_failed_and_spares_the_rest(house: Installation, harm: str) -> None:
    poison, good = await suspect(house, POISON, harm), await suspect(house, GOOD)
    async with at_work(worker(house)):
        dead = await becomes(house, poison, Status.FAILED, within=60)
        done = await becomes(house, good, Status.COMPLETED, within=60)

    assert (dead.interruptions, dead.error and dead.error.code) == (3, "worker_lost")
    assert (done.interruptions, done.attempts) == (2, 1)


async def test_a_suspect_gets_its_turn_while_every_slot_is_taken_and_takes_none(house: Installation) -> None:
    async with at_work(worker(house, slots=2)) as busy:
        for _ in range(120):  # for longer than the suspect may take
            await submit(house, GOOD, {"seconds": 0.5}, priority=9)
        await eventually(lambda: len(busy._attempts) == 2)
        job_id = await suspect(house, GOOD, in_s=1)
        await house.lifecycle.reprioritise(job_id, priority=10)
        done = await becomes(house, job_id, Status.COMPLETED, within=30)
        waiting = (await house.queue.stats(["north"]))[0].ready
        await _cancel_all(house)

    assert done.result["value"]["pid"] != os.getpid()
    assert waiting > 0


async def _cancel_all(house: Installation) -> None:
    for job in await house.reader.live_page(before=None, limit=1000):
        with suppress(Conflict):
            await house.lifecycle.cancel(job.id)


async def test_a_suspect_can_be_cancelled(house: Installation, tmp_path: Path) -> None:
    job_id = await suspect(house, GOOD, {"seconds": 60, "file": str(tmp_path / "pid")})
    async with at_work(worker(house)):
        await eventually((tmp_path / "pid").exists, within=60)

        await house.lifecycle.cancel(job_id)

        await eventually(lambda: _is_let_go(house, job_id))
    assert (await row(house, job_id)).status is Status.CANCELLED


async def _is_let_go(house: Installation, job_id: str) -> bool:
    return not await house.redis.exists(f"arq:in-progress:{job_id}")


async def test_stubborn_work_does_not_stay_beside_the_next_suspect(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.suspects._PROCESSES", 1)
    deaf = await suspect(house, DEAF, 30)
    async with at_work(worker(house)):
        failed = await becomes(house, deaf, Status.FAILED, within=60)
        first = set(_children())
        good = await suspect(house, GOOD, in_s=1)
        done = await becomes(house, good, Status.COMPLETED, within=60)

    assert failed.error is not None
    assert failed.error.code == "timeout"
    assert done.result["value"]["pid"] not in first


async def test_a_suspect_whose_worker_is_killed_is_released_and_not_convicted(
    house: Installation, hasty: Settings, processes: ExitStack, tmp_path: Path
) -> None:
    place = tmp_path / "pid"
    job_id = await suspect(house, GOOD, {"seconds": 60, "file": str(place)})
    doomed = processes.enter_context(process(hasty, "tests.support.poison"))
    alone = int(await eventually(lambda: place.exists() and place.read_text(), within=60))

    kill(doomed)

    async def is_released() -> Job | None:
        job = await row(house, job_id)
        return job if job.releases else None

    released = await eventually(is_released, within=10)
    assert (released.status, released.interruptions) == (Status.PENDING, 2)
    await eventually(lambda: not is_alive(alone), within=10)


async def test_a_lone_process_that_was_stopped_past_its_lease_convicts_nobody(
    house: Installation, hasty: Settings, processes: ExitStack, tmp_path: Path
) -> None:
    place = tmp_path / "pid"
    job_id = await suspect(house, GOOD, {"seconds": 3, "file": str(place)})
    paused = processes.enter_context(process(hasty, "tests.support.poison", WORKER_HANG_S="60"))
    first = int(await eventually(lambda: place.exists() and place.read_text(), within=60))
    with _stopped(paused.pid, first):
        async with at_work(worker(house)):
            await eventually(lambda: int(place.read_text() or first) != first, within=60)

            _signal_all(signal.SIGCONT, paused.pid, first)
            done = await becomes(house, job_id, Status.COMPLETED, within=60)

    assert (done.interruptions, done.attempts) == (3, 2)
    assert done.result["value"]["pid"] != first


async def test_a_verdict_on_a_claim_that_is_over_spares_who_runs_the_job_now(house: Installation) -> None:
    job_id = await suspect(house, GOOD)
    claims = await house.queue.claim(["north"], want=1, token="now")
    await house.lifecycle.start(claims, worker_id="the-worker")
    former = claims.claims[0]._replace(token="before")

    assert not await convict(former, house.reader, house.lifecycle, exit_code=-9)
    assert (await row(house, job_id)).status is Status.RUNNING


@contextmanager
def _stopped(*pids: int) -> Iterator[None]:
    _signal_all(signal.SIGSTOP, *pids)
    try:
        yield
    finally:
        _signal_all(signal.SIGCONT, *pids)


def _signal_all(signum: signal.Signals, *pids: int) -> None:
    for pid in filter(is_alive, pids):
        os.kill(pid, signum)


async def test_a_stopping_worker_takes_its_suspects_along_without_burning_anything(
    house: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker._SETTLE_LIMIT_S", 60)  # they are told to stop, and not waited for in vain
    place = tmp_path / "pid"
    job_id = await suspect(house, GOOD, {"seconds": 60, "file": str(place)})
    async with at_work(worker(house)):
        await eventually(place.exists, within=60)

    job = await row(house, job_id)
    assert (job.status, job.interruptions, job.releases, job.failures) == (Status.PENDING, 2, 1, 0)
    assert not _children()


def _children() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "--alone" in child.cmdline()
    ]


@pytest.mark.chaos  # its short form is tests/acceptance/test_poison.py
async def test_a_job_that_kills_every_worker_ends_failed_and_its_neighbours_complete(
    house: Installation, hasty: Settings, processes: ExitStack
) -> None:
    neighbours = [await submit(house, GOOD, {"seconds": 0.3}) for _ in range(5)]
    poison = await submit(house, POISON, "kill")
    neighbours += [await submit(house, GOOD, {"seconds": 0.3}) for _ in range(5)]
    processes.enter_context(process(hasty, "tests.support.poison", "--pool", "1"))

    dead = await becomes(house, poison, Status.FAILED, within=90)
    done = [await becomes(house, job_id, Status.COMPLETED, within=60) for job_id in neighbours]

    assert (dead.interruptions, dead.error and dead.error.code) == (3, "worker_lost")
    assert {job.interruptions for job in done} == {2}


async def test_suspects_are_not_put_off_while_their_process_starts(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.suspects._PROCESSES", 1)
    monkeypatch.setattr("workers.suspects._PATIENCE_S", 0.4)  # no process is up by then
    put_off: list[Any] = []
    give_back = house.lifecycle.give_back

    async def note_and_give_back(claims: Any) -> None:
        put_off.extend(claims)
        await give_back(claims)

    monkeypatch.setattr(house.lifecycle, "give_back", note_and_give_back)
    ids = [await suspect(house, GOOD) for _ in range(2)]
    async with at_work(worker(house)) as busy:
        await eventually(lambda: busy._suspects._told, within=20)
        await eventually(lambda: not busy._suspects._starting, within=60)
        before_it_was_up = len(put_off)
        for job_id in ids:
            await becomes(house, job_id, Status.COMPLETED, within=60)

    assert before_it_was_up == 0


async def test_a_stopping_worker_gives_a_suspect_back_whose_process_was_still_starting(house: Installation) -> None:
    job_id = await suspect(house, GOOD)
    async with at_work(worker(house)) as busy:
        await eventually(lambda: busy._suspects._starting, within=20)

    job = await row(house, job_id)
    assert (job.status, job.attempts, job.interruptions) == (Status.PENDING, 0, 2)
    assert await _is_let_go(house, job_id)
    assert not _children()


async def test_no_more_suspects_are_held_than_the_line_takes(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.suspects._LINE", 1)
    ids = [await suspect(house, GOOD) for _ in range(6)]
    idle = worker(house)._suspects
    claims = (await house.queue.claim(["north"], want=2, token="a-test")).claims
    taken = [idle.take(claim) for claim in claims]
    await house.lifecycle.give_back(claims)
    async with at_work(worker(house)):
        await asyncio.gather(*(becomes(house, job_id, Status.COMPLETED, within=60) for job_id in ids))

    assert taken == [True, False]


@asynccontextmanager
async def _second_in_line(house: Installation, place: Path) -> AsyncIterator[str]:
    """Run a worker whose one process for suspects is taken; offer the id of a suspect that waits for it."""
    await suspect(house, GOOD, {"seconds": 600, "file": str(place)})
    async with at_work(worker(house)) as busy:
        await eventually(place.exists, within=60)
        waiting = await suspect(house, GOOD, in_s=1)
        await eventually(lambda: busy._suspects._line, within=20)
        yield waiting


async def test_a_suspect_that_waits_for_long_is_offered_to_other_workers(
    house: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workers.suspects._PROCESSES", 1)
    monkeypatch.setattr("workers.suspects._PATIENCE_S", 0.5)
    async with _second_in_line(house, tmp_path / "pid") as waiting, at_work(worker(house)):
        done = await becomes(house, waiting, Status.COMPLETED, within=25)  # the other runs for 30 s

    assert done.attempts == 1


async def test_a_stopping_worker_gives_back_the_suspects_that_wait(
    house: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workers.suspects._PROCESSES", 1)
    monkeypatch.setattr("workers.suspects._PATIENCE_S", 600)
    async with _second_in_line(house, tmp_path / "pid") as waiting:
        pass

    job = await row(house, waiting)
    assert (job.status, job.attempts, job.interruptions) == (Status.PENDING, 0, 2)
    assert await _is_let_go(house, waiting)


async def test_a_machine_without_room_for_a_process_puts_its_suspects_off(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.suspects._PATIENCE_S", 0.5)
    start, failures = subprocess.Popen, iter([OSError("no room")] * 2)

    def start_or_fail(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        for failure in failures:
            raise failure
        return start(*args, **options)

    monkeypatch.setattr("workers.suspects.subprocess.Popen", start_or_fail)
    job_id = await suspect(house, GOOD)
    async with at_work(worker(house)):
        done = await becomes(house, job_id, Status.COMPLETED, within=60)

    assert done.attempts == 1
