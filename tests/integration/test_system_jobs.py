"""The system jobs on real stores: what a day was like, and what is wrong now."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import utc_now
from app.history.figures import Stretch, count_by_queue
from app.history.retention import delete_ended
from app.history.rows import NewJob
from app.history.tables import jobs
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.jobs.system import (
    AlertName,
    DailyMetricsParams,
    DailyMetricsResult,
    MonitorQueuesParams,
    MonitorQueuesResult,
    Percentiles,
    TaskCounts,
)
from app.live.workers import beat
from app.orders import Order
from app.records.alerts import ALERTS, Alert
from app.settings import Settings
from tests.integration.test_reader import plan_of
from tests.support.house import new_job
from tests.support.run import NOW, context_of
from tests.support.workers import heartbeat
from tests.support.workplace import drain, make_worker, row
from workers.families.system import daily_metrics, monitor, monitor_queues
from workers.settings import worker_settings

pytestmark = pytest.mark.databases("sqlite", "postgresql")

DAY = date(2026, 5, 31)  # the day before NOW
NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings) as installation:
        yield installation


async def insert(
    house: Installation, status: Status, *, at: datetime = NOON, ran_s: float = 1, waited_s: float = 0, **changes: Any
) -> NewJob:
    """Store a job that ended at a time, after it had waited and run for so long."""
    started = at - timedelta(seconds=ran_s)
    due = started - timedelta(seconds=waited_s)
    job = new_job(created_at=due, due_at=due, **changes)
    await house.lifecycle._writer.accept([job])
    values: dict[str, Any] = {"status": status, "started_at": started, "completed_at": at if status.is_final else None}
    if status is Status.FAILED:
        values |= {"error_code": "timeout"}
    async with house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(values))
    return job


async def measure(house: Installation, **params: Any) -> DailyMetricsResult:
    return await daily_metrics(context_of(house), DailyMetricsParams(**params))


# --- daily metrics -----------------------------------------------------------------------------


async def test_a_day_is_counted_by_outcome_and_queue(house: Installation) -> None:
    for status, queue in [
        (Status.COMPLETED, "alpha"),
        (Status.COMPLETED, "alpha"),
        (Status.FAILED, "alpha"),
        (Status.COMPLETED, "beta"),
        (Status.CANCELLED, "beta"),
    ]:
        await insert(house, status, queue=queue)

    result = await measure(house)

    metrics = result.metrics
    assert result.date == DAY
    assert metrics.tasks == TaskCounts(total=5, completed=3, failed=1, cancelled=1, success_rate=0.75)
    assert metrics.by_queue["beta"] == TaskCounts(total=2, completed=1, cancelled=1, success_rate=1.0)
    assert (metrics.errors.total, metrics.errors.error_rate, metrics.errors.by_code) == (1, 0.25, {"timeout": 1})


async def test_a_day_without_tasks_has_zeros_and_nulls(house: Installation) -> None:
    metrics = (await measure(house)).metrics

    assert metrics.tasks == TaskCounts(total=0, success_rate=None)
    assert (metrics.durations, metrics.waits, metrics.by_queue) == (Percentiles(), Percentiles(), {})
    assert (metrics.errors.total, metrics.errors.error_rate, metrics.users.unique_active) == (0, None, 0)


async def test_only_what_ended_between_two_midnights_counts(house: Installation) -> None:
    midnight = datetime(2026, 5, 31, tzinfo=UTC)
    for at in (midnight - timedelta(milliseconds=1), midnight, midnight + timedelta(days=1)):
        await insert(house, Status.COMPLETED, at=at)

    assert (await measure(house)).metrics.tasks.total == 1
    assert (await measure(house, date=date(2026, 5, 30))).metrics.tasks.total == 1


async def test_durations_and_waits_are_interpolated_percentiles_of_seconds(house: Installation) -> None:
    for number in range(1, 101):
        await insert(house, Status.COMPLETED, ran_s=number, waited_s=number / 10)
    await insert(house, Status.FAILED, ran_s=5000, waited_s=0)  # a failure is no duration

    metrics = (await measure(house)).metrics

    assert (metrics.durations.p50, metrics.durations.p95, metrics.durations.p99) == (50.5, 95.05, 99.01)
    assert metrics.waits.p50 == pytest.approx(5.0)


async def test_users_are_those_who_submitted_and_the_clock_is_none(house: Installation) -> None:
    for owner in ("ada", "ada", "bob"):
        await insert(house, Status.COMPLETED, submitted_by=owner)
    await insert(house, Status.COMPLETED, submitted_by="cron", schedule="hourly", tick_at=NOON)

    assert (await measure(house)).metrics.users.unique_active == 2


# --- the monitor -------------------------------------------------------------------------------


async def look(house: Installation, now: datetime = NOW) -> MonitorQueuesResult:
    return await monitor_queues(context_of(house, now=now), MonitorQueuesParams())


async def alerts(house: Installation) -> list[Alert]:
    return (await house.records.page(ALERTS)).records


@pytest.fixture
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the disk and the memory of the machine that runs the tests out of it."""
    monkeypatch.setattr(monitor, "shortages", lambda *_: ())


@pytest.mark.usefixtures("_quiet_machine")
async def test_with_a_worker_and_nothing_wrong_all_is_healthy(house: Installation) -> None:
    await beat(house.redis, heartbeat("w1"))

    result = await look(house)

    assert result.healthy
    assert result.alerts == ()
    assert set(result.queues) == set(house.catalogue.queues)
    assert await alerts(house) == []


@pytest.mark.usefixtures("_quiet_machine")
async def test_what_stays_wrong_is_one_alert_that_counts_how_often_it_was_seen(house: Installation) -> None:
    first = await look(house)
    second = await look(house, NOW + timedelta(minutes=1))

    (stored,) = await alerts(house)
    assert [alert.name for alert in first.alerts] == [AlertName.NO_WORKER]
    assert not second.healthy
    assert second.alerts[0].alert_id == first.alerts[0].alert_id == stored.alert_id
    assert (stored.occurrences, stored.raised_at, stored.last_seen_at) == (2, NOW, NOW + timedelta(minutes=1))


@pytest.mark.usefixtures("_quiet_machine")
async def test_what_is_over_is_resolved_and_when_it_comes_again_it_is_a_new_alert(house: Installation) -> None:
    await look(house)
    await beat(house.redis, heartbeat("w1"))
    await look(house, NOW + timedelta(minutes=1))
    await house.redis.flushdb()
    await look(house, NOW + timedelta(minutes=2))

    newer, older = await alerts(house)
    assert (older.episode, older.resolved_at) == (1, NOW + timedelta(minutes=1))
    assert (newer.episode, newer.resolved_at, newer.occurrences) == (2, None, 1)


@pytest.mark.usefixtures("_quiet_machine")
async def test_a_job_that_runs_for_over_half_an_hour_raises_an_alert_for_its_kind(house: Installation) -> None:
    await beat(house.redis, heartbeat("w1"))
    await insert(house, Status.RUNNING, at=NOW, ran_s=31 * 60)
    await insert(house, Status.RUNNING, at=NOW, ran_s=29 * 60)

    (alert,) = (await look(house)).alerts

    assert (alert.name, alert.subject, alert.value) == (AlertName.RUNNING_TOO_LONG, "test.note", 31)


@pytest.mark.usefixtures("_quiet_machine")
async def test_failures_count_for_a_quarter_of_an_hour(house: Installation) -> None:
    await beat(house.redis, heartbeat("w1"))
    for status in [Status.FAILED, Status.COMPLETED] * 5:
        await insert(house, status, at=NOW - timedelta(minutes=14))

    soon = await look(house)
    later = await look(house, NOW + timedelta(minutes=2))

    assert [(alert.name, alert.value) for alert in soon.alerts] == [(AlertName.FAILURE_RATE, 0.5)]
    assert later.healthy


async def test_system_jobs_run_in_a_worker(house: Installation) -> None:
    served = worker_settings(house.catalogue, ["system"], ticks=False)
    types = [house.catalogue.find(name) for name in ("generate_daily_metrics", "monitor_task_queue", "health_check")]
    submitted = await house.lifecycle.submit(
        [Order(job_type=job_type, params=job_type.params(), owner="admin") for job_type in types]
    )

    await drain(make_worker(house, served.functions, queues=served.queues, burst=True))

    ended = [await row(house, job.id) for job in submitted]
    assert [job.status for job in ended] == [Status.COMPLETED] * 3, [job.error for job in ended]
    assert ended[0].result["date"] == (utc_now() - timedelta(days=1)).date().isoformat()
    assert ended[1].result["queues"]["default"]["consumers"] == 1


@pytest.mark.usefixtures("_quiet_machine")
async def test_two_monitors_at_once_keep_one_alert(house: Installation) -> None:
    await asyncio.gather(look(house), look(house))

    assert [(alert.name, alert.episode) for alert in await alerts(house)] == [(AlertName.NO_WORKER, 1)]


@pytest.mark.databases("sqlite")
async def test_the_figures_of_the_last_minutes_are_read_from_the_index_of_ends(house: Installation) -> None:
    plan = await plan_of(house.database, lambda: count_by_queue(house.database, Stretch(since=NOON, until=NOW)))

    assert "USING INDEX ix_background_tasks_ended (completed_at>? AND completed_at<?)" in plan[0]


@pytest.mark.databases("sqlite")
async def test_retention_finds_what_has_ended_in_the_index_of_ends_without_sorting(house: Installation) -> None:
    async def walk() -> list[int]:
        return [gone async for gone in delete_ended(house.database, Status.COMPLETED, NOW)]

    plan = await plan_of(house.database, walk)

    assert "USING INDEX ix_background_tasks_ended (completed_at<?)" in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan)
