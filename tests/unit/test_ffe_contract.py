"""What the FFE family promises, and what it takes in."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import InvalidInput, Misconfigured
from app.jobs.catalogue import load_catalogue
from app.jobs.contract import LIGHT, Limits
from app.jobs.ffe import BlockSize, Complexity, GoalStatus, PlanGoalParams, PlanGoalResult, plan_goal, track_progress
from app.records.ffe_blocks import FFE_BLOCKS
from app.records.ffe_goals import FFE_GOALS
from app.records.ingest import parse_records
from app.settings import Settings, read_settings

PARAMS: dict[str, Any] = {"goal_id": "g", "user_id": "u", "goal_description": "Learn to swim"}
BLOCK = (
    '{"block_id": "b", "user_id": "u", "goal_id": "g", "index": 1, "title": "T", "done_criterion": "C",'
    ' "size": "small", "estimated_minutes": %s, "depends_on": ["a"],'
    ' "completed_at": "2026-06-01T09:00:00Z", "actual_minutes": 25}'
)


@pytest.mark.parametrize(("name", "job_type"), [("plan_ffe_goal", plan_goal), ("track_ffe_progress", track_progress)])
def test_a_job_type_is_found_by_the_names_of_older_clients(name: str, job_type: object) -> None:
    catalogue = load_catalogue()

    for alias in (name, f"ai_pal.tasks.ffe_tasks.{name}", f"backend.app.tasks.{name}"):
        assert catalogue.find(alias) is job_type


def test_planning_may_take_longer_than_tracking() -> None:
    assert (plan_goal.limits, plan_goal.retry.max_retries, plan_goal.retry.base_s) == (Limits(), 3, 60)
    assert (track_progress.limits, track_progress.retry.max_retries, track_progress.retry.base_s) == (LIGHT, 2, 30)
    assert {plan_goal.queue, track_progress.queue} == {"ffe_planning"}


def test_a_goal_is_of_medium_complexity_unless_told() -> None:
    assert PlanGoalParams(**PARAMS).complexity_level is Complexity.MEDIUM


@pytest.mark.parametrize(
    "wrong",
    [
        {"complexity_level": "huge"},
        {"goal_description": "ab"},
        {"goal_description": "x" * 1001},
        {"goal_id": ""},
        {"user_id": None},
        {"deadline": "2026-06-01"},
    ],
)
def test_params_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlanGoalParams(**PARAMS | wrong)


def test_a_plan_has_the_keys_that_clients_know() -> None:
    known = {
        "goal_id", "user_id", "status", "complexity_level", "atomic_blocks_count", "atomic_blocks",
        "total_estimated_minutes", "critical_path", "estimates", "planning_timestamp",
    }  # fmt: skip

    assert known <= PlanGoalResult.model_fields.keys()


def test_a_goal_needs_an_id_a_user_and_a_description_alone() -> None:
    [goal] = parse_records(FFE_GOALS, b'[{"goal_id": "g", "user_id": "u", "description": "Learn to swim"}]')

    assert (goal.importance, goal.complexity, goal.status) == (5, Complexity.MEDIUM, GoalStatus.ACTIVE)
    assert goal.timestamp.tzinfo is UTC
    assert (goal.deadline, goal.parent) == (None, None)


def test_a_block_is_finished_by_ordinary_fields_of_its_upsert() -> None:
    [block] = parse_records(FFE_BLOCKS, f"[{BLOCK % 30}]".encode())

    assert (block.completed_at, block.actual_minutes) == (datetime(2026, 6, 1, 9, tzinfo=UTC), 25)
    assert (block.size, block.depends_on, block.path) == (BlockSize.SMALL, ("a",), None)


@pytest.mark.parametrize("minutes", [14, 91])
def test_a_block_outside_15_to_90_minutes_is_refused(minutes: int) -> None:
    with pytest.raises(InvalidInput):
        parse_records(FFE_BLOCKS, f"[{BLOCK % minutes}]".encode())


@pytest.mark.parametrize(
    "url", ["ftp://planner.example", "file:///etc/hosts", "planner.example/v1", "http://me:pw@planner.example/v1"]
)
def test_the_address_of_a_planner_is_http_and_holds_no_password(url: str) -> None:
    given = Settings(planner_url="https://planner.example/v1/", planner_model="m")
    assert given.planner_url == "https://planner.example/v1"

    with pytest.raises(ValidationError, match="PLANNER_URL is http"):
        Settings(planner_url=url)


@pytest.mark.parametrize("model", ["", "  "])
def test_a_planner_without_a_model_is_refused_at_the_start_by_the_setting_that_is_missing(model: str) -> None:
    with pytest.raises(Misconfigured, match=r"^PLANNER_MODEL: .*PLANNER_URL is set.* See \.env\.example"):
        read_settings(planner_url="https://planner.example/v1", planner_model=model)

    assert read_settings(planner_url="", planner_model=model).planner_model == ""
