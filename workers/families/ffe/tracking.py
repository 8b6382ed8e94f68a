"""The work of ``ffe.track_progress``: read a goal with its blocks, and name every figure."""

from datetime import UTC, datetime, time

from app.jobs import ffe
from app.jobs.ffe import TrackProgressParams, TrackProgressResult, TrackStatus
from app.records.ffe_blocks import FfeBlock, count_finished, read_blocks
from app.records.ffe_goals import FFE_GOALS, FfeGoal
from workers.context import Context
from workers.families import work
from workers.families.ffe.progress import measure


@work(ffe.track_progress)
async def track_progress(ctx: Context, params: TrackProgressParams) -> TrackProgressResult:
    """Say how a goal of any status comes along; change nothing."""
    goal = await ctx.records.get(FFE_GOALS, params.goal_id, user_id=params.user_id)
    if goal is None:
        return _result(ctx, params, TrackStatus.NOT_FOUND)
    database = ctx.records.database
    await ctx.progress(20, "reading the blocks", stage="read")
    blocks = await read_blocks(database, goal.goal_id, goal.user_id)
    if not blocks:
        return _result(ctx, params, TrackStatus.INSUFFICIENT_DATA, goal)
    midnight = datetime.combine(ctx.now.date(), time(tzinfo=UTC))
    today = await count_finished(database, goal.user_id, midnight, ctx.now)
    await ctx.progress(60, f"measuring {len(blocks)} blocks", stage="measure")
    return await _tracked(ctx, params, goal, blocks, today)


async def _tracked(
    ctx: Context, params: TrackProgressParams, goal: FfeGoal, blocks: list[FfeBlock], today: int
) -> TrackProgressResult:
    progress = await ctx.run_thread(measure, goal, blocks, today, ctx.now)
    await ctx.progress(100, f"{progress.progress_percent:.0f} % done", stage="done")
    return _result(ctx, params, TrackStatus.TRACKED, goal).model_copy(update={"progress": progress})


def _result(
    ctx: Context, params: TrackProgressParams, status: TrackStatus, goal: FfeGoal | None = None
) -> TrackProgressResult:
    return TrackProgressResult(
        goal_id=params.goal_id,
        user_id=params.user_id,
        status=status,
        goal_status=None if goal is None else goal.status,
        deadline=None if goal is None else goal.deadline,
        progress=None,
        tracking_timestamp=ctx.now,
    )
