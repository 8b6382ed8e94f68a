"""The work of ``system.health_check``: every part of the installation, as seen from one worker."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import psutil

from app.errors import Unavailable
from app.jobs import system
from app.jobs.system import (
    DiskCheck,
    HealthCheckParams,
    HealthCheckResult,
    HealthChecks,
    MemoryCheck,
    StoreCheck,
    WorkersCheck,
)
from app.live.workers import alive_workers
from app.queue.connect import OUTAGES
from app.settings import Settings
from workers.context import Context
from workers.families import work

LOW_DISK_PERCENT = 10.0
HIGH_MEMORY_PERCENT = 90.0

_GB = 1e9
_LIMIT_S = 5.0


@work(system.health_check)
async def health_check(ctx: Context, _params: HealthCheckParams) -> HealthCheckResult:
    """Look at every part of the installation from here."""
    house = ctx.installation
    redis, database = await asyncio.gather(_store(house.redis.ping), _store(house.database.ping))
    alive = len(await alive_workers(house.redis)) if redis.status == "ok" else 0
    checks = HealthChecks(
        redis=redis,
        database=database,
        disk=check_disk(house.settings),
        memory=check_memory(),
        workers=WorkersCheck(status="ok" if alive else "none", alive=alive),
    )
    parts = (checks.redis, checks.database, checks.disk, checks.memory, checks.workers)
    return HealthCheckResult(timestamp=ctx.now, healthy=all(part.status == "ok" for part in parts), checks=checks)


def check_disk(settings: Settings) -> DiskCheck:
    """Look at the disk that holds the data directory."""
    disk = psutil.disk_usage(str(settings.data_dir))
    free_percent = round(100 - disk.percent, 1)
    return DiskCheck(
        status="ok" if free_percent >= LOW_DISK_PERCENT else "low",
        free_gb=round(disk.free / _GB, 2),
        percent_free=free_percent,
    )


def check_memory() -> MemoryCheck:
    """Look at the memory of this machine."""
    memory = psutil.virtual_memory()
    return MemoryCheck(
        status="ok" if memory.percent <= HIGH_MEMORY_PERCENT else "high",
        used_gb=round(memory.used / _GB, 2),
        percent_used=memory.percent,
    )


async def _store(ping: Callable[[], Awaitable[object]]) -> StoreCheck:
    before = monotonic()
    try:
        async with asyncio.timeout(_LIMIT_S):
            await ping()
    except (Unavailable, TimeoutError, *OUTAGES) as error:
        return StoreCheck(status="failed", detail=str(error) or type(error).__name__)
    return StoreCheck(status="ok", latency_ms=round(1000 * (monotonic() - before), 2))
