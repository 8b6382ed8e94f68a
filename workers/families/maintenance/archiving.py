"""The work of ``maintenance.archive_audit_logs``: write, verify, and only then delete, batch by batch."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.failpoints import failpoint
from app.history.archives import forget_location, read_locations, remember_location
from app.history.turns import sole_turn
from app.jobs import maintenance
from app.jobs.maintenance import Archive, ArchiveAuditLogsParams, ArchiveAuditLogsResult
from app.records.audit_entries import count_before, delete_entries, read_before
from workers.context import Context
from workers.families import work
from workers.families.maintenance.archive import Kept, Place, is_remote, open_place, pack, verify

TURN = "archive"
MAX_LISTED = 500

_BATCH = 10_000  # entries of one file: about 4 MB, which bounds the memory
_PAGE = 1_000  # rows of one query and of one deletion; more would keep the event loop, or other writers, for long


@dataclass(slots=True)
class Archived:
    """What one run has archived so far."""

    files: list[Kept] = field(default_factory=list)
    count: int = 0
    resumed: int = 0

    def listed(self) -> tuple[Archive, ...]:
        """Return the files as the result names them."""
        return tuple(
            Archive(
                manifest=found.manifest_file(),
                file=found.file,
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
    database, settings = ctx.records.database, ctx.installation.settings
    archived = Archived()
    async with sole_turn(database, TURN):
        await _finish_earlier(ctx, archived, besides=location)
        async with open_place(settings, location) as place:
            await _finish_pending(ctx, archived, place)
            archived.resumed = archived.count
            total = await count_before(database, cutoff) + archived.count
            if is_remote(location):
                await remember_location(database, location, ctx.now)
            while rows := await _read(ctx, cutoff):
                content, manifest = await ctx.run_thread(pack, rows)
                await _settle(ctx, archived, place, await place.write(content, manifest))
                percent = 100 * archived.count / max(1, total)
                await ctx.progress(percent, f"archived {archived.count} of {total} entries", stage="archive")
        if is_remote(location):
            await forget_location(database, location)
    return archived


async def _finish_earlier(ctx: Context, archived: Archived, *, besides: str) -> None:
    """Finish what earlier runs left pending at other locations: their entries are in an archive already."""
    database, settings = ctx.records.database, ctx.installation.settings
    remembered = await read_locations(database)
    for location in [*(["."] if is_remote(besides) else []), *remembered]:
        if location != besides:
            async with open_place(settings, location) as place:
                await _finish_pending(ctx, archived, place)
            await forget_location(database, location)


async def _finish_pending(ctx: Context, archived: Archived, place: Place) -> None:
    for pending in await place.find_pending():
        await _settle(ctx, archived, place, pending)


async def _settle(ctx: Context, archived: Archived, place: Place, kept: Kept) -> None:
    """Read an archive file again and verify it, delete exactly its entries, and finish it."""
    ids = await ctx.run_thread(verify, await place.read(kept), kept.manifest)
    for at in range(0, len(ids), _PAGE):
        archived.count += await delete_entries(ctx.records.database, ids[at : at + _PAGE])
        failpoint("archive_half_deleted")
    failpoint("archive_deleted")
    await place.finish(kept)
    archived.files.append(kept)


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
