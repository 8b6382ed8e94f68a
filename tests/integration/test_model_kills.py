"""Training that is killed in the middle, child or worker, ends as if nothing had happened."""

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family, RetryPolicy
from app.jobs.model import FinetuneParams, FinetuneResult
from app.jobs.model import finetune as finetune_type
from app.jobs.status import Status
from app.orders import Order
from app.records.models import MODELS
from app.records.training_examples import TRAINING_EXAMPLES, TrainingExample
from app.settings import Settings
from tests.support.processes import computing_children, is_alive
from tests.support.service import kill, process
from tests.support.waiting import eventually
from tests.support.workplace import at_work, becomes, make_worker, row
from workers.families.model import finetune
from workers.worker import Worker

pytestmark = pytest.mark.timeout(400)  # a limit, not an expectation: a busy machine starts a process slowly

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LABELS = 8  # one regression each: so many make training last for some seconds
FEW_EPOCHS = 1e-4  # a step so small that validation gets better to the last epoch

SOON = replace(finetune_type, retry=RetryPolicy(max_retries=2, base_s=0.05))


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    catalogue = Catalogue([Family(name="model", summary="", job_types=(SOON,))])
    quick = settings.model_copy(update={"lease_s": 2.0, "worker_cron": False, "worker_grace_s": 0.0})
    async with open_installation(quick, catalogue) as house:
        await house.records.upsert(TRAINING_EXAMPLES, [example(number) for number in range(1_500)])
        yield house


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def example(number: int) -> TrainingExample:
    words = " ".join(f"w{number * step % 997}" for step in range(1, 30))
    return TrainingExample(
        example_id=f"e{number:05}",
        user_id="ada",
        timestamp=NOW - timedelta(minutes=number),
        input_text=f"topic{number % LABELS} {words}",
        output_text="",
        quality=0.9,
        label=f"label-{number % LABELS}",
    )


async def submit(house: Installation) -> str:
    params = FinetuneParams(
        user_id="ada", model_name="sgd-classifier", training_samples=1_500, learning_rate=FEW_EPOCHS
    )
    (job,) = await house.lifecycle.submit([Order(job_type=SOON, params=params, owner="ada", user_id="ada")])
    return job.id


def worker_of(house: Installation) -> Worker:
    return make_worker(house, cast(Any, {SOON.kind: finetune}), queues=(SOON.queue,))


async def kept_step(house: Installation, job_id: str) -> int:
    """Wait for a checkpoint; return how many steps it has done."""

    async def look() -> int | None:
        match await house.reader.checkpoint(job_id):
            case {"step": int(step)}:
                return step
        return None

    return await eventually(look, within=120)


def child_of(worker_pid: int) -> int:
    """Return the process that trains: the worker's fork server has started it."""
    (child,) = computing_children(worker_pid)
    return child


async def undisturbed(house: Installation) -> FinetuneResult:
    """Run the same training once more, after its model is gone; return what comes of it."""
    await house.records.delete_user(MODELS, "ada")
    for path in files(house):
        path.unlink()
    job_id = await submit(house)
    async with at_work(worker_of(house)):
        return result_of(await becomes(house, job_id, Status.COMPLETED, within=150))


def result_of(job: Job) -> FinetuneResult:
    return FinetuneResult.model_validate(job.result)


def files(house: Installation) -> Sequence[Path]:
    return list(house.settings.models_path.iterdir())


async def check_end_state(house: Installation, job: Job) -> None:
    """Hold rows and files against those of an undisturbed run."""
    result = result_of(job)
    (version,) = (await house.records.page(MODELS)).records
    assert (version.model_id, version.sha256) == (result.model_id, result.sha256)
    assert [path.name for path in files(house)] == [result.path]
    assert sha256(files(house)[0].read_bytes()).hexdigest() == result.sha256
    assert await house.reader.checkpoint(job.id) is None

    whole = await undisturbed(house)

    assert whole == result.model_copy(update={"training_timestamp": whole.training_timestamp})


async def test_a_child_that_is_killed_is_tried_again_from_its_checkpoint_to_the_same_model(house: Installation) -> None:
    job_id = await submit(house)
    async with at_work(worker_of(house)):
        await kept_step(house, job_id)
        child = child_of(os.getpid())

        os.kill(child, signal.SIGKILL)

        job = await becomes(house, job_id, Status.COMPLETED, within=150)
    (failed,) = [one for one in await house.reader.attempts(job) if one.outcome == "failed"]
    assert failed.error is not None
    assert failed.error.code == "process_died"
    assert (job.attempts, job.failures) == (2, 1)
    assert not is_alive(child)
    await check_end_state(house, job)


async def test_a_worker_that_is_killed_leaves_no_orphan_and_another_ends_its_training(
    house: Installation, processes: ExitStack
) -> None:
    job_id = await submit(house)
    worker = processes.enter_context(process(house.settings, "workers"))
    step = await kept_step(house, job_id)
    child = child_of(worker.pid)

    kill(worker)

    await eventually(lambda: not is_alive(child), within=5)
    assert [path for path in files(house) if ".part" in path.name]
    processes.enter_context(process(house.settings, "workers"))
    job = await becomes(house, job_id, Status.COMPLETED, within=150)
    assert (job.attempts, job.interruptions) == (2, 1)
    assert result_of(job).steps > step
    await check_end_state(house, job)


async def test_a_worker_that_is_told_to_stop_hands_its_training_over(house: Installation) -> None:
    job_id = await submit(house)
    async with at_work(worker_of(house)):
        await kept_step(house, job_id)

    released = await row(house, job_id)
    async with at_work(worker_of(house)):
        job = await becomes(house, job_id, Status.COMPLETED, within=150)

    assert (released.status, released.failures) == (Status.PENDING, 0)
    await check_end_state(house, job)
