"""The soak: a steady load for long, at whose end nothing may have grown."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure
from tests.chaos.stage import Stage, open_stage

_PACE_S = 0.02
_SAMPLES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """What all processes together use at one moment."""

    rss: int
    files: int
    keys: int


async def soak(directory: Path, *, minutes: float) -> list[Figure]:
    """Run a steady load; compare the second quarter with the last. Redis keeps results for a minute only."""
    async with open_stage(directory, apis=1, workers=2, result_ttl_s=min(60, int(minutes * 15) + 1)) as stage:
        for member in (*stage.apis, *stage.workers):
            member.start()
        await stage.ready()
        async with asyncio.TaskGroup() as group:
            over = asyncio.Event()
            group.create_task(_submit_until(over, stage))
            samples = [await _sample_after(stage, minutes * 60 / _SAMPLES) for _ in range(_SAMPLES)]
            over.set()
        await stage.drained(60)
        history = await stage.history()
    before, after = samples[_SAMPLES // 4 : _SAMPLES // 2], samples[-_SAMPLES // 4 :]
    growth = {name: _median(after, name) / _median(before, name) - 1 for name in ("rss", "files", "keys")}
    return [
        Figure(name=f"soak, {minutes:g} min: jobs", value=len(history.rows), unit="jobs"),
        Figure(name="soak: growth of memory", value=growth["rss"], unit="×", target=0.05),
        Figure(name="soak: growth of open files", value=growth["files"], unit="×", target=0.05),
        Figure(name="soak: growth of Redis keys", value=growth["keys"], unit="×", target=0.05),
        Figure(name="soak: broken promises", value=len(check(history)), unit="faults", target=0),
    ]


def _median(samples: list[_Sample], name: str) -> float:
    return float(statistics.median(getattr(sample, name) for sample in samples))


async def _sample_after(stage: Stage, pause_s: float) -> _Sample:
    await asyncio.sleep(pause_s)
    processes = [psutil.Process(member.pid) for member in (*stage.apis, *stage.workers)]
    with redis.Redis.from_url(stage.redis.url) as client:
        keys = int(client.dbsize())
    return _Sample(
        rss=sum(process.memory_info().rss for process in processes),
        files=sum(process.num_fds() for process in processes),
        keys=keys,
    )


async def _submit_until(over: asyncio.Event, stage: Stage) -> None:
    async with open_session() as session:
        client, began, number = Client(session, stage.urls, stage.directory / "client.ndjson"), time.monotonic(), 0
        while not over.is_set():
            number += 1
            await client.submit(f"soak-{number}", wait_s=0.05)
            await asyncio.sleep(max(0.0, began + number * _PACE_S - time.monotonic()))
