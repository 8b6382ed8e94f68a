"""What is written for the stream without an object in between reads like any other event."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from app.announce import event_of, settled_event, started_event, submitted_event
from app.history.writer import Started
from app.jobs.status import Status
from app.live.events import Event, load_event
from tests.support.house import OOPS, ending, new_job

AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def started() -> Started:
    row = new_job(user_id="eve")
    shared = {name: getattr(row, name) for name in Started._fields if hasattr(row, name)}
    return Started(**shared, claim="mine", attempts=2, failures=1, interruptions=0, started_at=AT)


def told(event: Event) -> dict[str, Any]:
    return asdict(event) | {"at": AT}


def test_an_accepted_job_is_told_of_like_by_an_event() -> None:
    job = new_job(user_id="eve")

    event = load_event(submitted_event(job, AT))

    assert asdict(event) == told(event_of(job, "task.submitted", Status.PENDING))


def test_a_start_is_told_of_like_by_an_event() -> None:
    job = started()

    event = load_event(started_event(job, AT))

    assert asdict(event) == told(event_of(job, "task.started", Status.RUNNING, attempt=2))


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (Status.COMPLETED, "task.completed", None),
        (Status.FAILED, "task.failed", OOPS.message),
        (Status.PENDING, "task.retrying", OOPS.message),
    ],
)
def test_an_end_is_told_of_like_by_an_event(status: Status, name: str, error: str | None) -> None:
    job = started()
    settlement = ending(job, status, progress=70.0, progress_message="so far", stage="two")

    event = load_event(settled_event(job, settlement, AT))

    plain = event_of(job, name, status, attempt=2, progress=70.0, message="so far", stage="two", error=error)
    assert asdict(event) == told(plain)
