"""What a webhook is told, byte for byte the same at every try, and its signatures."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from standardwebhooks import Webhook as Signer

from app.api.schemas import task_of
from app.clock import iso
from app.history.deliveries import Delivery
from app.history.rows import Job

MAX_RESULT = 256 * 1024  # bytes of JSON; a larger result is left out, and is_result_omitted says so


def body_of(delivery: Delivery, job: Job | None) -> bytes:
    """Write an event: of a task as the API shows it to its owner, or a test without one."""
    content: dict[str, Any] = {"webhook_id": delivery.webhook_id} if job is None else _task(job)
    event = {
        "id": delivery.id,
        "type": delivery.event,
        "timestamp": iso(delivery.created_at),
        "data": content,
    }
    return to_json(event)


def headers_of(delivery: Delivery, body: bytes, *, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with a signature by each secret, the newest first."""
    signatures = [Signer(secret).sign(delivery.id, now, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "asyncjobs-webhooks",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _task(job: Job) -> dict[str, Any]:
    task = task_of(job)
    is_too_long = len(to_json(task.result)) > MAX_RESULT
    shown = task.model_dump(mode="json")
    return shown | {"is_result_omitted": is_too_long} | ({"result": None} if is_too_long else {})
