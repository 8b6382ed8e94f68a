"""The work of the system family."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import psutil

from app.errors import Unavailable
from app.jobs import system
from app.jobs.system import (
    DiskCheck,
    EchoParams,
    EchoResult,
    FlakyParams,
    FlakyResult,
    HealthCheckParams,
    HealthCheckResult,
    HealthChecks,
    MemoryCheck,
    StoreCheck,
    WorkersCheck,
)
from app.live.workers import alive_workers
from app.queue.connect import OUTAGES
from workers.context import Context
from workers.families import work

_GB = 1e9
_LIMIT_S = 5.0
_LOW_DISK_PERCENT = 10.0
_HIGH_MEMORY_PERCENT = 90.0


@work(system.echo)
async def echo(ctx: Context, params: EchoParams) -> EchoResult:
    """Wait in steps with progress, then give the payload back."""
    for step in range(1, params.steps + 1):
        await ctx.sleep(params.wait_seconds / params.steps)
        await ctx.progress(100 * step / params.steps, f"Step {step} of {params.steps}", stage="waiting")
    return EchoResult(waited_seconds=params.wait_seconds, payload=params.payload, attempt=ctx.attempt)


@work(system.flaky)
async def flaky(ctx: Context, params: FlakyParams) -> FlakyResult:
    """Fail as often as asked, then succeed."""
    if ctx.attempt <= params.fail_times:
        raise RuntimeError(f"Attempt {ctx.attempt} fails on purpose, as asked; {params.fail_times} will.")
    return FlakyResult(attempt=ctx.attempt)


@work(system.health_check)
async def health_check(ctx: Context, _params: HealthCheckParams) -> HealthCheckResult:
    """Look at every part of the installation from here."""
    house = ctx.installation
    redis, database = await asyncio.gather(_store(house.redis.ping), _store(house.database.ping))
    disk = psutil.disk_usage(str(house.settings.data_dir))
    memory = psutil.virtual_memory()
    alive = len(await alive_workers(house.redis)) if redis.status == "ok" else 0
    free_percent = round(100 - disk.percent, 1)
    checks = HealthChecks(
        redis=redis,
        database=database,
        disk=DiskCheck(
            status="ok" if free_percent >= _LOW_DISK_PERCENT else "low",
            free_gb=round(disk.free / _GB, 2),
            percent_free=free_percent,
        ),
        memory=MemoryCheck(
            status="ok" if memory.percent <= _HIGH_MEMORY_PERCENT else "high",
            used_gb=round(memory.used / _GB, 2),
            percent_used=memory.percent,
        ),
        workers=WorkersCheck(status="ok" if alive else "none", alive=alive),
    )
    parts = (checks.redis, checks.database, checks.disk, checks.memory, checks.workers)
    return HealthCheckResult(timestamp=ctx.now, healthy=all(part.status == "ok" for part in parts), checks=checks)


async def _store(ping: Callable[[], Awaitable[object]]) -> StoreCheck:
    before = monotonic()
    try:
        async with asyncio.timeout(_LIMIT_S):
            await ping()
    except (Unavailable, TimeoutError, *OUTAGES) as error:
        return StoreCheck(status="failed", detail=str(error) or type(error).__name__)
    return StoreCheck(status="ok", latency_ms=round(1000 * (monotonic() - before), 2))
