"""The job types that chaos runs: each writes its begin and its end into the ledger."""

from app.jobs.contract import Family, JobType, RetryPolicy, TaskType
from app.jobs.fields import Integer, Number, Params, Result

QUEUES = ("chaos_near", "chaos_far")


class StepParams(Params):
    """What one step does."""

    mark: str
    wait_s: Number = 0.0
    first_wait_s: Number = 0.0
    block_s: Number = 0.0
    fail_times: Integer = 0


class StepResult(Result):
    """Which attempt of which step this is the result of."""

    mark: str
    attempt: int


def _step(name: str, queue: str) -> JobType[StepParams, StepResult]:
    return JobType(
        kind=f"chaos.{name}",
        summary="Wait a little, and write down that it ran.",
        params=StepParams,
        result=StepResult,
        queue=queue,
        task_type=TaskType.SYSTEM,
        retry=RetryPolicy(max_retries=3, base_s=0.1, max_s=0.5),
    )


near, far = _step("near", QUEUES[0]), _step("far", QUEUES[1])
FAMILY = Family(name="chaos", summary="Steps whose history is checked.", job_types=(near, far))
