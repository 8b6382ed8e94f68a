"""The work of ``webhook.deliver``: one signed call, its place in the log, and what follows from the answer."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from app.clock import utc_now
from app.credentials.acts import Act, record_act
from app.credentials.webhooks import open_webhook_secrets
from app.errors import Discard, Retry
from app.history.deliveries import Delivery, Try, find_delivery, note_try
from app.history.webhooks import Webhook, disable_webhook, find_webhook, note_failure, note_success
from app.installation import Installation
from app.jobs import webhook
from app.jobs.webhook import DeliverParams, DeliverResult
from app.outbound import OutboundAnswer, OutboundFailed, OutboundRefused, open_outbound
from workers.context import Context
from workers.families import work
from workers.families.webhook.message import body_of, headers_of

DISABLE_AFTER = 20  # failed attempts in a row …
DISABLE_WITHIN = timedelta(days=3)  # … and for at least this long
LONGEST_WAIT_S = 86_400.0  # that a receiver can ask for

_GONE = 410


class DeliveryFailed(Retry):
    """The webhook did not take the delivery."""

    code = "delivery_failed"


class DeliveryPointless(Discard):
    """The webhook will not take this delivery."""

    code = "delivery_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """How one call went, whether another could go better, and when the receiver wants it."""

    tried: Try
    is_pointless: bool = False
    retry_after: str = ""


@work(webhook.deliver)
async def deliver_event(ctx: Context, params: DeliverParams) -> DeliverResult:
    """Call the webhook once; a refusal of the receiver is tried again, one of the guard is not."""
    database = ctx.installation.database
    delivery, target = await _find(ctx.installation, params.delivery_id)
    verdict = await _try(ctx, delivery, target)
    tried = verdict.tried
    await note_try(database, delivery.id, tried)
    if tried.error is None:
        await note_success(database, target.id)
        return DeliverResult(status_code=tried.status_code or 0, duration_seconds=tried.duration_s)
    await _note_failure(ctx.installation, target, tried)
    if verdict.is_pointless:
        raise DeliveryPointless(tried.error)
    raise DeliveryFailed(tried.error, after=_wait_s(ctx, verdict))


async def _find(house: Installation, delivery_id: str) -> tuple[Delivery, Webhook]:
    delivery = await find_delivery(house.database, delivery_id)
    target = None if delivery is None else await find_webhook(house.database, delivery.webhook_id)
    if delivery is None or target is None:
        raise DeliveryPointless("The webhook was deleted.")
    if target.disabled_at is not None:
        raise DeliveryPointless("The webhook is disabled.")
    return delivery, target


async def _try(ctx: Context, delivery: Delivery, target: Webhook) -> _Verdict:
    began, at = time.monotonic(), utc_now()

    def tried(status_code: int | None, error: str | None) -> Try:
        duration_s = round(time.monotonic() - began, 3)
        return Try(job_id=ctx.job_id, at=at, duration_s=duration_s, status_code=status_code, error=error)

    try:
        answer = await _call(ctx.installation, delivery, target)
    except OutboundFailed as error:
        return _Verdict(tried=tried(None, error.message))
    except (OutboundRefused, Discard) as error:
        return _Verdict(tried=tried(None, error.message), is_pointless=True)
    return _Verdict(
        tried=tried(answer.status, _complaint(answer.status)),
        is_pointless=answer.status == _GONE,
        retry_after=answer.headers.get("retry-after", ""),
    )


async def _call(house: Installation, delivery: Delivery, target: Webhook) -> OutboundAnswer:
    job = None
    if delivery.task_id is not None:
        job = await house.reader.get(delivery.task_id)
        if job is None:
            raise DeliveryPointless("The task was deleted before the webhook took the delivery.")
    now = utc_now()
    body = body_of(delivery, job)
    headers = headers_of(delivery, body, secrets=_secrets(house, target, now), now=now)
    return await open_outbound(house.settings).post(target.url, body, headers)


def _secrets(house: Installation, target: Webhook, now: datetime) -> list[str]:
    sealed = [target.secret]
    if target.old_secret and target.old_secret_ends_at and now < target.old_secret_ends_at:
        sealed.append(target.old_secret)
    box = open_webhook_secrets(house.settings)
    return [box.open(one, webhook_id=target.id) for one in sealed]


def _complaint(status: int) -> str | None:
    """Say what was wrong with an answer; None if the delivery was taken."""
    if 200 <= status < 300:
        return None
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return f"The webhook answered {status}{hint}."


async def _note_failure(house: Installation, target: Webhook, tried: Try) -> None:
    """Count a failure, and disable a webhook that is gone or hopeless, with an audit entry."""
    if tried.status_code == _GONE:
        ended = await disable_webhook(house.database, target.id, now=tried.at, reason="It answered 410 Gone.")
    else:
        ended = await note_failure(
            house.database, target.id, now=tried.at, at_most=DISABLE_AFTER, within=DISABLE_WITHIN
        )
    if ended is not None:
        act = Act(
            actor=None,
            action="webhook_disabled",
            resource=f"/api/webhooks/{target.id}",
            result="success",
            component="worker",
            details={"owner": target.owner, "reason": ended.disabled_reason},
        )
        await record_act(house.records, act)


def _wait_s(ctx: Context, verdict: _Verdict) -> float | None:
    """Return when to try again if the receiver says so: never before our own turn, and within a day."""
    asked_s = retry_after_s(verdict.retry_after, verdict.tried.at)
    job_type = ctx.installation.catalogue.get(ctx.kind)
    if asked_s is None or job_type is None:
        return None
    return min(max(asked_s, job_type.retry.delay_s(ctx.attempt - 1)), LONGEST_WAIT_S)


def retry_after_s(text: str, now: datetime) -> float | None:
    """Read a Retry-After, of seconds or a date; None for anything else."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
