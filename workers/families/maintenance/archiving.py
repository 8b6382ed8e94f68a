"""The work of ``maintenance.archive_audit_logs``: write, verify, and only then delete, batch by batch."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from app.failpoints import failpoint
from app.history.turns import sole_turn
from app.jobs import maintenance
from app.jobs.maintenance import Archive, ArchiveAuditLogsParams, ArchiveAuditLogsResult
from app.records.audit_entries import count_before, delete_entries, read_before
from workers.context import Context
from workers.families import work
from workers.families.maintenance.archive import (
    Written,
    find_pending,
    finish,
    open_directory,
    verify,
    write_batch,
)

TURN = "archive"
MAX_LISTED = 500

_BATCH = 10_000  # entries of one file: about 4 MB, which bounds the memory
_PAGE = 1_000  # rows of one query and of one deletion; more would keep the event loop, or other writers, for long


@dataclass(slots=True)
class Archived:
    """What one run has archived so far."""

    root: Path
    files: list[Written] = field(default_factory=list)
    count: int = 0
    resumed: int = 0

    def listed(self) -> tuple[Archive, ...]:
        """Return the files as the result names them."""
        return tuple(
            Archive(
                manifest=str(found.manifest_file().relative_to(self.root)),
                file=str(found.file.relative_to(self.root)),
                **found.manifest.model_dump(exclude={"file"}),
            )
            for found in self.files[:MAX_LISTED]
        )


@work(maintenance.archive_audit_logs)
async def archive_audit_logs(ctx: Context, params: ArchiveAuditLogsParams) -> ArchiveAuditLogsResult:
    """Move the entries from before the cutoff into files; after a kill, a second run goes on where it was."""
    cutoff = ctx.now - timedelta(days=params.days_to_keep)
    archived = await archive_before(ctx, cutoff, params.archive_location)
    return ArchiveAuditLogsResult(
        days_to_keep=params.days_to_keep,
        archive_location=params.archive_location,
        cutoff=cutoff,
        archived_count=archived.count,
        resumed_count=archived.resumed,
        bytes_written=sum(found.manifest.bytes for found in archived.files),
        archives=archived.listed(),
        archives_omitted=max(0, len(archived.files) - MAX_LISTED),
        archive_timestamp=ctx.now,
    )


async def archive_before(ctx: Context, cutoff: datetime, location: str) -> Archived:
    """Archive the entries from before a time; raise Conflict while another job archives."""
    database, root = ctx.records.database, ctx.installation.settings.archives
    archived = Archived(root=root)
    async with sole_turn(database, TURN):
        directory = await ctx.run_thread(open_directory, root, location)
        for pending in await ctx.run_thread(find_pending, root):
            archived.resumed += await _delete(ctx, pending)
            archived.files.append(pending)
        archived.count = archived.resumed
        total = await count_before(database, cutoff) + archived.count
        while rows := await _read(ctx, cutoff):
            written = await ctx.run_thread(write_batch, directory, rows)
            archived.count += await _delete(ctx, written)
            archived.files.append(written)
            percent = 100 * archived.count / max(1, total)
            await ctx.progress(percent, f"archived {archived.count} of {total} entries", stage="archive")
    return archived


async def _read(ctx: Context, cutoff: datetime) -> list[dict[str, Any]]:
    """Read the oldest entries, as many as make a file."""
    rows: list[dict[str, Any]] = []
    while len(rows) < _BATCH:
        after = (rows[-1]["timestamp"], rows[-1]["entry_id"]) if rows else None
        page = await read_before(ctx.records.database, cutoff, after=after, limit=_PAGE)
        rows += page
        if len(page) < _PAGE:
            break
    return rows


async def _delete(ctx: Context, written: Written) -> int:
    """Verify an archive file, delete exactly its entries, and finish it; return how many were still there."""
    ids, gone = await ctx.run_thread(verify, written), 0
    for at in range(0, len(ids), _PAGE):
        gone += await delete_entries(ctx.records.database, ids[at : at + _PAGE])
        failpoint("archive_half_deleted")
    failpoint("archive_deleted")
    await ctx.run_thread(finish, written)
    return gone
