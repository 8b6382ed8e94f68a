"""The system family: two job types for trying the service out, and three by which it watches itself."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue

from app.jobs.bulk import bulk
from app.jobs.contract import LIGHT, LONG, Family, JobType, RetryPolicy, TaskType
from app.jobs.fields import Integer, Model, Moment, Number, Params, Result


class EchoParams(Params):
    """Wait in steps, then give the payload back."""

    wait_seconds: Annotated[Number, Field(ge=0, le=3600)] = 0
    """How long the whole job takes, in seconds."""
    steps: Annotated[Integer, Field(ge=1, le=1000)] = 10
    """In how many steps it waits; progress is reported after each."""
    payload: JsonValue = None
    """Anything; it comes back in the result."""


class EchoResult(Result):
    """What came back."""

    waited_seconds: float
    payload: JsonValue
    attempt: int


class FlakyParams(Params):
    """Fail on purpose, then succeed."""

    fail_times: Annotated[Integer, Field(ge=0, le=100)] = 2
    """How many attempts fail before one succeeds."""


class FlakyResult(Result):
    """Which attempt succeeded."""

    attempt: int


class HealthCheckParams(Params):
    """Takes nothing."""


class StoreCheck(Model):
    """Whether a store answers, and how fast."""

    status: str
    """``ok`` or ``failed``."""
    latency_ms: float | None = None
    """Round trip of one trivial question, in milliseconds; null when it failed."""
    detail: str | None = None
    """What went wrong, when something did."""


class DiskCheck(Model):
    """Room on the disk that holds the data directory."""

    status: str
    """``ok``, or ``low`` under 10 % free."""
    free_gb: float
    percent_free: float


class MemoryCheck(Model):
    """Memory of the machine the check ran on."""

    status: str
    """``ok``, or ``high`` over 90 % used."""
    used_gb: float
    percent_used: float


class WorkersCheck(Model):
    """Workers that reported within the last lease."""

    status: str
    """``ok``, or ``none``."""
    alive: int


class HealthChecks(Model):
    """One entry per part of the installation."""

    redis: StoreCheck
    database: StoreCheck
    disk: DiskCheck
    memory: MemoryCheck
    workers: WorkersCheck


class HealthCheckResult(Result):
    """How the installation is doing, as seen by one worker."""

    timestamp: Moment
    healthy: bool
    """Whether every check is ``ok``."""
    checks: HealthChecks


def _day(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("a day is a text such as 2026-11-22, not a number")
    return value


Day = Annotated[date, BeforeValidator(_day)]


class DailyMetricsParams(Params):
    """Count one day."""

    date: Day | None = None
    """Which day, in UTC; by default the last one that is over."""


class TaskCounts(Model):
    """How many tasks ended, and how."""

    total: int = 0
    """All that ended."""
    completed: int = 0
    """Those with a result."""
    failed: int = 0
    """Those with an error."""
    cancelled: int = 0
    """Those that somebody cancelled."""
    success_rate: float | None = None
    """Completed out of completed and failed, 0–1; null when there were none."""


class Percentiles(Model):
    """A distribution in seconds; null when there is nothing to tell of."""

    p50: float | None = None
    """Half took no longer."""
    p95: float | None = None
    """95 % took no longer."""
    p99: float | None = None
    """99 % took no longer."""


class ErrorCounts(Model):
    """How many tasks failed."""

    total: int = 0
    """All of them."""
    error_rate: float | None = None
    """Failed out of completed and failed, 0–1; null when there were none."""
    by_code: dict[str, int] = {}
    """By the code of their error."""


class UserCounts(Model):
    """Who used the service."""

    unique_active: int = 0
    """Different users who submitted a task on that day."""


class Metrics(Model):
    """What happened in one day, by when tasks ended."""

    tasks: TaskCounts
    """All queues together."""
    by_queue: dict[str, TaskCounts]
    """Each queue in which tasks ended."""
    durations: Percentiles
    """How long completed tasks ran."""
    waits: Percentiles
    """How long tasks were due before they ran."""
    errors: ErrorCounts
    """What failed."""
    users: UserCounts
    """Who submitted."""


class DailyMetricsResult(Result):
    """The figures of one day, from the history."""

    date: Day
    """Which day, in UTC."""
    generated_at: Moment
    """When they were counted."""
    metrics: Metrics
    """The figures."""


class MonitorQueuesParams(Params):
    """Takes nothing."""


class AlertName(StrEnum):
    """What the monitor looks for."""

    QUEUE_TOO_LONG = "queue_too_long"
    """More than 1,000 tasks of a queue could start now."""
    RUNNING_TOO_LONG = "running_too_long"
    """A task has run for more than 30 minutes."""
    NO_WORKER = "no_worker"
    """Nobody serves a queue in which tasks are ready, or there is no worker at all."""
    DISK_LOW = "disk_low"
    """Less than 10 % of the disk is free."""
    MEMORY_HIGH = "memory_high"
    """More than 90 % of the memory is used."""
    FAILURE_RATE = "failure_rate"
    """More than 10 % of what ended in the last 15 minutes failed."""


class AlertSeverity(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    """Somebody should look."""
    CRITICAL = "critical"
    """Somebody should look now."""


class MonitoredQueue(Model):
    """One queue as the monitor saw it."""

    ready: int
    """Tasks that could start."""
    scheduled: int
    """Tasks that wait for a time."""
    running: int
    """Tasks that run."""
    consumers: int
    """Live workers that serve it."""
    paused: bool
    """Whether nothing is taken from it at present."""
    oldest_ready_age_s: float | None
    """How long the oldest ready task has waited, in seconds; null when none is ready."""


class MonitorAlert(Model):
    """One thing that is wrong now; the record ``alerts`` of the same id keeps it."""

    alert_id: str
    """The id of the record."""
    name: AlertName
    """What is wrong."""
    subject: str
    """With what."""
    severity: AlertSeverity
    """How bad it is."""
    message: str
    """What is wrong, in words."""
    value: float
    """The figure now."""
    threshold: float
    """The figure beyond which it is wrong."""
    raised_at: Moment
    """Since when."""
    occurrences: int
    """How often it was seen by now; 1 is new."""


class MonitorQueuesResult(Result):
    """How the queues are doing."""

    timestamp: Moment
    """When the job started."""
    queues: dict[str, MonitoredQueue]
    """Every queue by name."""
    alerts: tuple[MonitorAlert, ...]
    """What is wrong now, each thing once."""
    healthy: bool
    """Whether nothing is."""


_QUICK_RETRY = RetryPolicy(max_retries=3, base_s=1.0)

echo = JobType(
    kind="system.echo",
    summary="Wait in steps with progress, then return the payload: for trying the service out.",
    params=EchoParams,
    result=EchoResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=_QUICK_RETRY,
    limits=LONG,
    aliases=("test_task", "backend.app.tasks.test_task"),
)
flaky = JobType(
    kind="system.flaky",
    summary="Fail a given number of attempts, then succeed: for watching retries.",
    params=FlakyParams,
    result=FlakyResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=_QUICK_RETRY,
    limits=LONG,
    aliases=("test_retry_task", "backend.app.tasks.test_retry_task"),
)
health_check = JobType(
    kind="system.health_check",
    summary="Check Redis, the database, disk, memory and workers.",
    params=HealthCheckParams,
    result=HealthCheckResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=RetryPolicy(max_retries=1, base_s=30.0),
    limits=LIGHT,
    aliases=("health_check", "backend.app.tasks.health_check"),
    is_admin_only=True,
)
daily_metrics = JobType(
    kind="system.daily_metrics",
    summary="Count what ended in one day: outcomes, durations, waits, errors, users.",
    params=DailyMetricsParams,
    result=DailyMetricsResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=RetryPolicy(max_retries=1, base_s=30.0),
    limits=LIGHT,
    aliases=("generate_daily_metrics", "daily_metrics", "backend.app.tasks.generate_daily_metrics"),
    is_admin_only=True,
)
monitor_queues = JobType(
    kind="system.monitor_queues",
    summary="Look at queues, workers, disk and memory, and raise an alert for each thing that is wrong.",
    params=MonitorQueuesParams,
    result=MonitorQueuesResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=RetryPolicy(max_retries=1, base_s=30.0),
    limits=LIGHT,
    aliases=("monitor_task_queue", "monitor_queues", "backend.app.tasks.monitor_task_queue"),
    is_admin_only=True,
)

FAMILY = Family(
    name="system",
    summary="Trying the service out, and watching over it.",
    job_types=(echo, flaky, health_check, daily_metrics, monitor_queues, bulk),
)
