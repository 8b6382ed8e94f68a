"""CPU-bound work in child processes of a real worker: progress, limits, cancel, memory, and no orphan."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs.contract import Limits, RetryPolicy
from app.jobs.status import Status
from app.live.progress import read_progress
from app.processes import start_child
from app.settings import Settings
from tests.support import crunching
from tests.support.environment import environment_of
from tests.support.loop_lag import MOST_S, p99, watched_loop
from tests.support.processes import is_alive
from tests.support.service import kill
from tests.support.waiting import eventually
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
from workers.context import Context

ROOT = Path(__file__).parents[2]
ONCE = RetryPolicy(max_retries=0)
JOB = trial_type(retry=ONCE)
SHORT = trial_type("short", limits=Limits(hard_s=2.0, soft_s=0.3), retry=ONCE)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    small = settings.model_copy(update={"worker_child_memory_mb": 300})
    async with open_installation(small, catalogue_of(JOB, SHORT)) as installation:
        yield installation


def calling(function: Callable[..., Any], *args: Any) -> Callable[[Context, Anything], Awaitable[Something]]:
    async def work(ctx: Context, _params: Anything) -> Something:
        return Something(value=await ctx.run_process(function, *args))

    return work


async def ended(house: Installation, function: Callable[..., Any], *args: Any, job_type: Any = JOB) -> Job:
    """Run one job that calls the function in a process; return its row once it has ended."""
    job_id = await submit(house, job_type)
    async with at_work(make_worker(house, {job_type.kind: calling(function, *args)})):

        async def look() -> Job | None:
            job = await row(house, job_id)
            return job if job.status.is_final else None

        return await eventually(look, within=20)


async def pid_in(file: Path) -> int:
    return int(await eventually(lambda: file.exists() and file.read_text(), within=20))


async def test_what_the_child_returns_is_the_result_and_its_progress_reaches_the_row(house: Installation) -> None:
    job = await ended(house, crunching.double, 21)

    assert (job.status, job.result) == (Status.COMPLETED, {"value": 42})
    assert (job.progress_message, job.stage) == ("half way", "doubling")


async def test_a_child_is_a_nice_process_of_its_own(house: Installation) -> None:
    job = await ended(house, crunching.identify)

    child = job.result["value"]
    assert child["pid"] != os.getpid()
    assert child["nice"] == min(19, os.nice(0) + 10)
    assert child["group"] == child["pid"]
    assert not is_alive(child["pid"])


@pytest.mark.parametrize("function", [crunching.spin, crunching.spin_deaf])
async def test_a_cancel_ends_the_child_within_two_seconds(
    house: Installation, tmp_path: Path, function: Callable[..., None]
) -> None:
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: calling(function, tmp_path / "pid")})):
        pid = await pid_in(tmp_path / "pid")

        await house.lifecycle.cancel(job_id)

        await eventually(lambda: not is_alive(pid), within=2)
    assert (await row(house, job_id)).status is Status.CANCELLED


async def test_progress_of_a_child_is_told_while_it_runs(house: Installation, tmp_path: Path) -> None:
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: calling(crunching.spin, tmp_path / "pid")})):

        async def has_progress() -> bool:
            told = await read_progress(house.redis, [job_id])
            return job_id in told and told[job_id].percent > 0

        await eventually(has_progress, within=20)
        await house.lifecycle.cancel(job_id)


async def test_the_loop_stays_free_while_a_child_computes(house: Installation, tmp_path: Path) -> None:
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: calling(crunching.spin, tmp_path / "pid")})):
        await pid_in(tmp_path / "pid")
        async with watched_loop() as lags:
            await eventually(lambda: len(lags) >= 200, within=20)
        await house.lifecycle.cancel(job_id)

    assert p99(lags) <= MOST_S


async def test_the_soft_limit_reaches_the_child_which_may_return_what_it_has(house: Installation) -> None:
    job = await ended(house, crunching.be_partial, job_type=SHORT)

    assert (job.status, job.result) == (Status.COMPLETED, {"value": "partial"})


async def test_a_child_knows_how_long_it_has_until_the_soft_limit(house: Installation) -> None:
    assert 0 <= (await ended(house, crunching.tell_time_left, job_type=SHORT)).result["value"] <= 0.3


async def test_a_child_that_does_not_mind_the_soft_limit_fails_by_it(house: Installation) -> None:
    job = await ended(house, crunching.overrun, job_type=SHORT)

    assert job.error is not None
    assert (job.error.code, job.error.type) == ("timeout", "SoftTimeLimitExceeded")
    assert "in overrun" in (job.error.traceback or "")


async def test_the_hard_limit_ends_a_child_that_reports_nothing(house: Installation, tmp_path: Path) -> None:
    job = await ended(house, crunching.spin_silently, tmp_path / "pid", job_type=SHORT)

    assert job.error is not None
    assert (job.error.code, job.error.type) == ("timeout", "HardTimeLimitExceeded")
    assert not is_alive(int((tmp_path / "pid").read_text()))


async def test_a_child_that_takes_too_much_memory_fails_its_job_alone(house: Installation) -> None:
    job = await ended(house, crunching.grow)

    assert job.error is not None
    assert (job.error.code, job.error.is_retryable) == ("memory_exceeded", False)
    assert "300 MB" in job.error.message
    assert (await ended(house, crunching.double, 1)).result == {"value": 2}


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_killed_child_is_an_error_that_names_the_signal(house: Installation, signum: signal.Signals) -> None:
    job = await ended(house, crunching.die, int(signum))

    assert job.error is not None
    assert (job.error.code, job.error.message) == (
        "process_died",
        f"The job's process was killed by {signum.name}.",
    )


async def test_a_child_that_leaves_without_a_word_is_an_error_with_its_exit_code(house: Installation) -> None:
    job = await ended(house, crunching.leave)

    assert job.error is not None
    assert "exit code 7" in job.error.message


async def test_errors_of_the_child_arrive_as_what_they_are(house: Installation) -> None:
    given_up, odd = await ended(house, crunching.discard), await ended(house, crunching.fail_oddly)

    assert given_up.error is not None
    assert odd.error is not None
    assert (given_up.error.code, given_up.error.type) == ("discarded", "Discard")
    assert odd.error.message == "OddError: 1 is odd, and so is 3"
    assert "in fail_oddly" in (odd.error.traceback or "")


async def test_what_cannot_be_sent_to_a_child_fails_the_job(house: Installation) -> None:
    job = await ended(house, lambda _report: None)

    assert job.status is Status.FAILED


# --- places for children -------------------------------------------------------------------------


@pytest.fixture
def one_place(house: Installation) -> Installation:
    object.__setattr__(house, "settings", house.settings.model_copy(update={"worker_children": 1}))
    return house


async def holding(ctx: Context, params: Anything) -> Something:
    return Something(value=await ctx.run_process(crunching.hold, Path(str(params.value))))


async def test_no_more_children_run_at_a_time_than_a_worker_has_places_for(
    one_place: Installation, tmp_path: Path
) -> None:
    house, first, second = one_place, tmp_path / "first", tmp_path / "second"
    ids = [await submit(house, JOB, str(place)) for place in (first, second)]
    async with at_work(make_worker(house, {JOB.kind: holding})) as worker:
        await pid_in(first)
        await eventually(lambda: _message(house, ids[1], "waiting for a free child process"))
        await eventually(lambda: worker._room.places._waiters)
        assert not second.exists()
        first.unlink()
        await pid_in(second)
        second.unlink()
        done = [await becomes(house, job_id, Status.COMPLETED) for job_id in ids]

    assert len({job.result["value"] for job in done}) == 2


async def _message(house: Installation, job_id: str, message: str) -> bool:
    told = await read_progress(house.redis, [job_id])
    return job_id in told and told[job_id].message == message


async def test_a_job_that_waits_for_a_place_can_be_cancelled_and_takes_none(
    one_place: Installation, tmp_path: Path
) -> None:
    house, place = one_place, tmp_path / "first"
    running = await submit(house, JOB, str(place))
    async with at_work(make_worker(house, {JOB.kind: holding})) as worker:
        await pid_in(place)
        waiting = await submit(house, JOB, str(tmp_path / "second"))
        await eventually(lambda: _message(house, waiting, "waiting for a free child process"))

        await house.lifecycle.cancel(waiting)

        await eventually(lambda: len(worker._attempts) == 1)
        place.unlink()
        await becomes(house, running, Status.COMPLETED)
        await eventually(lambda: worker._room.places._value == 1)
    assert not (tmp_path / "second").exists()


async def test_the_time_limits_count_while_a_job_waits_for_a_place(one_place: Installation, tmp_path: Path) -> None:
    house, place = one_place, tmp_path / "first"
    running = await submit(house, JOB, str(place))
    async with at_work(make_worker(house, {JOB.kind: holding, SHORT.kind: holding})):
        await pid_in(place)
        late = await becomes(house, await submit(house, SHORT, str(tmp_path / "second")), Status.FAILED)
        place.unlink()
        await becomes(house, running, Status.COMPLETED)

    assert late.error is not None
    assert (late.error.code, late.error.type) == ("timeout", "SoftTimeLimitExceeded")


async def test_the_place_of_a_killed_child_comes_back(one_place: Installation, tmp_path: Path) -> None:
    house, place = one_place, tmp_path / "first"
    killed = await submit(house, JOB, str(place))
    async with at_work(make_worker(house, {JOB.kind: holding}, slots=1)):
        os.kill(await pid_in(place), signal.SIGKILL)
        await becomes(house, killed, Status.FAILED)
        again = tmp_path / "again"
        job_id = await submit(house, JOB, str(again))
        await pid_in(again)
        again.unlink()
        await becomes(house, job_id, Status.COMPLETED)


# --- what a child returns and leaves ---------------------------------------------------------------


async def test_a_result_of_fifty_megabytes_from_a_child_is_invalid(house: Installation) -> None:
    job = await ended(house, crunching.answer, 50)

    assert job.error is not None
    assert (job.error.code, job.error.is_retryable) == ("result_invalid", False)


async def test_what_is_too_large_for_the_worker_is_not_even_received(house: Installation) -> None:
    job = await ended(house, crunching.answer, 65)

    assert job.error is not None
    assert (job.error.code, job.error.message) == ("result_invalid", "The job's process sent more than 64 MB at once.")


async def test_what_a_child_started_ends_with_it(house: Installation, tmp_path: Path) -> None:
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: calling(crunching.leave_a_child, tmp_path / "pid")})):
        pid = await pid_in(tmp_path / "pid")

        await house.lifecycle.cancel(job_id)

        await eventually(lambda: not is_alive(pid), within=2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process say that it may go first")
async def test_a_child_goes_before_its_worker_when_the_machine_has_no_memory_left(house: Installation) -> None:
    assert (await ended(house, crunching.tell_oom_score)).result == {"value": 500}


async def test_a_stopping_worker_ends_its_children_and_gives_their_jobs_back(
    house: Installation, tmp_path: Path
) -> None:
    object.__setattr__(house, "settings", house.settings.model_copy(update={"worker_grace_s": 0.1}))
    job_id = await submit(house, JOB)
    async with at_work(make_worker(house, {JOB.kind: calling(crunching.spin_deaf, tmp_path / "pid")})):
        pid = await pid_in(tmp_path / "pid")

    job = await row(house, job_id)
    assert (job.status, job.releases, job.failures, job.interruptions) == (Status.PENDING, 1, 0, 0)
    assert not is_alive(pid)


# --- a worker that is killed ---------------------------------------------------------------------

WORKER = """
import asyncio, sys
from pathlib import Path
from app.installation import open_installation
from app.settings import Settings
from tests.integration.test_processes_of_jobs import JOB, calling
from tests.support.crunching import count_up
from tests.support.workplace import catalogue_of, make_worker

async def main():
    async with open_installation(Settings(), catalogue_of(JOB)) as house:
        await make_worker(house, {JOB.kind: calling(count_up, Path(sys.argv[1]), 5)}).async_run()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its worker's death")
@pytest.mark.databases("sqlite", "postgresql")
async def test_a_killed_worker_leaves_no_child_and_another_goes_on_from_the_checkpoint(
    settings: Settings, tmp_path: Path
) -> None:
    hasty, place = settings.model_copy(update={"lease_s": 1.0}), tmp_path / "pid"
    async with open_installation(hasty, catalogue_of(JOB)) as house:
        job_id = await submit(house, JOB)
        worker = start_child([sys.executable, "-c", WORKER, str(place)], cwd=ROOT, env=environment_of(hasty))
        pid = await pid_in(place)
        fork_server = psutil.Process(pid).ppid()
        await eventually(lambda: _is_stored(house, job_id, 3))
        kill(worker)

        await eventually(lambda: not is_alive(pid), within=2)
        await eventually(lambda: not is_alive(fork_server), within=2)
        async with at_work(make_worker(house, {JOB.kind: calling(crunching.count_up, place, 5)})):
            job = await becomes(house, job_id, Status.COMPLETED)

        assert (job.attempts, job.interruptions, job.result) == (2, 1, {"value": [3, 5]})
        assert await house.reader.checkpoint(job_id) is None


async def _is_stored(house: Installation, job_id: str, state: int) -> bool:
    return bool(await house.reader.checkpoint(job_id) == state)


# --- checkpoints -------------------------------------------------------------------------------


async def test_the_next_attempt_goes_on_from_the_checkpoint_of_a_killed_child(
    house: Installation, tmp_path: Path
) -> None:
    again = trial_type(retry=RetryPolicy(max_retries=1, base_s=0.05))
    house.catalogue._by_kind[JOB.kind] = again
    job_id = await submit(house, again)
    async with at_work(make_worker(house, {JOB.kind: calling(crunching.count_up, tmp_path / "pid", 5)})):
        pid = await pid_in(tmp_path / "pid")
        await eventually(lambda: _is_stored(house, job_id, 3))
        os.kill(pid, signal.SIGKILL)
        job = await becomes(house, job_id, Status.COMPLETED)

    assert (job.attempts, job.result) == (2, {"value": [3, 5]})
    assert await house.reader.checkpoint(job_id) is None
