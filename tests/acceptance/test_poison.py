"""Poison jobs among good ones, in real worker processes: each ends failed with its reason, the others complete."""

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import psutil
import pytest

from app.history.rows import Job
from app.history.writer import MAX_INTERRUPTIONS
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.settings import Settings
from tests.chaos.scenarios.poison import LIMITS, WORKER, poisoned
from tests.support.poison import CATALOGUE, DEAF, GOOD, POISON
from tests.support.processes import is_alive
from tests.support.service import kill, process
from tests.support.waiting import eventually
from tests.support.workplace import becomes, row, submit

pytestmark = pytest.mark.timeout(600)  # a limit, not an expectation: poison costs leases and starts of processes


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Settings with limits that a test can wait for."""
    return settings.model_copy(update=LIMITS | {"lease_s": 3.0})


@pytest.fixture
async def house(quick: Settings) -> AsyncIterator[Installation]:
    async with open_installation(quick, CATALOGUE) as installation:
        yield installation


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_each_poison_job_ends_failed_with_its_reason_and_every_good_one_completes(
    house: Installation, quick: Settings
) -> None:
    most = MAX_INTERRUPTIONS  # a busy machine loses a lease of 3 s now and then

    figures = await poisoned(house, quick, good=150, each=1, within_s=550, most=most)

    assert [figure for figure in figures if figure.reached is False] == []


# --- one process and its end -----------------------------------------------------------------------


async def test_a_worker_whose_loop_hangs_ends_with_its_stack_in_the_log(
    house: Installation, quick: Settings, processes: ExitStack
) -> None:
    worker = processes.enter_context(process(quick, WORKER))
    await submit(house, POISON, "hang")

    assert await eventually(worker.poll, within=60) == 1
    log = next(quick.data_dir.glob(f"{WORKER}-*.log")).read_text()
    assert "Timeout (0:00:03)!" in log
    assert "in harm" in log


async def test_a_worker_full_of_stubborn_work_ends_with_a_code_that_asks_for_another(
    house: Installation, quick: Settings, processes: ExitStack
) -> None:
    worker = processes.enter_context(process(quick, WORKER))
    ids = [await submit(house, DEAF, 600) for _ in range(4)]

    assert await eventually(worker.poll, within=60) == 75
    assert {(await row(house, job_id)).status for job_id in ids} == {Status.FAILED}


async def test_a_pool_replaces_a_worker_full_of_stubborn_work(
    house: Installation, quick: Settings, processes: ExitStack
) -> None:
    pool = processes.enter_context(process(quick, WORKER, "--pool", "1"))
    first = await eventually(lambda: _workers(pool), within=60)
    for _ in range(4):
        await submit(house, DEAF, 600)

    second = await eventually(lambda: _workers(pool) - first, within=60)

    done = await becomes(house, await submit(house, GOOD), Status.COMPLETED, within=60)
    assert {done.result["value"]["pid"]} == second


def _workers(pool: subprocess.Popen[bytes]) -> set[int]:
    return {child.pid for child in psutil.Process(pool.pid).children()}


async def test_sigterm_ends_a_worker_with_stubborn_work_and_gives_its_job_back(
    house: Installation, quick: Settings, processes: ExitStack
) -> None:
    worker = processes.enter_context(process(quick, WORKER))
    patient = await submit(house, GOOD, {"seconds": 600})
    deaf = await submit(house, DEAF, 600)
    await becomes(house, deaf, Status.FAILED, within=60)
    await becomes(house, patient, Status.RUNNING)

    worker.send_signal(signal.SIGTERM)

    assert await eventually(lambda: worker.poll() is not None, within=20)
    assert worker.returncode == 0
    job: Job = await row(house, patient)
    assert (job.status, job.releases, job.failures, job.interruptions) == (Status.PENDING, 1, 0, 0)


async def test_a_killed_pool_leaves_no_process(house: Installation, quick: Settings, processes: ExitStack) -> None:
    pool = processes.enter_context(process(quick, WORKER, "--pool", "2"))
    await submit(house, POISON, "memory")
    family = await eventually(lambda: _family(pool, at_least=4), within=60)  # with a fork server and its child

    kill(pool)

    await eventually(lambda: not any(map(is_alive, family)), within=20)  # what computes is niced, to its very end


def _family(pool: subprocess.Popen[bytes], *, at_least: int) -> list[int] | None:
    found = [child.pid for child in psutil.Process(pool.pid).children(recursive=True)]
    return found if len(found) >= at_least else None
