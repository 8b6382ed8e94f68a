"""History: status, list and stats over HTTP, and submit and drain, with ``rows`` ended jobs and with 10,000.

Both stand side by side and take turns, slice by slice, so that they meet the same noise.
"""

import asyncio
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import psutil

from app.clock import to_ms, utc_now
from app.history.reader import JobFilter
from app.installation import Installation
from tests.bench.trials.house import NOOP, Terms, fill, open_house, percentile, settle_in, worker_in
from tests.bench.trials.wire import api, load, request, times

_SHORT = 10_000
_LOOKS = 50  # of one slice
_WARM_UP = 20
_SLICES = 8
_AT_ONCE = 250_000  # rows of one transaction
_SUBMIT = request("POST", "/api/tasks/system/echo", b'{"parameters": {}}')


@dataclass(slots=True, kw_only=True)
class _Side:
    """One of the two installations, and what was seen of it."""

    terms: Terms
    house: Installation
    port: int = 0
    process: psutil.Process | None = None  # the API's
    looks: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # ms
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds of CPU
    taken: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds by the clock
    done: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def figures(self) -> dict[str, float]:
        """Return what was seen, by name."""
        p99 = {f"{name}_p99_ms": percentile(times, 0.99) for name, times in self.looks.items()}
        cpu = {f"{name}_cpu_us": self.spent[name] / done * 1e6 for name, done in self.done.items()}
        rates = {f"{name}_s": self.done[name] / seconds for name, seconds in self.taken.items()}
        p50 = {f"{name}_p50_ms": percentile(times, 0.5) for name, times in self.looks.items()}
        return p50 | p99 | cpu | rates


async def run(terms: Terms) -> dict[str, float]:
    """Fill both histories, look at them, and work on them."""
    async with AsyncExitStack() as stack:
        sides = {
            "short": await stack.enter_async_context(_open(terms, "short", 0, _SHORT)),
            "long": await stack.enter_async_context(_open(terms, "long", 1, terms.rows)),
        }
        await _look(list(sides.values()))
        for side in [*sides.values()] * _SLICES:
            await _submit(side, max(100, terms.jobs // 4 // _SLICES))
        for side in [*sides.values()] * _SLICES:
            await _drain(side, terms.jobs // _SLICES)
        return {f"{name}_{key}": value for name, side in sides.items() for key, value in side.figures().items()}


@asynccontextmanager
async def _open(terms: Terms, name: str, redis: int, rows: int) -> AsyncIterator[_Side]:
    own = replace(terms, directory=str(Path(terms.directory) / name), redis_url=f"{terms.redis_url}/{redis}", rows=rows)
    async with open_house(own) as house:
        await settle_in(house)
        side = _Side(terms=own, house=house)
        await fill(house, NOOP, 1)
        await worker_in(house, slots=1, burst=True).async_run()
        if house.database.file:
            await asyncio.to_thread(fill_history, house.database.file, rows)
        async with api(own.settings()) as (side.port, pid):
            side.process = psutil.Process(pid)
            await load(side.port, _SUBMIT, requests=300, lines=64)
            yield side


async def _look(sides: list[_Side]) -> None:
    for name, path in {
        "status": "/api/tasks/{}",
        "list": "/api/tasks?status=completed&limit=20",
        "stats": "/api/tasks/queues/stats",
    }.items():
        wholes = [request("GET", path.format(await _known(side))) for side in sides]
        both = [*zip(sides, wholes, strict=True)]
        for side, whole in both:
            await times(side.port, [whole] * _WARM_UP)
        for side, whole in both * _SLICES:
            spent = _cpu(side)
            side.looks[name] += await times(side.port, [whole] * _LOOKS)
            side.spent[name] += _cpu(side) - spent
            side.done[name] += _LOOKS


async def _known(side: _Side) -> str:
    """Return the id of a job in the middle of the history."""
    page = await side.house.reader.page(JobFilter(), limit=1, offset=_SHORT // 2)
    return page.jobs[0].id


async def _submit(side: _Side, jobs: int) -> None:
    spent = _cpu(side)
    rate = await load(side.port, _SUBMIT, requests=jobs, lines=64)
    side.spent["submits"] += _cpu(side) - spent
    side.taken["submits"] += jobs / rate
    side.done["submits"] += jobs


async def _drain(side: _Side, jobs: int) -> None:
    await fill(side.house, NOOP, jobs)
    worker = worker_in(side.house, slots=side.terms.slots, burst=True)
    before, spent = time.perf_counter(), time.process_time()
    await worker.async_run()
    side.taken["jobs"] += time.perf_counter() - before
    side.spent["jobs"] += time.process_time() - spent
    side.done["jobs"] += worker.jobs_complete


def _cpu(side: _Side) -> float:
    assert side.process is not None
    times = side.process.cpu_times()
    return float(times.user + times.system)


def fill_history(path: Path, rows: int) -> None:
    """Copy the one job that ran, ``rows`` times, a quarter of a second apart, up to an hour ago.

    Of a thousand owners and five queues; one in twenty failed, and one was cancelled. The indexes stand all the while.
    """
    newest = to_ms(utc_now() - timedelta(hours=1))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-262144")
        copy = _copy([row[1] for row in connection.execute("PRAGMA table_info(background_tasks)")])
        for at in range(0, rows, _AT_ONCE):
            until = min(at + _AT_ONCE, rows)
            connection.execute(copy, {"at": at, "until": until, "oldest": newest - rows * 250})
            connection.commit()
        connection.execute("PRAGMA analysis_limit=1000")
        connection.execute("ANALYZE")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb+") as written:
        os.fsync(written.fileno())  # else the syncs of what is measured would wait for all of this


def _copy(columns: list[str]) -> str:
    moment = "strftime('%Y-%m-%dT%H:%M:%f000Z', ms / 1000.0, 'unixepoch')"
    changed = {
        "task_id": "printf('%08x-%04x-7000-8000-%012x', ms >> 16, ms & 65535, at)",
        **dict.fromkeys(("created_at", "due_at", "started_at", "completed_at"), moment),
        "submitted_by": "'user-' || (at * 7919 % 1000)",
        "queue": "'queue-' || (at % 5)",
        "status": "CASE at % 20 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE status END",
    }
    values = ", ".join(changed.get(name, name) for name in columns)
    return (
        "WITH RECURSIVE place(at) AS (VALUES(:at) UNION ALL SELECT at + 1 FROM place WHERE at + 1 < :until), "  # noqa: S608  # columns of ours
        "one AS (SELECT * FROM background_tasks ORDER BY task_id DESC LIMIT 1) "
        f"INSERT INTO background_tasks SELECT {values} FROM (SELECT at, :oldest + at * 250 AS ms FROM place), one"
    )
