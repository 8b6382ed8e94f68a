"""How a job is shown as a task."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_core import to_json

from app.api.schemas import State, acceptance_json, answered_task_of, fresh_job, state_of, task_of
from app.history.rows import Failure, Job
from app.jobs.status import Status
from app.live.progress import Progress
from tests.support.house import OOPS, new_job

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(**changes: Any) -> Job:
    plain = fresh_job(new_job())
    fields = {name: getattr(plain, name) for name in Job.__dataclass_fields__}
    return Job(**fields | changes)


@pytest.mark.parametrize(
    ("status", "attempts", "progress", "state"),
    [
        (Status.PENDING, 0, 0, State.PENDING),
        (Status.PENDING, 1, 0, State.RETRY),
        (Status.RUNNING, 1, 0, State.STARTED),
        (Status.RUNNING, 1, 0.5, State.PROGRESS),
        (Status.COMPLETED, 1, 100, State.SUCCESS),
        (Status.FAILED, 1, 0, State.FAILURE),
        (Status.CANCELLED, 0, 0, State.REVOKED),
    ],
)
def test_every_status_has_its_classic_word(status: Status, attempts: int, progress: float, state: State) -> None:
    assert state_of(status, attempts=attempts, progress=progress) is state


def test_a_new_task_waits_untried() -> None:
    task = task_of(fresh_job(new_job()))

    assert (task.status, task.state, task.attempts, task.ready, task.successful) == (
        "pending",
        "PENDING",
        0,
        False,
        False,
    )
    assert (task.next_attempt_at, task.duration_seconds) == (None, None)


def test_the_live_progress_of_a_running_task_is_shown() -> None:
    running = job(status=Status.RUNNING, attempts=2, started_at=NOON)

    task = task_of(running, progress=Progress(attempt=2, percent=40, message="counting", stage="count"))

    assert (task.progress, task.progress_message, task.stage, task.state) == (40, "counting", "count", "PROGRESS")


def test_progress_of_an_earlier_attempt_is_not_shown() -> None:
    running = job(status=Status.RUNNING, attempts=2, started_at=NOON)

    task = task_of(running, progress=Progress(attempt=1, percent=40, message="counting", stage="count"))

    assert (task.progress, task.progress_message, task.state) == (0, None, "STARTED")


def test_a_task_that_waits_for_a_retry_says_when() -> None:
    task = task_of(job(attempts=1, failures=1, due_at=NOON, started_at=NOON, error=OOPS))

    assert (task.state, task.next_attempt_at, task.retry_count, task.error_message) == ("RETRY", NOON, 1, "oops")


def test_the_last_failure_of_a_failed_task_was_not_retried() -> None:
    task = task_of(job(status=Status.FAILED, attempts=3, failures=3, completed_at=NOON, error=OOPS))

    assert (task.failures, task.retry_count) == (3, 2)


def test_a_traceback_is_for_administrators_only() -> None:
    failed = job(status=Status.FAILED, attempts=1, failures=1, completed_at=NOON, error=OOPS)

    assert task_of(failed).error_traceback is None
    assert task_of(failed, for_admin=True).error_traceback == OOPS.traceback


def test_an_ended_task_says_how_long_it_ran() -> None:
    ended = job(status=Status.COMPLETED, attempts=1, started_at=NOON, completed_at=NOON + timedelta(seconds=1.5))

    assert (task_of(ended).duration_seconds, task_of(ended).progress) == (1.5, 100)


@pytest.mark.parametrize(
    ("status", "may_cancel", "may_retry"),
    [
        (Status.PENDING, True, False),
        (Status.RUNNING, True, False),
        (Status.COMPLETED, False, False),
        (Status.FAILED, False, True),
        (Status.CANCELLED, False, True),
    ],
)
def test_the_links_lead_only_where_one_can_go(status: Status, may_cancel: bool, may_retry: bool) -> None:
    links = task_of(job(status=status)).links

    assert (links.cancel is not None, links.retry is not None) == (may_cancel, may_retry)


def test_times_are_written_in_utc_with_a_z() -> None:
    failure = Failure(code="unknown", type="ValueError", message="oops")
    text = task_of(job(status=Status.FAILED, completed_at=NOON, error=failure)).model_dump_json()

    assert '"completed_at":"2026-01-01T12:00:00Z"' in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"user_id": "ada", "priority": 9, "params": {"text": "Grüße", "at": 1.5, "none": None, "list": [1, "2"]}},
        {"scheduled_for": NOON + timedelta(microseconds=120), "unique_key": "only", "max_retries": 0},
        {"created_at": NOON, "retried_from": "before"},
    ],
)
def test_the_answer_to_a_submit_is_that_of_its_row(changes: dict[str, Any]) -> None:
    accepted = new_job(**changes)

    written = acceptance_json(accepted, "It was accepted.")

    assert written == to_json(answered_task_of(fresh_job(accepted), "It was accepted."))
