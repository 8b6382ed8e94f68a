"""The webhook family: one job a delivery, made by the service itself in the transaction that ends another job."""

from enum import StrEnum

from app.jobs.contract import Family, JobType, Limits, RetryPolicy, TaskType
from app.jobs.fields import Identifier, Params, Result
from app.jobs.status import Status


class WebhookEvent(StrEnum):
    """What a webhook can tell of."""

    COMPLETED = "task.completed"
    """A task has a result."""
    FAILED = "task.failed"
    """A task failed for good."""
    CANCELLED = "task.cancelled"
    """A task was cancelled."""


TEST_EVENT = "webhook.test"

EVENT_OF = {
    Status.COMPLETED: WebhookEvent.COMPLETED,
    Status.FAILED: WebhookEvent.FAILED,
    Status.CANCELLED: WebhookEvent.CANCELLED,
}


class DeliverParams(Params):
    """Deliver one event to one webhook."""

    delivery_id: Identifier
    """The delivery, which its row describes; also the id of the message, the same at every try."""


class DeliverResult(Result):
    """How the receiver answered."""

    status_code: int
    """The HTTP status."""
    duration_seconds: float
    """How long the call took."""


deliver = JobType(
    kind="webhook.deliver",
    summary="Tell a webhook what became of a task.",
    params=DeliverParams,
    result=DeliverResult,
    queue="webhooks",
    task_type=TaskType.SYSTEM,
    retry=RetryPolicy(max_retries=7, base_s=120.0, max_s=7_680.0),  # eight tries within about 4½ hours
    limits=Limits(hard_s=60.0, soft_s=50.0),
    is_internal=True,
)

FAMILY = Family(name="webhook", summary="Telling others what became of their tasks.", job_types=(deliver,))
