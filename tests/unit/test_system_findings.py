"""The thresholds of the queue monitor: what is wrong, and what only just is not."""

from datetime import UTC, datetime, timedelta

import pytest

from app.history.figures import LongRunning
from app.jobs.status import Status
from app.jobs.system import AlertName, DiskCheck, MemoryCheck, MonitoredQueue
from workers.families.system.findings import failures, long_jobs, long_queues, shortages, unserved_queues

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def queue(*, ready: int = 0, consumers: int = 1) -> MonitoredQueue:
    return MonitoredQueue(
        ready=ready, scheduled=0, running=0, consumers=consumers, paused=False, oldest_ready_age_s=None
    )


@pytest.mark.parametrize(("ready", "expected"), [(1000, []), (1001, ["long"])])
def test_a_queue_is_too_long_beyond_a_thousand(ready: int, expected: list[str]) -> None:
    assert [finding.subject for finding in long_queues({"long": queue(ready=ready)})] == expected


def test_a_queue_that_nobody_serves_is_wrong_only_while_tasks_are_ready_in_it() -> None:
    queues = {"idle": queue(consumers=0), "left": queue(ready=3, consumers=0), "served": queue(ready=3)}

    assert [finding.subject for finding in unserved_queues(queues, workers=1)] == ["left"]


def test_without_any_worker_one_alert_says_so_for_all_queues() -> None:
    queues = {"left": queue(ready=3, consumers=0), "other": queue(ready=3, consumers=0)}

    assert [finding.subject for finding in unserved_queues(queues, workers=0)] == ["all"]


def test_a_kind_that_runs_for_long_is_named_with_the_minutes_of_the_longest() -> None:
    (finding,) = long_jobs([LongRunning(kind="a.b", count=2, started_at=NOW - timedelta(minutes=45))], NOW)

    assert (finding.name, finding.subject, finding.value) == (AlertName.RUNNING_TOO_LONG, "a.b", 45)


@pytest.mark.parametrize(
    ("failed", "completed", "expected"),
    [(0, 0, []), (1, 9, []), (2, 17, [0.1053]), (2, 8, [0.2]), (2, 7, []), (9, 0, []), (10, 0, [1.0]), (0, 99, [])],
)
def test_more_than_a_tenth_of_failures_is_wrong_once_ten_tasks_have_ended(
    failed: int, completed: int, expected: list[float]
) -> None:
    groups = [{Status.FAILED: failed}, {Status.COMPLETED: completed, Status.CANCELLED: 100}]

    assert [finding.value for finding in failures(groups)] == expected


@pytest.mark.parametrize(
    ("free", "used", "expected"),
    [(10.0, 90.0, []), (9.9, 90.0, [AlertName.DISK_LOW]), (50.0, 90.1, [AlertName.MEMORY_HIGH])],
)
def test_disk_and_memory_are_wrong_beyond_their_limits(free: float, used: float, expected: list[AlertName]) -> None:
    disk = DiskCheck(status="ok", free_gb=1, percent_free=free)
    memory = MemoryCheck(status="ok", used_gb=1, percent_used=used)

    assert [finding.name for finding in shortages(disk, memory)] == expected
