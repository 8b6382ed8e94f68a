"""The work of ``ffe.plan_goal``: decompose, schedule, estimate, store, and say what is stored."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from app.errors import Discard
from app.jobs import ffe
from app.jobs.ffe import MAX_BLOCK_MINUTES, Intent, PlanGoalParams, PlanGoalResult
from app.jobs.ffe_planning import Planner
from app.records.ffe_blocks import (
    Engagement,
    FfeBlock,
    count_finished,
    read_blocks,
    read_engagements,
    read_experience,
    replace_plan,
)
from app.records.ffe_goals import FFE_GOALS, FfeGoal, set_goal
from workers.context import Context
from workers.families import work
from workers.families.ffe.agenda import Agenda, next_quarter
from workers.families.ffe.decomposition import MAX_PASSES, Scope, find_flaws, leaves_of, minutes_of, scope
from workers.families.ffe.estimates import Calibration, calibrate, simulate
from workers.families.ffe.plan import Plan, make_plan, open_blocks
from workers.families.ffe.planner import ask_planner
from workers.families.ffe.report import tell_plan
from workers.families.ffe.scheduling import Frame, schedule
from workers.families.ffe.templates import find_intent

_LONGEST_BLOCK = timedelta(minutes=MAX_BLOCK_MINUTES)


@work(ffe.plan_goal)
async def plan_goal(ctx: Context, params: PlanGoalParams) -> PlanGoalResult:
    """Plan a goal anew; what is done stays, and the same question at the same state gives the same plan."""
    database = ctx.records.database
    goal = await _set_goal(ctx, params)
    stored = await read_blocks(database, goal.goal_id, goal.user_id)
    calibration = calibrate(await read_experience(database, goal.user_id))
    plan, planner = await _decompose(ctx, goal, stored, calibration)
    await ctx.progress(60, f"simulating {len(plan.sequence)} blocks", stage="estimate")
    estimates = await ctx.run_thread(simulate, goal.goal_id, list(plan.sequence.values()), calibration)
    await ctx.progress(65, f"{len(plan.sequence)} open blocks to schedule", stage="schedule")
    frame = await _frame(ctx, goal, stored, plan)
    found = await schedule(ctx, plan, frame, p80_minutes=estimates.p80_minutes)
    await ctx.progress(90, f"storing {len(plan.sequence)} blocks", stage="store")
    blocks = open_blocks(plan, goal, stored, found.starts, ctx.now)
    removed = await replace_plan(database, goal.goal_id, goal.user_id, blocks)
    stored = await read_blocks(database, goal.goal_id, goal.user_id)
    await ctx.progress(100, f"{len(plan.leaves)} blocks planned", stage="done")
    return tell_plan(
        plan, goal, stored, planner=planner, found=found, estimates=estimates, removed=removed, now=ctx.now
    )


async def _set_goal(ctx: Context, params: PlanGoalParams) -> FfeGoal:
    wanted = FfeGoal(
        goal_id=params.goal_id,
        user_id=params.user_id,
        timestamp=ctx.now,
        description=params.goal_description,
        complexity=params.complexity_level,
    )
    await set_goal(ctx.records.database, wanted)
    goal = await ctx.records.get(FFE_GOALS, params.goal_id, user_id=params.user_id)
    if goal is None:
        raise Discard(f"The goal {params.goal_id!r} belongs to another user; choose an id of your own.")
    await ctx.progress(5, "the goal is set", stage="goal")
    return goal


async def _decompose(
    ctx: Context, goal: FfeGoal, stored: Sequence[FfeBlock], calibration: Calibration
) -> tuple[Plan, Planner]:
    """Return a plan of what a model proposes, where one is set and its proposal is sound, else of a template."""
    intent = find_intent(goal.description)
    answer = await ask_planner(ctx, goal, factor=calibration.factor)
    leaves, passes, factor = answer.leaves, [], calibration.factor
    if leaves is None:
        minutes = minutes_of(goal.complexity, calibration.factor)
        passes = await _scope(ctx, intent, goal, minutes)
        leaves, factor = leaves_of(passes[-1], intent, goal.description), minutes / minutes_of(goal.complexity)
        if flaws := find_flaws(leaves):
            raise Discard("The decomposition cannot be planned. " + " ".join(flaws))
    finished = frozenset(block.block_id for block in stored if block.completed_at is not None)
    plan = make_plan(goal.goal_id, intent, leaves, passes=passes, factor=factor, finished=finished)
    return plan, answer.told


async def _scope(ctx: Context, intent: Intent, goal: FfeGoal, minutes: int) -> list[Scope]:
    passes: list[Scope] = []
    for one in scope(intent, goal.complexity, minutes):
        passes.append(one)
        message = f"pass {one.number} of at most {MAX_PASSES}: {len(one.parts)} parts, {len(one.vital)} vital"
        await ctx.progress(5 + 10 * one.number, message, stage="decompose")
    return passes


async def _frame(ctx: Context, goal: FfeGoal, stored: Sequence[FfeBlock], plan: Plan) -> Frame:
    """Return what the open blocks have to go around, and from when on they may begin."""
    database = ctx.records.database
    midnight = datetime.combine(ctx.now.date(), time(tzinfo=UTC))
    finished = await count_finished(database, goal.user_id, midnight, ctx.now)
    since = ctx.now - _LONGEST_BLOCK
    elsewhere = await read_engagements(database, goal.user_id, besides=goal.goal_id, since=since)
    own = _waiting([block for block in stored if block.path is None and block.block_id not in plan.leaves])
    waiting = _waiting([block for block in stored if block.path is not None])
    agenda = Agenda([*elsewhere, *own], Counter({midnight.date(): finished}))
    return Frame(agenda=agenda, since=_anchor(waiting, ctx.now), deadline=goal.deadline)


def _waiting(blocks: Sequence[FfeBlock]) -> list[Engagement]:
    return [
        Engagement(start=block.scheduled_start, minutes=block.estimated_minutes)
        for block in blocks
        if block.completed_at is None and block.scheduled_start is not None
    ]


def _anchor(waiting: Sequence[Engagement], now: datetime) -> datetime:
    """Return when work begins: as scheduled before, unless that has been missed, else from the next quarter hour.

    So the same question asked again gives the same schedule, and a block that is being worked on keeps its time.
    """
    first = min(waiting, key=lambda one: one.start, default=None)
    if first is not None and first.start + timedelta(minutes=first.minutes) > now:
        return first.start
    return next_quarter(now)
