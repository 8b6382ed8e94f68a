"""The house that trials run in: three small job types, and a worker for them."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from app.installation import Installation, open_installation
from app.interpreter import tune_interpreter
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.contract import Family, JobType, TaskType
from app.jobs.fields import Params, Result
from app.orders import Order
from app.settings import Settings
from workers.context import Context
from workers.families import Work
from workers.sweep import Sweep
from workers.worker import Worker

QUEUE = "bench"
_ACCEPT = 1000
_TICK_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a trial is told."""

    redis_url: str
    database_url: str
    directory: str
    jobs: int = 0
    slots: int = 400
    rows: int = 0  # of history, or of backlog, that is there before
    seconds: float = 0
    group: str = ""  # of jobs at a realistic size
    scale: float = 1.0  # of that size

    def settings(self) -> Settings:
        """Return the settings of every process of the trial."""
        return Settings(
            _env_file=None,
            redis_url=self.redis_url,
            database_url=self.database_url,
            data_dir=Path(self.directory),
            admin_api_key="bench-admin",  # type: ignore[arg-type]  # pydantic makes it secret
            port=0,
        )


class Nothing(Params):
    """No params."""


class Sent(Params):
    """When a job was sent, by the machine's monotonic clock."""

    at: float


class Done(Result):
    """As little as a result can say."""

    ok: bool = True


class Waited(Result):
    """How long it took to the job's first line."""

    ms: float


def _type(name: str, params: type[Params], result: type[Result]) -> AnyJobType:
    return JobType(
        kind=f"bench.{name}", summary="A trial.", params=params, result=result, queue=QUEUE, task_type=TaskType.SYSTEM
    )


NOOP = _type("noop", Nothing, Done)
WAIT = _type("wait", Nothing, Done)
LOOK = _type("look", Sent, Waited)


async def noop(_ctx: Context, _params: Nothing) -> Done:
    """Do nothing."""
    return Done()


async def wait(_ctx: Context, _params: Nothing) -> Done:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    return Done()


async def look(_ctx: Context, params: Sent) -> Waited:
    """Look at the clock."""
    return Waited(ms=(time.monotonic() - params.at) * 1000)


FUNCTIONS: dict[str, Work] = {NOOP.kind: noop, WAIT.kind: wait, LOOK.kind: look}


def open_house(terms: Terms) -> AbstractAsyncContextManager[Installation]:
    """Open an installation that knows the trials' job types."""
    family = Family(name="bench", summary="Trials.", job_types=(NOOP, WAIT, LOOK))
    return open_installation(terms.settings(), Catalogue([family]))


def worker_in(house: Installation, *, slots: int, burst: bool = False) -> Worker:
    """Make a worker as its own process makes one."""
    tune_interpreter()
    return Worker(house, functions=FUNCTIONS, queues=[QUEUE], max_jobs=slots, burst=burst, handle_signals=False)


async def settle_in(house: Installation) -> None:
    """Put an empty Redis in order, as an installation's first worker does once in its life."""
    await Sweep(house, worker_id="bench").rebuild()


async def fill(house: Installation, job_type: AnyJobType, jobs: int) -> None:
    """Accept jobs, a thousand at a time."""
    for at in range(0, jobs, _ACCEPT):
        count = min(_ACCEPT, jobs - at)
        await house.lifecycle.submit([Order(job_type=job_type, params=Nothing(), owner="bench")] * count)


@asynccontextmanager
async def process(terms: Terms, trial: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a trial module in a second process during the block; it has printed a line once it is ready."""
    command = [sys.executable, "-m", "tests.bench.trials", trial, orjson.dumps(asdict(terms)).decode()]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        assert child.stdout is not None
        assert (await child.stdout.readline()).strip() == b"ready"
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def until(check: Callable[[], bool], pause_s: float = 0.001) -> None:
    """Wait until something is true."""
    while not check():
        await asyncio.sleep(pause_s)


async def follow(lags: list[float]) -> None:
    """Ask the loop every 5 ms to come back, and note how much later it did."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        lags.append(time.perf_counter() - began - _TICK_S)


def percentile(values: list[float], part: float) -> float:
    """Return the value below which ``part`` (0–1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
