"""The work of ``system.bulk``: page by page through the selection, each page one batch of the one door."""

from collections.abc import Sequence
from typing import Any, assert_never, cast

from app.bulk import BATCH, meant_by
from app.jobs.bulk import BulkAction, BulkParams, BulkResult, bulk
from workers.context import Context
from workers.families import work


@work(bulk)
async def change_many(ctx: Context, params: BulkParams) -> BulkResult:
    """Change every selected job once; an attempt after a crash goes on behind the last page."""
    reader = ctx.installation.reader
    wanted = meant_by(params, now=ctx.now)
    state: dict[str, Any] = cast("dict[str, Any]", ctx.restored) or {"cursor": None, "matched": 0, "changed": 0}
    total = state["matched"] + await reader.count(wanted)
    while True:
        ids, cursor = await reader.ids(wanted, cursor=state["cursor"], limit=BATCH)
        others = [job_id for job_id in ids if job_id != ctx.job_id]
        changed = await _change(ctx, params, others) if others else 0
        matched = state["matched"] + len(others)
        state = {"cursor": cursor, "matched": matched, "changed": state["changed"] + changed}
        if cursor is None:
            return BulkResult(action=params.action, matched=matched, changed=state["changed"])
        await ctx.checkpoint(state)
        await ctx.progress(min(99.0, 100 * matched / max(1, total)), f"{matched} of {total}", stage=params.action)


async def _change(ctx: Context, params: BulkParams, ids: Sequence[str]) -> int:
    door = ctx.installation.lifecycle.bulk
    match params.action:
        case BulkAction.CANCEL:
            return await door.cancel(ids)
        case BulkAction.RETRY:
            return await door.retry(ids, owner=ctx.owner, under=ctx.job_id, now=ctx.now)
        case BulkAction.DELETE:
            return await door.delete(ids)
        case BulkAction.REPRIORITISE:
            return await door.reprioritise(ids, priority=params.new_priority or 1)
        case other:
            assert_never(other)
