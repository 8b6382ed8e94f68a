"""The result of a plan, told from the blocks as they are stored. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.jobs.ffe import (
    AtomicBlock,
    CriticalPath,
    Estimates,
    GoalPart,
    PlanGoalResult,
    ScopingPass,
)
from app.jobs.ffe_planning import PlannedSchedule, Planner
from app.records.ffe_blocks import FfeBlock
from app.records.ffe_goals import FfeGoal
from workers.families.ffe.decomposition import Scope
from workers.families.ffe.plan import Plan
from workers.families.ffe.scheduling import Schedule


def tell_plan(
    plan: Plan,
    goal: FfeGoal,
    stored: Sequence[FfeBlock],
    *,
    planner: Planner,
    found: Schedule,
    estimates: Estimates,
    removed: int,
    now: datetime,
) -> PlanGoalResult:
    """Return the result; ``stored`` are all blocks of the goal, of which those that people made are left out."""
    planned = [block for block in stored if block.block_id in plan.leaves or block.path is not None]
    return PlanGoalResult(
        goal_id=goal.goal_id,
        user_id=goal.user_id,
        complexity_level=goal.complexity,
        intent=plan.intent,
        planner=planner,
        atomic_blocks_count=len(planned),
        atomic_blocks=tuple(_atomic_block(block, plan) for block in planned),
        total_estimated_minutes=sum(block.estimated_minutes for block in planned),
        parts=_parts(plan, planned),
        passes=tuple(map(_scoping_pass, plan.passes)),
        critical_path=_critical_path(plan, planned),
        estimates=estimates,
        schedule=_schedule(goal, planned, found),
        blocks_removed=removed,
        planning_timestamp=now,
    )


def _atomic_block(block: FfeBlock, plan: Plan) -> AtomicBlock:
    leaf = plan.leaves.get(block.block_id)
    return AtomicBlock(
        block_index=block.index,
        block_id=block.block_id,
        path=block.path or (leaf.path if leaf else ""),
        title=block.title,
        description=block.description,
        done_criterion=block.done_criterion,
        size=block.size,
        estimated_minutes=block.estimated_minutes,
        depends_on=block.depends_on,
        scheduled_start=block.scheduled_start,
        completed_at=block.completed_at,
        is_vital=leaf is not None and leaf.is_vital,
        is_critical=block.block_id in plan.critical_path,
        slack_minutes=round(plan.network.slack(block.block_id)) if block.block_id in plan.sequence else None,
    )


def _parts(plan: Plan, planned: Sequence[FfeBlock]) -> tuple[GoalPart, ...]:
    parts: dict[str, list[FfeBlock]] = {}
    for block in planned:
        if block.block_id in plan.leaves:
            parts.setdefault(plan.leaves[block.block_id].path.partition(".")[0], []).append(block)
    return tuple(
        GoalPart(
            path=number,
            title=" · ".join(dict.fromkeys(block.title.partition(" (")[0] for block in blocks)),
            estimated_minutes=sum(block.estimated_minutes for block in blocks),
            block_indexes=tuple(block.index for block in blocks),
        )
        for number, blocks in sorted(parts.items())
    )


def _scoping_pass(one: Scope) -> ScopingPass:
    return ScopingPass(
        number=one.number,
        parts=len(one.parts),
        vital_parts=len(one.vital),
        vital_minutes=sum(one.parts[at].minutes for at in one.vital),
    )


def _critical_path(plan: Plan, planned: Sequence[FfeBlock]) -> CriticalPath:
    indexes = {block.block_id: block.index for block in planned}
    chain = tuple(indexes[key] for key in plan.critical_path if key in indexes)
    return CriticalPath(block_indexes=chain, minutes=round(plan.network.span))


def _schedule(goal: FfeGoal, planned: Sequence[FfeBlock], found: Schedule) -> PlannedSchedule:
    opened = [block for block in planned if block.completed_at is None]
    times = [(one.scheduled_start, one.estimated_minutes) for one in opened if one.scheduled_start is not None]
    unscheduled = len(opened) - len(times)
    return PlannedSchedule(
        first_start=min((start for start, _ in times), default=None),
        last_end=max((start + timedelta(minutes=minutes) for start, minutes in times), default=None),
        p80_end=found.p80_end,
        search=found.search,
        fits_deadline=None if goal.deadline is None else unscheduled == 0,
        unscheduled_blocks=unscheduled,
    )
