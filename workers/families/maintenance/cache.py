"""The work of ``maintenance.cleanup_cache``: the service's own prefix in Redis, and nothing else."""

from collections.abc import AsyncIterator, Sequence

from app.jobs import maintenance
from app.jobs.maintenance import CleanupCacheParams, CleanupCacheResult
from app.queue import keys
from app.queue.connect import Redis
from workers.context import Context
from workers.families import work

_PAGE = 500


@work(maintenance.cleanup_cache)
async def cleanup_cache(ctx: Context, params: CleanupCacheParams) -> CleanupCacheResult:
    """Remove the entries that nobody used for ``max_age_hours``, or all; their size is measured before they go."""
    redis, scanned, removed, freed = ctx.installation.redis, 0, 0, 0
    least_idle_s = 3600 * params.max_age_hours if params.cleanup_expired_only else 0
    async for found in _pages(redis):
        measured = await _measure(redis, found)
        scanned += len(measured)
        expired = {name: size for name, (idle_s, size) in measured.items() if idle_s >= least_idle_s}
        if expired:
            removed += await redis.unlink(*expired)
            freed += sum(expired.values())
        await ctx.progress(50, f"{removed} of {scanned} entries removed", stage="scan")
    return CleanupCacheResult(
        max_age_hours=params.max_age_hours,
        cleanup_expired_only=params.cleanup_expired_only,
        keys_scanned=scanned,
        keys_removed=removed,
        bytes_freed=freed,
        cleanup_timestamp=ctx.now,
    )


async def _pages(redis: Redis) -> AsyncIterator[Sequence[bytes]]:
    """Yield the names of all entries in pages; Redis may name one twice, but never one that is gone by then."""
    cursor = 0
    while True:
        cursor, found = await redis.scan(cursor, match=f"{keys.CACHE}*", count=_PAGE)
        if found:
            yield list(dict.fromkeys(found))
        if cursor == 0:
            return


async def _measure(redis: Redis, names: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Return for how many seconds nobody used an entry, and its bytes; asking counts as no use."""
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.object("IDLETIME", name)
        pipe.memory_usage(name)
    answers = await pipe.execute()
    pairs = zip(names, answers[0::2], answers[1::2], strict=True)
    return {name: (idle_s, size) for name, idle_s, size in pairs if idle_s is not None and size is not None}
