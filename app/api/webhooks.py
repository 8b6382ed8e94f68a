"""The routes of webhooks: everybody has webhooks of their own, administrators those that hear of all tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from aiohttp import hdrs
from pydantic import ConfigDict, Field, JsonValue, model_validator

from app.api.endpoint import Call, Endpoint, endpoint
from app.api.filters import Limit
from app.clock import derived_id, new_id, utc_now
from app.credentials.webhooks import open_webhook_secrets
from app.errors import BadRequest, Conflict, FieldError, Forbidden, InvalidInput, NotFound
from app.history.deliveries import Delivery, NewDelivery, find_delivery, list_deliveries
from app.history.webhooks import (
    Webhook,
    change_webhook,
    delete_webhook,
    find_webhook,
    insert_webhook,
    list_webhooks,
)
from app.jobs.fields import Identifier, Model
from app.jobs.status import Status
from app.jobs.webhook import TEST_EVENT, WebhookEvent
from app.orders import Order
from app.outbound import MAX_URL, OutboundRefused, open_outbound

OVERLAP = timedelta(hours=24)  # how long a rotated secret signs beside its successor
AT_MOST = 50  # webhooks of one owner

_EXAMPLE: dict[str, JsonValue] = {"url": "https://hooks.example.com/jobs", "events": ["task.completed", "task.failed"]}

Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
Events = Annotated[tuple[WebhookEvent, ...], Field(max_length=len(WebhookEvent))]
Description = Annotated[str, Field(max_length=500)]


class WebhookFilters(Model):
    """Of which tasks a webhook hears; conditions combine."""

    task_names: Annotated[tuple[Identifier, ...], Field(max_length=100)] = ()
    """Only tasks of these kinds; none names all."""
    queues: Annotated[tuple[Identifier, ...], Field(max_length=100)] = ()
    """Only tasks of these queues; none names all."""


class NewWebhook(Model):
    """Where to call, and when."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    url: Url
    """Where to send a POST: https, a host on the public internet."""
    events: Annotated[Events, Field(min_length=1)]
    """Of what to tell."""
    description: Description | None = None
    """What it is for, in your own words."""
    filters: WebhookFilters = WebhookFilters()
    """Of which tasks to tell; by default of all."""
    for_all: bool = False
    """Whether to tell of everybody's tasks, not of your own alone; for administrators only."""


class WebhookChange(Model):
    """What to change of a webhook; at least one of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url | None = None
    """Where to send a POST."""
    events: Events | None = None
    """Of what to tell; of nothing leaves it to the tasks that name the webhook."""
    description: Description | None = None
    """What it is for."""
    filters: WebhookFilters | None = None
    """Of which tasks to tell."""
    enabled: bool | None = None
    """Whether it is told anything; switched on again, its failures are forgotten."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give at least one of url, events, description, filters and enabled")
        return self


class ShownWebhook(Model):
    """One webhook, without its secret."""

    webhook_id: str
    """Its id."""
    owner: str
    """Whose it is."""
    url: str
    """Where it is called."""
    events: tuple[str, ...]
    """Of what it is told; of nothing: only of tasks whose submit names it."""
    description: str | None
    """What it is for."""
    filters: WebhookFilters
    """Of which tasks it is told."""
    for_all: bool
    """Whether it is told of everybody's tasks."""
    enabled: bool
    """Whether it is told anything."""
    disabled_at: datetime | None
    """Since when it is told nothing."""
    disabled_reason: str | None
    """Why."""
    failures: int
    """How many attempts in a row have failed."""
    failing_since: datetime | None
    """Since when."""
    secrets: int
    """How many secrets sign: two for a day after a rotation."""
    created_at: datetime
    """When it was made."""


class WebhookWithSecret(ShownWebhook):
    """A webhook with a new secret."""

    secret: str
    """What its deliveries are signed with (``whsec_…``). It is shown this once, and cannot be had again."""


class WebhookList(Model):
    """The webhooks of the caller, for administrators of everybody."""

    webhooks: tuple[ShownWebhook, ...]
    """The newest first."""
    total_count: int
    """How many there are."""


class DeliveryQuery(Model):
    """Which part of a log."""

    limit: Limit = 50
    """The most deliveries to answer."""
    cursor: Identifier | None = None
    """The ``next_cursor`` of the page before."""


class ShownDelivery(Model):
    """One event for one webhook, and how far that is."""

    delivery_id: str
    """Its id, which every attempt sends as ``webhook-id``."""
    webhook_id: str
    """The webhook."""
    event: str
    """What it tells of."""
    task_id: str | None
    """The task; null for a test."""
    job_id: str
    """The task that delivers it, which has the attempts."""
    status: str
    """``delivered``, ``pending``, ``running``, ``failed`` or ``cancelled``; ``unknown`` once its task was deleted."""
    attempts: int
    """How often it was tried."""
    last_attempt_at: datetime | None
    """When it was tried last."""
    next_attempt_at: datetime | None
    """When it is tried next, while it waits."""
    status_code: int | None
    """What the last attempt was answered; null without an answer."""
    duration_seconds: float | None
    """How long the last attempt took."""
    error: str | None
    """Why the last attempt failed."""
    created_at: datetime
    """When what it tells of happened."""
    delivered_at: datetime | None
    """When the webhook took it."""


class DeliveryPage(Model):
    """One page of a webhook's log."""

    deliveries: tuple[ShownDelivery, ...]
    """The newest first."""
    next_cursor: str | None
    """Where the next page starts; null on the last."""


class Deleted(Model):
    """A webhook was deleted."""

    webhook_id: str
    """Which."""
    success: bool
    """Always true."""


def webhook_endpoints() -> Iterator[Endpoint]:
    """Yield the routes below ``/api``."""
    yield endpoint("POST", "/webhooks", make_webhook, status=201, is_audited=True)
    yield endpoint("GET", "/webhooks", show_webhooks)
    yield endpoint("GET", "/webhooks/{webhook_id}", show_webhook)
    yield endpoint("PATCH", "/webhooks/{webhook_id}", patch_webhook, is_audited=True)
    yield endpoint("DELETE", "/webhooks/{webhook_id}", remove_webhook, is_audited=True)
    yield endpoint("POST", "/webhooks/{webhook_id}/rotate", rotate_webhook, is_audited=True)
    yield endpoint("POST", "/webhooks/{webhook_id}/test", try_webhook, status=202)
    yield endpoint("GET", "/webhooks/{webhook_id}/deliveries", show_deliveries)
    yield endpoint("POST", "/webhooks/deliveries/{delivery_id}/redeliver", redeliver, status=202)


async def make_webhook(call: Call, body: NewWebhook) -> WebhookWithSecret:
    """Register a webhook; this answer is the only one that shows its secret."""
    if body.for_all and not call.caller.is_admin:
        raise Forbidden("Only administrators may hear of everybody's tasks.")
    _check_url(call, body.url)
    _check_filters(call, body.filters)
    made, secret = _new_webhook(call, new_id(), body.url, list(body.events))
    filters: Any = body.filters.model_dump(mode="json")
    made = replace(made, description=body.description, filters=filters, is_for_all=body.for_all)
    await _store(call, made)
    return _with_secret(call, made, secret)


async def show_webhooks(call: Call) -> WebhookList:
    """List webhooks, without their secrets."""
    owner = None if call.caller.is_admin else call.caller.user_id
    found = tuple(map(_shown, await list_webhooks(call.installation.database, owner=owner)))
    return WebhookList(webhooks=found, total_count=len(found))


async def show_webhook(call: Call) -> ShownWebhook:
    """Show one webhook, without its secret."""
    return _shown(await _find(call))


async def patch_webhook(call: Call, body: WebhookChange) -> ShownWebhook:
    """Change a webhook, or switch it off or on."""
    found = await _find(call)
    changes: dict[str, Any] = body.model_dump(mode="json", exclude_unset=True)
    enabled = changes.pop("enabled", None)
    if body.url is not None:
        _check_url(call, body.url)
    if body.filters is not None:
        _check_filters(call, body.filters)
    changes = {name: value for name, value in changes.items() if value is not None or name == "description"}
    if enabled:
        changes |= {"disabled_at": None, "disabled_reason": None, "failures": 0, "failing_since": None}
    elif enabled is False:
        changes |= {"disabled_at": utc_now(), "disabled_reason": f"Switched off by {call.caller.user_id}."}
    return _shown(await _change(call, found, changes) if changes else found)


async def remove_webhook(call: Call) -> Deleted:
    """Delete a webhook and its log; what is on its way to it is given up."""
    found = await _find(call)
    await delete_webhook(call.installation.database, found.id)
    return Deleted(webhook_id=found.id, success=True)


async def rotate_webhook(call: Call) -> WebhookWithSecret:
    """Make a new secret; the one before signs beside it for a day. This answer alone shows it."""
    found = await _find(call)
    secrets = open_webhook_secrets(call.installation.settings)
    secret = secrets.make()
    changes = {
        "secret": secrets.seal(secret, webhook_id=found.id),
        "old_secret": found.secret,
        "old_secret_ends_at": utc_now() + OVERLAP,
    }
    return _with_secret(call, await _change(call, found, changes), secret)


async def try_webhook(call: Call) -> ShownDelivery:
    """Send a test event."""
    found, delivery_id = await _find(call), new_id()
    delivery = NewDelivery(
        id=delivery_id,
        webhook_id=found.id,
        event=TEST_EVENT,
        task_id=None,
        job_id=delivery_id,
        created_at=utc_now(),
    )
    await call.installation.lifecycle.deliver(delivery, owner=found.owner)
    return await _shown_again(call, delivery_id)


async def show_deliveries(call: Call, query: DeliveryQuery) -> DeliveryPage:
    """Show what was, and is to be, delivered to a webhook, the newest first."""
    found, database = await _find(call), call.installation.database
    after = None if query.cursor is None else await find_delivery(database, query.cursor)
    if query.cursor is not None and (after is None or after.webhook_id != found.id):
        raise BadRequest("The cursor is not one that this log answered; leave it out to start over.")
    page = await list_deliveries(database, found.id, after=after, limit=query.limit + 1)
    shown = tuple(map(_shown_delivery, page[: query.limit]))
    return DeliveryPage(deliveries=shown, next_cursor=shown[-1].delivery_id if len(page) > query.limit else None)


async def redeliver(call: Call) -> ShownDelivery:
    """Deliver again, under the same ``webhook-id``, whatever came of it before."""
    delivery = await find_delivery(call.installation.database, _id_in(call, "delivery_id"))
    owner = None if delivery is None else await find_webhook(call.installation.database, delivery.webhook_id)
    if delivery is None or owner is None or not call.caller.may_see(owner.owner):
        raise NotFound("There is no such delivery: not found.")
    if owner.owner != call.caller.user_id:
        call.foreign.append(owner.owner)
    if delivery.status in (Status.PENDING, Status.RUNNING):
        raise Conflict("This delivery is on its way already.")
    known = {name: getattr(delivery, name) for name in NewDelivery.__dataclass_fields__}
    await call.installation.lifecycle.deliver(NewDelivery(**known | {"job_id": new_id()}), owner=owner.owner)
    return await _shown_again(call, delivery.id)


async def with_webhooks(call: Call, orders: Sequence[Order]) -> list[Order]:
    """Put the webhooks that submits name, by id or by URL, into their orders; raise InvalidInput for what will not do.

    A URL that the caller has not named before becomes a webhook of its own, which hears of nothing else.
    """
    asked = {order.webhook: f"{order.place.rpartition('/')[0]}/webhook" for order in reversed(orders) if order.webhook}
    known = {text: await _named(call, text, pointer) for text, pointer in asked.items()}
    return [order._replace(webhook_id=known[order.webhook]) if order.webhook else order for order in orders]


async def _named(call: Call, text: str, pointer: str) -> str:
    database, owner = call.installation.database, call.caller.user_id
    if ":" not in text:
        found = await find_webhook(database, text) if text.isprintable() else None
        if found is None or found.owner != owner:
            detail = "You have no webhook of this id; give the id of one, or a URL."
            raise InvalidInput([FieldError(pointer=pointer, code="unknown_webhook", detail=detail)])
        return found.id
    _check_url(call, text, pointer)
    webhook_id = derived_id(_FIRST, f"{owner} {text}")
    if await find_webhook(database, webhook_id) is None:
        made, _ = _new_webhook(call, webhook_id, text, [])
        await _store(call, made)
    return webhook_id


_FIRST = "00000000-0000-7000-8000-000000000000"  # the ids of webhooks that follow from a URL are older than all others


def _new_webhook(call: Call, webhook_id: str, url: str, events: list[str]) -> tuple[Webhook, str]:
    secrets = open_webhook_secrets(call.installation.settings)
    secret = secrets.make()
    made = Webhook(
        id=webhook_id,
        owner=call.caller.user_id,
        is_for_all=False,
        url=url,
        description=None,
        events=[str(event) for event in events],
        filters={},
        secret=secrets.seal(secret, webhook_id=webhook_id),
        old_secret=None,
        old_secret_ends_at=None,
        created_at=utc_now(),
        disabled_at=None,
        disabled_reason=None,
        failures=0,
        failing_since=None,
    )
    return made, secret


async def _store(call: Call, webhook: Webhook) -> None:
    if not await insert_webhook(call.installation.database, webhook, at_most=AT_MOST):
        raise Conflict(f"You have {AT_MOST} webhooks, which is the most; delete one first.")


async def _change(call: Call, found: Webhook, changes: dict[str, Any]) -> Webhook:
    changed = await change_webhook(call.installation.database, found.id, changes)
    if changed is None:
        raise NotFound("There is no such webhook: not found.")
    return changed


async def _find(call: Call) -> Webhook:
    """Return the webhook that the path names; raise NotFound if the caller may see none of that id."""
    found = await find_webhook(call.installation.database, _id_in(call, "webhook_id"))
    if found is None or not call.caller.may_see(found.owner):
        raise NotFound("There is no such webhook: not found.")
    if found.owner != call.caller.user_id:
        call.foreign.append(found.owner)
    return found


def _id_in(call: Call, name: str) -> str:
    given = call.request.match_info[name]
    return given if given.isprintable() and len(given) <= 64 else ""  # no database holds any other


def _check_url(call: Call, url: str, pointer: str = "/url") -> None:
    try:
        open_outbound(call.installation.settings).check(url)
    except OutboundRefused as error:
        raise InvalidInput([FieldError(pointer=pointer, code=error.code, detail=error.message)]) from error


def _check_filters(call: Call, filters: WebhookFilters) -> None:
    catalogue = call.installation.catalogue
    kinds = sorted(job_type.kind for job_type in catalogue)
    known = {"task_names": kinds, "queues": sorted({job_type.queue for job_type in catalogue})}
    wrong = [
        FieldError(pointer=f"/filters/{name}/{at}", code="unknown_name", detail=f"Known are: {', '.join(known[name])}.")
        for name in known
        for at, value in enumerate(getattr(filters, name))
        if value not in known[name]
    ]
    if wrong:
        raise InvalidInput(wrong)


async def _shown_again(call: Call, delivery_id: str) -> ShownDelivery:
    delivery = await find_delivery(call.installation.database, delivery_id)
    if delivery is None:
        raise NotFound("There is no such delivery: not found.")
    return _shown_delivery(delivery)


def _shown(webhook: Webhook) -> ShownWebhook:
    return ShownWebhook(**_fields(webhook))


def _with_secret(call: Call, webhook: Webhook, secret: str) -> WebhookWithSecret:
    call.headers[hdrs.CACHE_CONTROL] = "no-store"
    call.headers[hdrs.LOCATION] = f"/api/webhooks/{webhook.id}"
    return WebhookWithSecret(**_fields(webhook), secret=secret)


def _fields(webhook: Webhook) -> dict[str, Any]:
    has_two = webhook.old_secret_ends_at is not None and utc_now() < webhook.old_secret_ends_at
    return {
        "webhook_id": webhook.id,
        "owner": webhook.owner,
        "url": webhook.url,
        "events": tuple(webhook.events),
        "description": webhook.description,
        "filters": WebhookFilters(**{name: tuple(values) for name, values in webhook.filters.items()}),
        "for_all": webhook.is_for_all,
        "enabled": webhook.disabled_at is None,
        "disabled_at": webhook.disabled_at,
        "disabled_reason": webhook.disabled_reason,
        "failures": webhook.failures,
        "failing_since": webhook.failing_since,
        "secrets": 2 if has_two else 1,
        "created_at": webhook.created_at,
    }


def _shown_delivery(delivery: Delivery) -> ShownDelivery:
    is_live = delivery.status in (Status.PENDING, Status.RUNNING)
    is_taken = delivery.delivered_at is not None and not is_live and delivery.error is None
    return ShownDelivery(
        delivery_id=delivery.id,
        webhook_id=delivery.webhook_id,
        event=delivery.event,
        task_id=delivery.task_id,
        job_id=delivery.job_id,
        status="delivered" if is_taken else delivery.status.value if delivery.status else "unknown",
        attempts=delivery.attempts,
        last_attempt_at=delivery.last_attempt_at,
        next_attempt_at=delivery.next_attempt_at,
        status_code=delivery.status_code,
        duration_seconds=delivery.duration_s,
        error=delivery.error,
        created_at=delivery.created_at,
        delivered_at=delivery.delivered_at,
    )
