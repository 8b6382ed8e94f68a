"""The FFE jobs on stored goals and blocks, on both databases: what they store, keep and say."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from app.database import Database
from app.errors import Discard
from app.installation import open_installation
from app.jobs import ffe
from app.jobs.catalogue import load_catalogue
from app.jobs.ffe import (
    AtomicBlock,
    BlockSize,
    Complexity,
    GoalStatus,
    PlanGoalParams,
    PlanGoalResult,
    Risk,
    TrackProgressParams,
    TrackProgressResult,
    TrackStatus,
)
from app.jobs.status import Status
from app.orders import Order
from app.records.ffe_blocks import FFE_BLOCKS, FfeBlock, read_blocks, replace_plan
from app.records.ffe_goals import FFE_GOALS, FfeGoal
from app.records.store import Records
from app.settings import Settings
from tests.support.workplace import drain, row
from workers.context import Context
from workers.families import load_work
from workers.families.ffe import plan_goal, track_progress
from workers.worker import Worker

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)  # a Monday
T = TypeVar("T")


@dataclass
class Run:
    """What a job is given, for one attempt without a worker around it."""

    records: Records
    now: datetime = NOW
    reports: list[tuple[float, str | None]] = field(default_factory=list)
    installation: Any = field(default_factory=lambda: SimpleNamespace(settings=Settings(ffe_optimizer_s=0)))

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.reports.append((percent, stage))

    async def run_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)


@pytest.fixture
def run(database: Database) -> Run:
    return Run(records=Records(database))


# --- ffe.plan_goal -----------------------------------------------------------------------------


async def test_a_plan_stores_its_goal_and_every_block_that_it_names(run: Run) -> None:
    result = await plan(run)

    goal = await run.records.get(FFE_GOALS, "g")
    assert goal is not None
    assert (goal.user_id, goal.description, goal.complexity) == ("u", "Build a shed", Complexity.MEDIUM)
    stored = await blocks_of(run)
    assert [block.block_id for block in stored] == [block.block_id for block in result.atomic_blocks]
    assert [block.index for block in stored] == list(range(1, result.atomic_blocks_count + 1))
    for told, block in zip(result.atomic_blocks, stored, strict=True):
        assert (told.estimated_minutes, told.scheduled_start) == (block.estimated_minutes, block.scheduled_start)
    assert result.status == "planned"
    assert result.total_estimated_minutes == 16 * 60
    assert len(result.parts) == 5
    assert sorted(index for part in result.parts for index in part.block_indexes) == [block.index for block in stored]
    assert {need for block in stored for need in block.depends_on} <= {block.block_id for block in stored}


async def test_each_pass_is_reported_and_told(run: Run) -> None:
    result = await plan(run)

    assert [stage for _, stage in run.reports].count("decompose") == len(result.passes) == 3
    assert [percent for percent, _ in run.reports] == sorted(percent for percent, _ in run.reports)
    assert all(one.vital_parts <= one.parts for one in result.passes)


@pytest.mark.parametrize(("complexity", "minutes"), [("simple", 480), ("complex", 1440)])
async def test_a_more_complex_goal_takes_longer(run: Run, complexity: str, minutes: int) -> None:
    result = await plan(run, complexity=Complexity(complexity))

    assert result.total_estimated_minutes == minutes
    assert result.estimates.p50_minutes == pytest.approx(minutes, rel=0.1)
    assert result.critical_path.minutes < minutes
    critical = [block for block in result.atomic_blocks if block.is_critical]
    assert sum(block.estimated_minutes for block in critical) == result.critical_path.minutes
    assert {block.slack_minutes for block in critical} == {0}


async def test_planned_twice_it_is_the_same_plan_without_a_double_row(run: Run) -> None:
    first = await plan(run)
    stored = await blocks_of(run)
    run.now += timedelta(minutes=3)

    second = await plan(run)

    assert second == first.model_copy(update={"planning_timestamp": run.now})
    assert await blocks_of(run) == stored
    assert await run.records.count(FFE_GOALS) == 1


async def test_what_is_done_stays_to_the_letter_when_the_goal_is_planned_again(run: Run) -> None:
    before = await plan(run)
    done = await finish(run, before.atomic_blocks[0], minutes=100)

    after = await plan(run, complexity=Complexity.COMPLEX, description="Build a palace")

    stored = await blocks_of(run)
    assert done in stored
    assert after.atomic_blocks[0].completed_at == done.completed_at
    assert after.atomic_blocks[0].description.endswith("Build a shed")
    assert all(block.description.endswith("Build a palace") for block in after.atomic_blocks[1:])
    assert len({block.index for block in stored}) == len(stored) == after.atomic_blocks_count
    assert done.index not in after.critical_path.block_indexes
    assert after.atomic_blocks[0].slack_minutes is None


async def test_a_block_that_is_finished_while_the_plan_is_made_stays_finished(run: Run, database: Database) -> None:
    await plan(run)
    planned = await blocks_of(run)
    await store_blocks(run, [planned[0].model_copy(update={"completed_at": NOW, "actual_minutes": 7.0})])

    await replace_plan(database, "g", "u", [block.model_copy(update={"title": "New"}) for block in planned])

    stored = await blocks_of(run)
    assert (stored[0].title, stored[0].completed_at, stored[0].actual_minutes) == (planned[0].title, NOW, 7.0)
    assert {block.title for block in stored[1:]} == {"New"}


async def test_open_blocks_of_an_older_plan_go_and_those_that_people_made_stay(run: Run) -> None:
    before = await plan(run)
    own = block("mine", index=2, scheduled_start=NOW + timedelta(hours=1))
    await store_blocks(run, [own])

    after = await plan(run, description="Write a book")

    stored = await blocks_of(run)
    assert own in stored
    assert after.blocks_removed == before.atomic_blocks_count
    assert {one.block_id for one in stored} == {one.block_id for one in after.atomic_blocks} | {"mine"}
    assert len({one.index for one in stored}) == len(stored)
    assert all(one.scheduled_start != own.scheduled_start for one in after.atomic_blocks)


async def test_an_existing_goal_keeps_what_people_keep_in_it(run: Run) -> None:
    deadline = NOW + timedelta(days=2)
    goal = FfeGoal(
        goal_id="g",
        user_id="u",
        timestamp=NOW - timedelta(days=9),
        description="Something",
        importance=9,
        status=GoalStatus.PAUSED,
        deadline=deadline,
        parent="p",
    )
    await run.records.upsert(FFE_GOALS, [goal])

    result = await plan(run)

    assert await run.records.get(FFE_GOALS, "g") == goal.model_copy(update={"description": "Build a shed"})
    assert result.schedule.fits_deadline is False
    assert result.schedule.unscheduled_blocks > 0
    assert result.schedule.last_end is not None
    assert result.schedule.last_end <= deadline


async def test_another_users_goal_is_refused_for_good_and_left_alone(run: Run) -> None:
    await run.records.upsert(FFE_GOALS, [FfeGoal(goal_id="g", user_id="other", description="Theirs")])

    with pytest.raises(Discard, match="another user"):
        await plan(run)

    goal = await run.records.get(FFE_GOALS, "g")
    assert goal is not None
    assert goal.description == "Theirs"
    assert await run.records.count(FFE_BLOCKS) == 0


async def test_a_user_who_takes_longer_gets_a_longer_plan(run: Run) -> None:
    await store_blocks(run, [done(str(at), minutes=120) for at in range(20)])

    slow = await plan(run)
    other = await plan(run, goal_id="g2", user_id="v")

    assert slow.estimates.history_blocks == 20
    assert slow.estimates.history_factor == pytest.approx(2**0.8)
    assert slow.total_estimated_minutes > 1.7 * other.total_estimated_minutes
    assert slow.estimates.p80_minutes > other.estimates.p80_minutes
    assert (other.estimates.history_blocks, other.estimates.history_factor) == (0, 1)


async def test_a_plan_that_already_allowed_for_the_user_teaches_the_same_again(run: Run) -> None:
    await store_blocks(run, [done(str(at), minutes=120) for at in range(500)])
    first = await plan(run, goal_id="g1")
    for told in first.atomic_blocks:
        await finish(run, told, minutes=told.estimated_minutes, goal_id="g1")

    second = await plan(run, goal_id="g2")

    assert second.estimates.history_factor == pytest.approx(first.estimates.history_factor, rel=0.01)


async def test_two_goals_of_one_user_are_never_scheduled_at_once(run: Run) -> None:
    first, second = await plan(run), await plan(run, goal_id="g2")

    spans = sorted(
        (block.scheduled_start, block.scheduled_start + timedelta(minutes=block.estimated_minutes))
        for result in (first, second)
        for block in result.atomic_blocks
        if block.scheduled_start is not None
    )
    assert len(spans) == first.atomic_blocks_count + second.atomic_blocks_count
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


async def test_a_goal_that_is_paused_takes_no_time_from_another(run: Run) -> None:
    first = await plan(run)
    goal = await run.records.get(FFE_GOALS, "g")
    assert goal is not None
    await run.records.upsert(FFE_GOALS, [goal.model_copy(update={"status": GoalStatus.PAUSED})])

    second = await plan(run, goal_id="g2")

    assert second.schedule == first.schedule


async def test_a_schedule_whose_first_block_was_missed_begins_anew(run: Run) -> None:
    await plan(run)
    run.now += timedelta(days=1)

    result = await plan(run)

    assert result.schedule.first_start == run.now + timedelta(hours=1)


async def test_with_everything_done_nothing_is_left_to_estimate(run: Run) -> None:
    for told in (await plan(run)).atomic_blocks:
        await finish(run, told, minutes=None)

    result = await plan(run)

    assert (result.estimates.p95_minutes, result.critical_path.minutes) == (0, 0)
    assert (result.schedule.first_start, result.schedule.unscheduled_blocks) == (None, 0)


# --- ffe.track_progress ------------------------------------------------------------------------


async def test_an_unknown_or_foreign_goal_is_not_found(run: Run) -> None:
    await run.records.upsert(FFE_GOALS, [FfeGoal(goal_id="theirs", user_id="other", description="Theirs")])

    for goal_id in ("nope", "theirs"):
        result = await track(run, goal_id)
        assert (result.status, result.goal_status, result.progress) == (TrackStatus.NOT_FOUND, None, None)


@pytest.mark.parametrize("status", GoalStatus)
async def test_a_goal_of_any_status_without_blocks_is_insufficient_data(run: Run, status: GoalStatus) -> None:
    await run.records.upsert(FFE_GOALS, [FfeGoal(goal_id="g", user_id="u", description="A goal", status=status)])

    result = await track(run)

    assert (result.status, result.goal_status, result.progress) == (TrackStatus.INSUFFICIENT_DATA, status, None)


async def test_a_finished_block_moves_progress_and_the_next_block_on(run: Run) -> None:
    told = (await plan(run)).atomic_blocks
    before = await track(run)
    await finish(run, told[0], minutes=60)
    run.now += timedelta(days=1)

    after = await track(run)

    assert before.progress is not None
    assert after.progress is not None
    assert (before.progress.progress_percent, before.progress.accuracy.ratio) == (0, None)
    assert after.progress.progress_percent == pytest.approx(100 * told[0].estimated_minutes / 960, abs=1e-4)
    assert after.progress.accuracy.actual_minutes == after.progress.minutes_spent == 60
    assert before.progress.next_block is not None
    assert before.progress.next_block.block_id == told[0].block_id
    assert after.progress.next_block is not None
    assert after.progress.next_block.block_id in {block.block_id for block in told[1:]}


async def test_half_in_ten_days_with_ten_to_go_is_98_percent_likely(run: Run) -> None:
    began, deadline = NOW - timedelta(days=10), NOW + timedelta(days=10)
    goal = FfeGoal(goal_id="g", user_id="u", timestamp=began, description="A goal", deadline=deadline)
    await run.records.upsert(FFE_GOALS, [goal])
    await store_blocks(run, [done("a", goal_id="g"), block("b")])

    result = await track(run)

    assert result.status is TrackStatus.TRACKED
    assert result.progress is not None
    assert result.progress.prediction.probability == pytest.approx(0.98, abs=0.005)
    assert result.progress.prediction.risk is Risk.LOW


async def test_five_blocks_of_all_goals_in_one_day_make_a_stop_due(run: Run) -> None:
    await plan(run)
    await store_blocks(run, [done(str(at)) for at in range(5)])

    result = await track(run)

    assert result.progress is not None
    assert (result.progress.blocks_today, result.progress.is_stop_due) == (5, True)


async def test_tracking_changes_nothing_and_says_the_same_again(run: Run) -> None:
    await plan(run)
    stored = await blocks_of(run)

    assert await track(run) == await track(run)
    assert await blocks_of(run) == stored


# --- through a worker --------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_worker_plans_a_goal_and_tracks_it(settings: Settings) -> None:
    catalogue = load_catalogue()
    queues = ["ffe_planning"]
    async with open_installation(settings, catalogue) as house:
        params = PlanGoalParams(goal_id="g", user_id="u", goal_description="Learn to swim")
        tracking = TrackProgressParams(goal_id="g", user_id="u")
        planned, tracked = [
            (await house.lifecycle.submit([Order(job_type=job_type, params=given, owner="u")]))[0].id
            for job_type, given in ((ffe.plan_goal, params), (ffe.track_progress, tracking))
        ]
        works = load_work(catalogue, queues)

        await drain(Worker(house, functions=works, queues=queues, max_jobs=1, burst=True, handle_signals=False))

        plan_row, track_row = await row(house, planned), await row(house, tracked)
        assert (plan_row.status, track_row.status) == (Status.COMPLETED, Status.COMPLETED)
        assert PlanGoalResult.model_validate(plan_row.result).atomic_blocks_count == await house.records.count(
            FFE_BLOCKS
        )
        assert TrackProgressResult.model_validate(track_row.result).status is TrackStatus.TRACKED


# --- arranging ---------------------------------------------------------------------------------


async def plan(
    run: Run,
    *,
    goal_id: str = "g",
    user_id: str = "u",
    description: str = "Build a shed",
    complexity: Complexity = Complexity.MEDIUM,
) -> PlanGoalResult:
    """Plan a goal."""
    params = PlanGoalParams(goal_id=goal_id, user_id=user_id, goal_description=description, complexity_level=complexity)
    return await plan_goal(cast(Context, run), params)


async def track(run: Run, goal_id: str = "g") -> TrackProgressResult:
    """Track a goal of u's."""
    return await track_progress(cast(Context, run), TrackProgressParams(goal_id=goal_id, user_id="u"))


def block(block_id: str, **changes: Any) -> FfeBlock:
    """Return an open block that a person made."""
    plain: dict[str, Any] = {
        "block_id": block_id,
        "user_id": "u",
        "goal_id": "g",
        "timestamp": NOW,
        "index": 1,
        "title": "A block",
        "done_criterion": "It is done.",
        "size": BlockSize.MEDIUM,
        "estimated_minutes": 60,
    }
    return FfeBlock(**plain | changes)


def done(block_id: str, *, minutes: float = 60, goal_id: str = "past") -> FfeBlock:
    """Return a block of another goal, finished today."""
    return block(block_id, goal_id=goal_id, completed_at=NOW, actual_minutes=minutes)


async def finish(run: Run, told: AtomicBlock, *, minutes: float | None, goal_id: str = "g") -> FfeBlock:
    """Finish a planned block as an upsert does."""
    [stored] = [one for one in await blocks_of(run, goal_id) if one.block_id == told.block_id]
    finished = stored.model_copy(update={"completed_at": run.now, "actual_minutes": minutes})
    await store_blocks(run, [finished])
    return finished


async def store_blocks(run: Run, blocks: Sequence[FfeBlock]) -> None:
    """Store blocks as an ingest does."""
    await run.records.upsert(FFE_BLOCKS, blocks)


async def blocks_of(run: Run, goal_id: str = "g") -> list[FfeBlock]:
    """Return the stored blocks of a goal of u's."""
    return await read_blocks(run.records.database, goal_id, "u")
