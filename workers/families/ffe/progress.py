"""The figures of a goal's progress, from the goal and its blocks. Pure."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from app.jobs.ffe import STOP_AFTER_BLOCKS, Accuracy, GoalStatus, NextBlock, Progress, Velocity
from app.records.ffe_blocks import FfeBlock
from app.records.ffe_goals import FfeGoal
from workers.families.ffe.prediction import predict

STALLED_DAYS = 14

_DAY = timedelta(days=1)
_LAST = datetime.max.replace(tzinfo=UTC)


def measure(goal: FfeGoal, blocks: Sequence[FfeBlock], blocks_today: int, now: datetime) -> Progress:
    """Return every figure about a goal with at least one block; ``blocks_today`` is the user's, of all goals."""
    finished = [block for block in blocks if block.completed_at is not None]
    done_at = [block.completed_at for block in blocks if block.completed_at is not None]
    opened = [block for block in blocks if block.completed_at is None]
    total, done = _minutes(blocks), _minutes(finished)
    percent = 100 * done / total
    began_at = min(goal.timestamp, *(block.timestamp for block in blocks), *done_at)
    last_at = max(done_at, default=began_at)
    idle_days = max((now - last_at) / _DAY, 0.0)
    return Progress(
        progress_percent=round(percent, 4),
        blocks_total=len(blocks),
        blocks_completed=len(finished),
        minutes_total=total,
        minutes_done=done,
        minutes_left=total - done,
        minutes_spent=sum(block.actual_minutes or 0.0 for block in blocks),
        accuracy=measure_accuracy(finished),
        streak_days=count_streak({moment.date() for moment in done_at}, now.date()),
        velocity=_velocity(len(finished), done, (now.date() - began_at.date()).days + 1),
        prediction=predict(percent, began_at, goal.deadline, now),
        next_block=find_next(blocks),
        blocks_today=blocks_today,
        is_stop_due=blocks_today >= STOP_AFTER_BLOCKS,
        last_activity_at=last_at,
        days_since_activity=round(idle_days, 4),
        is_stalled=bool(opened) and goal.status is GoalStatus.ACTIVE and idle_days >= STALLED_DAYS,
    )


def measure_accuracy(finished: Sequence[FfeBlock]) -> Accuracy:
    """Compare estimated with actual minutes over the finished blocks that have both."""
    timed = [(block.estimated_minutes, block.actual_minutes) for block in finished if block.actual_minutes is not None]
    if not timed:
        return Accuracy()
    estimated, actual = sum(expected for expected, _ in timed), sum(took for _, took in timed)
    errors = [abs(took - expected) / expected for expected, took in timed]
    return Accuracy(
        blocks=len(timed),
        estimated_minutes=estimated,
        actual_minutes=actual,
        ratio=round(actual / estimated, 6),
        mean_error_percent=round(100 * sum(errors) / len(errors), 4),
    )


def count_streak(days: set[date], today: date) -> int:
    """Count the days in a row that end today, or yesterday while today has none yet."""
    day = today if today in days else today - _DAY
    streak = 0
    while day in days:
        streak += 1
        day -= _DAY
    return streak


def find_next(blocks: Sequence[FfeBlock]) -> NextBlock | None:
    """Return the open block to go on with: nothing open before it, scheduled soonest, then the lowest index."""
    waiting = {block.block_id for block in blocks if block.completed_at is None}
    ready = [block for block in blocks if block.block_id in waiting and waiting.isdisjoint(block.depends_on)]
    if not ready:
        return None
    first = min(ready, key=lambda block: (block.scheduled_start or _LAST, block.index, block.block_id))
    return NextBlock(
        block_id=first.block_id,
        block_index=first.index,
        title=first.title,
        estimated_minutes=first.estimated_minutes,
        scheduled_start=first.scheduled_start,
    )


def _velocity(blocks: int, minutes: int, days: int) -> Velocity:
    days = max(days, 1)
    return Velocity(days=days, blocks_per_day=round(blocks / days, 4), minutes_per_day=round(minutes / days, 4))


def _minutes(blocks: Sequence[FfeBlock]) -> int:
    return sum(block.estimated_minutes for block in blocks)
