"""A worker inside the test's own process, with job types that a test makes up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import JsonValue

from app.history.rows import Job
from app.installation import Installation
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family, JobType, Limits, RetryPolicy, TaskType
from app.jobs.fields import Params, Result
from app.jobs.status import Status
from app.orders import Order
from tests.support.waiting import eventually
from workers.context import Context
from workers.cron import Ticker
from workers.families import Work
from workers.worker import Worker


class Anything(Params):
    """Params that carry one value."""

    value: JsonValue = None


class Something(Result):
    """A result that carries one value."""

    value: Any = None


TrialType = JobType[Anything, Something]
QUICK = RetryPolicy(max_retries=2, base_s=0.05)


def trial_type(
    name: str = "job",
    *,
    queue: str = "north",
    retry: RetryPolicy = QUICK,
    limits: Limits = Limits(hard_s=30, soft_s=30),  # noqa: B008  # frozen
) -> TrialType:
    """Make up a job type of the family ``trial``."""
    return JobType(
        kind=f"trial.{name}",
        summary="Made up by a test.",
        params=Anything,
        result=Something,
        queue=queue,
        task_type=TaskType.SYSTEM,
        retry=retry,
        limits=limits,
    )


def catalogue_of(*job_types: TrialType) -> Catalogue:
    """Put made-up job types into a catalogue of their own."""
    return Catalogue([Family(name="trial", summary="Made up by a test.", job_types=job_types)])


async def give_back(_ctx: Context, params: Anything) -> Something:
    """Return what came in."""
    return Something(value=params.value)


async def submit(house: Installation, job_type: TrialType, value: JsonValue = None, **options: Any) -> str:
    """Submit one made-up job; return its id."""
    order = Order(job_type=job_type, params=Anything(value=value), owner="ann", **options)
    return (await house.lifecycle.submit([order]))[0].id


def make_worker(
    house: Installation,
    works: Mapping[str, Callable[[Context, Anything], Awaitable[Any]]],
    *,
    slots: int = 10,
    queues: Sequence[str] = ("north",),
    burst: bool = False,
    ticker: Ticker | None = None,
    **options: Any,
) -> Worker:
    """Make a worker of these queues; ``works`` are coroutine functions by kind."""
    functions: dict[str, Work] = dict(works)
    return Worker(
        house,
        functions=functions,
        queues=queues,
        max_jobs=slots,
        burst=burst,
        ticker=ticker,
        handle_signals=False,
        **options,
    )


@asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator[Worker]:
    """Let a worker serve during the block, then stop it as SIGTERM does."""
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(30):
            await task


async def drain(worker: Worker) -> None:
    """Run a burst worker to its end."""
    async with asyncio.timeout(50):
        await worker.async_run()


async def row(house: Installation, job_id: str) -> Job:
    """Read a job that must exist."""
    job = await house.reader.get(job_id)
    assert job is not None
    return job


async def becomes(house: Installation, job_id: str, status: Status, within: float = 10.0) -> Job:
    """Wait until a job has a status; return its row."""

    async def look() -> Job | None:
        job = await row(house, job_id)
        return job if job.status is status else None

    return await eventually(look, within)
