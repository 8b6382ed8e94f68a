"""The routes that submit: one per job type, enqueue, execute, batch. Each may be repeated under a key."""

import asyncio
from collections.abc import Iterator, Sequence

from aiohttp import web
from pydantic import ConfigDict, JsonValue
from pydantic_core import to_json

from app.api.batches import orders_of
from app.api.endpoint import Access, Call, Endpoint, endpoint, take_units
from app.api.execution import executed_order_of
from app.api.idempotency import Intake, Repeats, Submit
from app.api.rate_limit import cost_of_batch
from app.api.reading import JSON_TYPES, MIB
from app.api.schemas import AnsweredTask, acceptance_json, path_of
from app.api.submissions import (
    AnyParams,
    EnqueueRequest,
    ExecuteRequest,
    acceptance_of,
    enqueue_form,
    execute_form,
    name_in,
    order_of,
    submission_form,
)
from app.history.rows import NewJob
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.fields import Model
from app.jobs.validation import parse_json
from app.orders import Order

MAX_BATCH = 16 * MIB

_NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_QUICK = 64 * 1024  # bytes; judging a longer batch would keep the event loop for too long

_TRY_OUT: dict[str, JsonValue] = {"task_name": "system.echo", "params": {"wait_seconds": 0, "payload": "hello"}}


class Enqueue(EnqueueRequest[AnyParams]):
    """Submit one task of any kind."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_TRY_OUT, "priority": 7, "max_retries": 1}]})


class Execute(ExecuteRequest[AnyParams]):
    """Submit one task of any kind, as older clients of a broker spell it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"task_name": "system.echo", "args": [0, 1], "kwargs": {"payload": "hello"}}]}
    )

    kwargs: AnyParams = AnyParams()
    """The parameters by name."""


class Batch(Model):
    """Submit many tasks, all or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tasks": [_TRY_OUT, {**_TRY_OUT, "countdown": 60}]}]})

    tasks: tuple[EnqueueRequest[AnyParams], ...]
    """1 to 10,000 tasks; as NDJSON, one a line."""


class AcceptedBatch(Model):
    """The tasks of a batch were accepted."""

    task_ids: tuple[str, ...]
    """Their ids, in the order in which they were sent."""
    count: int
    """How many."""
    message: str
    """The same in words, and how many priorities were lowered, if any were."""


def intake_endpoints(catalogue: Catalogue) -> Iterator[Endpoint]:
    """Yield the routes that submit; most follow from the catalogue."""
    repeats = Repeats()
    yield from (_submit_endpoint(job_type, repeats) for job_type in catalogue)
    yield _enqueue_endpoint(catalogue, repeats)
    yield _execute_endpoint(catalogue, repeats)
    yield _batch_endpoint(catalogue, repeats)


def _submit_endpoint(job_type: AnyJobType, repeats: Repeats) -> Endpoint:
    form = submission_form(job_type)

    async def judge(call: Call, raw: bytes) -> list[Order]:
        return [order_of(parse_json(raw), job_type, form, call.caller, raw=raw)]

    intake = Intake(judge=judge, answer=_answer_one, status=202)

    async def submit_type(call: Call, raw: bytes) -> web.Response:
        return await repeats.once(call, Submit(raw, intake))

    return endpoint(
        "POST",
        f"/tasks/{job_type.route}",
        submit_type,
        status=202,
        access=Access.ADMIN if job_type.is_admin_only else Access.CALLER,
        body=form.model,
        answer=AnsweredTask,
        takes_key=True,
        summary=job_type.summary,
        operation_id=f"submit_{job_type.kind.replace('.', '_')}",
    )


def _enqueue_endpoint(catalogue: Catalogue, repeats: Repeats) -> Endpoint:
    forms = {job_type.kind: enqueue_form(job_type) for job_type in catalogue}

    async def judge(call: Call, raw: bytes) -> list[Order]:
        document = parse_json(raw)
        job_type = catalogue.find(name_in(document))
        return [order_of(document, job_type, forms[job_type.kind], call.caller, raw=raw)]

    intake = Intake(judge=judge, answer=_answer_one, status=201)

    async def enqueue_task(call: Call, raw: bytes) -> web.Response:
        """Submit a task of any kind, by its name or an alias."""
        return await repeats.once(call, Submit(raw, intake))

    return endpoint(
        "POST", "/tasks/enqueue", enqueue_task, status=201, body=Enqueue, answer=AnsweredTask, takes_key=True
    )


def _execute_endpoint(catalogue: Catalogue, repeats: Repeats) -> Endpoint:
    forms = {job_type.kind: execute_form(job_type) for job_type in catalogue}

    async def judge(call: Call, raw: bytes) -> list[Order]:
        document = parse_json(raw)
        job_type = catalogue.find(name_in(document))
        assert isinstance(document, dict)  # noqa: S101  # it has a name
        return [executed_order_of(document, job_type, forms[job_type.kind], call.caller, catalogue)]

    intake = Intake(judge=judge, answer=_answer_one, status=202)

    async def execute_task(call: Call, raw: bytes) -> web.Response:
        """Submit a task of any kind with positional and named parameters, for older clients."""
        return await repeats.once(call, Submit(raw, intake))

    return endpoint(
        "POST",
        "/tasks/execute",
        execute_task,
        status=202,
        access=Access.ADMIN,
        body=Execute,
        answer=AnsweredTask,
        takes_key=True,
    )


def _batch_endpoint(catalogue: Catalogue, repeats: Repeats) -> Endpoint:
    forms = {job_type.kind: enqueue_form(job_type) for job_type in catalogue}

    async def judge(call: Call, raw: bytes) -> list[Order]:
        content_type = call.request.headers.get("Content-Type", "")

        def judge_now() -> list[Order]:
            return orders_of(raw, content_type, catalogue=catalogue, forms=forms, caller=call.caller)

        orders = judge_now() if len(raw) <= _QUICK else await asyncio.to_thread(judge_now)
        if (cost := cost_of_batch(len(orders))) > 0:
            await take_units(call, cost)
        return orders

    intake = Intake(judge=judge, answer=_answer_batch, status=202)

    async def submit_batch(call: Call, raw: bytes) -> web.Response:
        """Submit up to 10,000 tasks of any kinds, all or none, as JSON or NDJSON."""
        return await repeats.once(call, Submit(raw, intake))

    return endpoint(
        "POST",
        "/tasks/batch",
        submit_batch,
        status=202,
        body=Batch,
        body_limit=MAX_BATCH,
        media_types=(*JSON_TYPES, *_NDJSON_TYPES),
        answer=AcceptedBatch,
        takes_key=True,
    )


def _answer_one(call: Call, accepted: Sequence[NewJob], orders: Sequence[Order]) -> bytes:
    (job,), (order,) = accepted, orders
    call.headers["Location"] = path_of(job.id)
    return acceptance_json(job, acceptance_of(job, order))


def _answer_batch(_call: Call, accepted: Sequence[NewJob], orders: Sequence[Order]) -> bytes:
    count = len(accepted)
    lowered = sum(job.priority < (order.priority or 0) for job, order in zip(accepted, orders, strict=True))
    message = f"{count:,} task{'s' if count > 1 else ''} enqueued successfully"
    message += f" ({lowered:,} with a lowered priority)" if lowered else ""
    return to_json(AcceptedBatch(task_ids=tuple(job.id for job in accepted), count=count, message=message))
