"""The work of ``maintenance.enforce_retention_policy``: one line of the policy after the other, in batches."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from app.history.receipts import KEPT
from app.history.retention import count_ended, delete_ended, delete_receipts
from app.jobs import maintenance
from app.jobs.maintenance import (
    DEFAULT_POLICY,
    Archive,
    ArchiveAuditLogsParams,
    Enforced,
    EnforceRetentionPolicyParams,
    EnforceRetentionPolicyResult,
)
from app.jobs.status import Status
from app.records.ari_snapshots import ARI_SNAPSHOTS
from workers.context import Context
from workers.families import work
from workers.families.maintenance.archiving import archive_before
from workers.families.maintenance.files import clear_old_files


@work(maintenance.enforce_retention_policy)
async def enforce_retention_policy(ctx: Context, params: EnforceRetentionPolicyParams) -> EnforceRetentionPolicyResult:
    """Delete what the policy says was kept for long enough; a second run finds nothing more."""
    policy = (params.policy or DEFAULT_POLICY).model_dump(exclude_none=True)
    enforcement = _Enforcement(ctx, total=len(policy))
    enforced = {name: await enforcement.enforce(name, days) for name, days in policy.items()}
    await delete_receipts(ctx.installation.database, ctx.now - KEPT)  # no policy: nobody reads older ones
    await ctx.progress(100, "done", stage="done")
    return EnforceRetentionPolicyResult(
        policy=policy,
        enforced=enforced,
        total_deleted=sum(line.deleted for line in enforced.values()),
        bytes_freed=sum(line.bytes or 0 for line in enforced.values()),
        archives=enforcement.archives,
        retention_timestamp=ctx.now,
    )


class _Enforcement:
    """One run through a policy of ``total`` lines."""

    def __init__(self, ctx: Context, *, total: int) -> None:
        self.archives: tuple[Archive, ...] = ()
        self._ctx = ctx
        self._total = total
        self._done = 0
        self._lines: Mapping[str, Callable[[datetime], Awaitable[tuple[int, int | None]]]] = {
            "ari_snapshots": self._snapshots,
            "audit_logs": self._audit_entries,
            "failed_tasks": lambda cutoff: self._jobs(Status.FAILED, cutoff),
            "completed_tasks": lambda cutoff: self._jobs(Status.COMPLETED, cutoff),
            "cancelled_tasks": lambda cutoff: self._jobs(Status.CANCELLED, cutoff),
            "temp_files": self._files,
        }

    async def enforce(self, name: str, days: int) -> Enforced:
        """Enforce one line."""
        cutoff = self._ctx.now - timedelta(days=days)
        await self._ctx.progress(100 * self._done / self._total, f"looking at {name}", stage=name)
        deleted, size = await self._lines[name](cutoff)
        self._done += 1
        return Enforced(days=days, cutoff=cutoff, deleted=deleted, bytes=size)

    async def _snapshots(self, cutoff: datetime) -> tuple[int, None]:
        expected = await self._ctx.records.count(ARI_SNAPSHOTS, until=cutoff)
        return await self._follow(self._ctx.records.delete_before(ARI_SNAPSHOTS, cutoff), expected), None

    async def _audit_entries(self, cutoff: datetime) -> tuple[int, None]:
        archived = await archive_before(self._ctx, cutoff, ArchiveAuditLogsParams().archive_location)
        self.archives = archived.listed()
        return archived.count, None

    async def _jobs(self, status: Status, cutoff: datetime) -> tuple[int, None]:
        database = self._ctx.installation.database
        expected = await count_ended(database, status, cutoff)
        return await self._follow(delete_ended(database, status, cutoff), expected), None

    async def _files(self, cutoff: datetime) -> tuple[int, int]:
        settings, database = self._ctx.installation.settings, self._ctx.installation.database
        if not settings.temporary.is_dir():
            return 0, 0
        spared = [settings.data_dir, settings.archives, *filter(None, [database.file])]
        cleared = await self._ctx.run_thread(clear_old_files, settings.temporary, cutoff, spared=spared)
        return cleared.count, cleared.size

    async def _follow(self, batches: AsyncIterator[int], expected: int) -> int:
        deleted = 0
        async for gone in batches:
            deleted += gone
            share = min(1.0, deleted / max(1, expected))
            percent = 100 * (self._done + share) / self._total
            await self._ctx.progress(percent, f"deleted {deleted} of {expected}")
        return deleted
