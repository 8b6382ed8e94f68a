"""One job on a worker of its own, in this process: time, processor time, memory, the loop's lag, and a cancel."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from app.errors import Conflict
from app.installation import Installation, open_installation
from app.jobs.catalogue import load_catalogue
from app.jobs.status import Status
from app.live.progress import read_progress
from app.orders import Order
from tests.bench.cases import GROUPS, USER, Case
from tests.bench.trials.house import Terms, follow, percentile, process, until
from tests.bench.trials.planner import proposing
from workers.families import load_work
from workers.worker import Worker

_MB = 1 << 20
_LOOK_S = 0.05
_BEGUN_PERCENT = 8.0  # of a job that is cancelled


class Watch:
    """What the worker and its children take of the machine, looked at from a thread."""

    def __init__(self, bystander: int) -> None:
        self._bystander = bystander
        self._own = psutil.Process()
        self._began = self._cpu_of(self._own)
        self._children: dict[int, float] = {}
        self.rss = self.children_rss = 0

    @property
    def cpu_s(self) -> float:
        """Processor time of the worker and of every child that was seen."""
        return self._cpu_of(self._own) - self._began + sum(self._children.values())

    def look(self) -> None:
        """Take one look."""
        self.rss = max(self.rss, self._own.memory_info().rss)
        held = 0
        for child in self._own.children(recursive=True):
            if child.pid == self._bystander:
                continue
            try:
                held += child.memory_info().rss
                self._children[child.pid] = self._cpu_of(child)
            except psutil.NoSuchProcess:
                continue
        self.children_rss = max(self.children_rss, held)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look every 50 ms during the block."""
        is_over = threading.Event()

        def go_on() -> None:
            while not is_over.wait(_LOOK_S):
                self.look()

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    @staticmethod
    def _cpu_of(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)


async def run(terms: Terms) -> dict[str, float]:
    """Run case ``jobs`` of group ``group``, on what is stored."""
    group = GROUPS[terms.group]
    case = group.cases[terms.jobs]
    async with proposing(200 if group.has_planner else 0) as planner:
        settings = terms.settings().model_copy(update={"worker_cron": False, **group.settings, **planner})
        async with open_installation(settings, load_catalogue()) as house:
            works = load_work(house.catalogue, [case.job_type.queue])
            worker = Worker(house, functions=works, queues=[case.job_type.queue], max_jobs=1, handle_signals=False)
            serving = asyncio.create_task(worker.async_run())
            try:
                cancelled = await _cancel(house, worker, case) if case.cancelled_first else {}
                async with process(terms, "bystander") as idle:
                    measured = await _measure(house, case, bystander=idle.pid)
                    out, _ = await idle.communicate(b"")  # closes its input, which ends it
                lateness: dict[str, float] = json.loads(out)
                return cancelled | measured | lateness
            finally:
                worker.stop()
                await serving


async def _cancel(house: Installation, worker: Worker, case: Case) -> dict[str, float]:
    """Return how long it takes from the cancel of a job in its middle until its slot is free; {} if it was faster."""
    job_id = await _submit(house, case)
    while not (told := await read_progress(house.redis, [job_id])) or told[job_id].percent < _BEGUN_PERCENT:
        job = await house.reader.get(job_id)
        if job is None or job.status.is_final:
            return {}
        await asyncio.sleep(_LOOK_S)
    began = time.perf_counter()
    try:
        await house.lifecycle.cancel(job_id)
    except Conflict:
        return {}
    await until(lambda: not worker._attempts)
    return {"cancel_s": time.perf_counter() - began}


async def _measure(house: Installation, case: Case, *, bystander: int) -> dict[str, float]:
    watch, lags = Watch(bystander), [0.0]
    began = time.perf_counter()
    with watch.looking():
        lagging = asyncio.create_task(follow(lags))
        job_id = await _submit(house, case)
        while not (job := await house.reader.get(job_id)) or not job.status.is_final:
            await asyncio.sleep(_LOOK_S)
        lagging.cancel()
    assert job.status is Status.COMPLETED, job.error
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": watch.cpu_s,
        "rss_mb": watch.rss / _MB,
        "children_mb": watch.children_rss / _MB,
        "lag_p99_ms": 1000 * percentile(lags, 0.99),
        "lag_max_ms": 1000 * max(lags),
    }


async def _submit(house: Installation, case: Case) -> str:
    order = Order(job_type=case.job_type, params=case.params, owner="bench", user_id=USER)
    return (await house.lifecycle.submit([order]))[0].id
