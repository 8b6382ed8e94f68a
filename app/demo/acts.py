"""What the demo does with the service: store sample data, submit, follow, collect. Inside the demo alone."""

import asyncio
from datetime import date
from typing import Final, TypeVar

from app.demo.board import Board
from app.demo.client import Client, View
from app.demo.report import Aggregation, Analysis, put_in
from app.demo.samples import DAYS, SCENARIOS, Scenario, sample_snapshots, to_ndjson
from app.errors import ServiceError
from app.jobs.ari import (
    AggregateSnapshotsParams,
    AggregateSnapshotsResult,
    AnalyzeTrendsParams,
    AnalyzeTrendsResult,
    aggregate_snapshots,
    analyze_trends,
)
from app.jobs.fields import Result
from app.jobs.status import Status

JOBS_S = 60.0  # mostly what a slow disk needs to load SciPy for the first time
LOOKBACK_DAYS: Final = DAYS + 1  # the sample data end on a whole day, the window of the jobs ends now

_ALL_USERS = "all sample users"

R = TypeVar("R", bound=Result)


async def store_samples(client: Client, *, seed: int, last_day: date) -> int:
    """Store the sample workspace and return how many snapshots it has."""
    return await client.store_snapshots(to_ndjson(sample_snapshots(seed=seed, last_day=last_day)))


async def analyze_samples(client: Client, board: Board) -> tuple[tuple[Analysis, ...], Aggregation]:
    """Submit an analysis for each sample user and one summary over all; follow them together to their ends."""
    try:
        async with asyncio.timeout(JOBS_S), asyncio.TaskGroup() as group:
            analyses = [group.create_task(_analyze(client, board, scenario)) for scenario in SCENARIOS]
            aggregation = group.create_task(_aggregate(client, board))
    except TimeoutError as error:
        raise ServiceError(f"The jobs did not end within {JOBS_S:.0f} seconds.") from error
    return tuple(task.result() for task in analyses), aggregation.result()


async def _analyze(client: Client, board: Board, scenario: Scenario) -> Analysis:
    params = AnalyzeTrendsParams(user_id=scenario.user_id, lookback_days=LOOKBACK_DAYS)
    task_id = await client.submit(analyze_trends, params)
    end = await client.follow(task_id, lambda view: board.show(scenario.user_id, view))
    return Analysis(
        user_id=scenario.user_id,
        story=scenario.story,
        put_in=put_in(scenario),
        task_id=task_id,
        status=end.status,
        error_message=end.error_message,
        result=_result(AnalyzeTrendsResult, end),
    )


async def _aggregate(client: Client, board: Board) -> Aggregation:
    task_id = await client.submit(aggregate_snapshots, AggregateSnapshotsParams(time_window_hours=24 * LOOKBACK_DAYS))
    end = await client.follow(task_id, lambda view: board.show(_ALL_USERS, view))
    return Aggregation(
        task_id=task_id,
        status=end.status,
        error_message=end.error_message,
        result=_result(AggregateSnapshotsResult, end),
    )


def _result(model: type[R], end: View) -> R | None:
    return model.model_validate(end.result) if end.status is Status.COMPLETED else None
