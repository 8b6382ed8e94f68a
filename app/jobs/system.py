"""The system family: two job types for trying the service out, and the service's own health check."""

from typing import Annotated

from pydantic import Field, JsonValue

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

FAMILY = Family(
    name="system",
    summary="Trying the service out, and watching over it.",
    job_types=(echo, flaky, health_check),
)
