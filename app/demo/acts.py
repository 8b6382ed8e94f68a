"""What the demo does with the service: store sample data, submit, follow, collect. Inside the demo alone."""

import asyncio
from datetime import date
from typing import Any, Final, TypeVar

from app.client import Client, TaskView
from app.demo.board import Board
from app.demo.report import Aggregation, Analysis, Archiving, DebtReport, Findings, Lesson, Plan, put_in
from app.demo.samples import DAYS, SCENARIOS, Scenario, sample_snapshots, to_ndjson
from app.demo.workspace import GOAL, GOAL_ID, LESSONS, OWNER, sample_workspace
from app.errors import ServiceError
from app.jobs.ari import (
    AggregateSnapshotsParams,
    AggregateSnapshotsResult,
    AnalyzeTrendsParams,
    AnalyzeTrendsResult,
    aggregate_snapshots,
    analyze_trends,
)
from app.jobs.catalogue import AnyJobType
from app.jobs.edm import BatchAnalysisParams, BatchAnalysisResult, batch_analysis
from app.jobs.ffe import PlanGoalParams, PlanGoalResult, plan_goal
from app.jobs.fields import Params, Result
from app.jobs.maintenance import ArchiveAuditLogsParams, ArchiveAuditLogsResult, archive_audit_logs
from app.jobs.model import FinetuneParams, FinetuneResult, finetune
from app.jobs.status import Status

JOBS_S = 60.0  # mostly what a slow disk needs to load SciPy for the first time
LOOKBACK_DAYS: Final = DAYS + 1  # the sample data end on a whole day, the window of the jobs ends now

_ALL_USERS = "all sample users"

R = TypeVar("R", bound=Result)


async def store_samples(client: Client, *, seed: int, last_day: date) -> dict[str, int]:
    """Store the sample workspace and return how many records of each kind it has."""
    workspace = {
        "ari-snapshots": list(sample_snapshots(seed=seed, last_day=last_day)),
        **sample_workspace(seed=seed, last_day=last_day),
    }
    return {kind: await client.store_records(kind, to_ndjson(records)) for kind, records in workspace.items()}


async def work_on_samples(client: Client, board: Board) -> Findings:
    """Submit every job of the demo, and follow them together to their ends."""
    try:
        async with asyncio.timeout(JOBS_S), asyncio.TaskGroup() as group:
            analyses = [group.create_task(_analyze(client, board, scenario)) for scenario in SCENARIOS]
            aggregation = group.create_task(_aggregate(client, board))
            plan = group.create_task(_plan(client, board))
            debts = group.create_task(_find_debts(client, board))
            archiving = group.create_task(_archive(client, board))
            lessons = group.create_task(_teach(client, board))
    except TimeoutError as error:
        raise ServiceError(f"The jobs did not end within {JOBS_S:.0f} seconds.") from error
    return Findings(
        analyses=tuple(task.result() for task in analyses),
        aggregation=aggregation.result(),
        plan=plan.result(),
        debts=debts.result(),
        lessons=lessons.result(),
        archiving=archiving.result(),
    )


async def _analyze(client: Client, board: Board, scenario: Scenario) -> Analysis:
    params = AnalyzeTrendsParams(user_id=scenario.user_id, lookback_days=LOOKBACK_DAYS)
    end = await _see_through(client, board, scenario.user_id, analyze_trends, params)
    return Analysis(
        user_id=scenario.user_id,
        story=scenario.story,
        put_in=put_in(scenario),
        **_ending(end),
        result=_result(AnalyzeTrendsResult, end),
    )


async def _aggregate(client: Client, board: Board) -> Aggregation:
    params = AggregateSnapshotsParams(time_window_hours=24 * LOOKBACK_DAYS)
    end = await _see_through(client, board, _ALL_USERS, aggregate_snapshots, params)
    return Aggregation(
        **_ending(end),
        result=_result(AggregateSnapshotsResult, end),
    )


async def _plan(client: Client, board: Board) -> Plan:
    params = PlanGoalParams(goal_id=GOAL_ID, user_id=OWNER, goal_description=GOAL)
    end = await _see_through(client, board, "a goal's plan", plan_goal, params)
    return Plan(**_ending(end), result=_result(PlanGoalResult, end))


async def _find_debts(client: Client, board: Board) -> DebtReport:
    params = BatchAnalysisParams(user_id=OWNER, time_window_days=LOOKBACK_DAYS)
    end = await _see_through(client, board, "epistemic debts", batch_analysis, params)
    return DebtReport(**_ending(end), result=_result(BatchAnalysisResult, end))


async def _archive(client: Client, board: Board) -> Archiving:
    end = await _see_through(client, board, "an archive", archive_audit_logs, ArchiveAuditLogsParams())
    return Archiving(**_ending(end), result=_result(ArchiveAuditLogsResult, end))


async def _teach(client: Client, board: Board) -> tuple[Lesson, ...]:
    """Train one version after the other, each on more examples."""
    lessons = []
    for count in LESSONS:
        params = FinetuneParams(user_id=OWNER, model_name="kneser-ney", training_samples=count)
        end = await _see_through(client, board, f"a model, {count} texts", finetune, params)
        lessons.append(Lesson(**_ending(end), examples=count, result=_result(FinetuneResult, end)))
    return tuple(lessons)


async def _see_through(client: Client, board: Board, label: str, job_type: AnyJobType, params: Params) -> TaskView:
    """Submit a task by the route of its type, show every change of it, and return it as it ended."""
    task = await client.submit(job_type.route, params.model_dump(mode="json"))
    async for event in client.follow(task.task_id):
        if (seen := event.task) is not None:
            task = seen
            board.show(label, task)
    return task


def _ending(end: TaskView) -> dict[str, Any]:
    return {"task_id": end.task_id, "status": end.status, "error_message": end.error_message}


def _result(model: type[R], end: TaskView) -> R | None:
    return model.model_validate(end.result) if end.status is Status.COMPLETED else None
