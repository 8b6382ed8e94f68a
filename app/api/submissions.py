"""What a submit says, judged: from a JSON document to an order for the lifecycle. Pure but for the clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

import orjson
from pydantic import Field, JsonValue, ValidationError

from app.api.auth import Caller
from app.clock import utc_now
from app.credentials.scopes import Scope
from app.errors import BadRequest, FieldError, Forbidden, InvalidInput, TooLarge
from app.history.rows import NewJob
from app.jobs.catalogue import AnyJobType
from app.jobs.contract import TaskType
from app.jobs.fields import Identifier, Integer, Model, Moment, Number, Params, Priority
from app.jobs.validation import field_errors, is_plain, json_errors, merge_errors, validate
from app.orders import Order

MAX_PARAMS = 64 * 1024
FARTHEST = timedelta(days=3653)  # how far ahead a job may be scheduled

_SMALL = MAX_PARAMS // 2  # bytes of a document whose params need no measuring: written again they are hardly longer

Subject = Literal["none", "required", "optional"]
P = TypeVar("P", bound=Params)
Seconds = Annotated[Number, Field(ge=0, le=FARTHEST.total_seconds())]


class Options(Model):
    """What can be said of any task, whatever its kind."""

    task_type: str | None = None
    """The broad class; must be the one that the kind belongs to."""
    user_id: Identifier | None = None
    """Whom the task is about; by default the caller, for administrators all users where the kind allows it."""
    priority: Priority | None = None
    """1–10, higher runs first; by default the kind's own."""
    max_retries: Annotated[Integer, Field(ge=0, le=10)] | None = None
    """How many failed attempts may be tried again; by default the kind's own."""
    countdown: Seconds | None = None
    """Start no earlier than this many seconds from now; not together with ``eta``."""
    eta: Moment | None = None
    """Start no earlier than this; within ten years, not together with ``countdown``."""
    expires_in: Annotated[Seconds, Field(gt=0)] | None = None
    """Fail the task if it was not started within this many seconds after it was due."""
    unique_key: Identifier | None = None
    """While a task of yours with this key lives, a second one is refused with a 409 that names the first."""
    webhook: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """What to tell of the end of this one task: the id of a webhook of yours, or a URL, which becomes one."""


class Submission(Options, Generic[P]):
    """Submit one task of the kind that the route names."""

    parameters: P
    """What the kind takes."""


class EnqueueRequest(Options, Generic[P]):
    """Submit one task of any kind."""

    task_name: Annotated[str, Field(min_length=1, max_length=255)]
    """The kind, or one of its aliases."""
    params: P
    """What the kind takes."""


class ExecuteRequest(Options, Generic[P]):
    """Submit one task of any kind, as older clients of a broker spell it."""

    task_name: Annotated[str, Field(min_length=1, max_length=255)]
    """The kind, or one of its aliases."""
    args: tuple[JsonValue, ...] = ()
    """The first parameters, in the order in which the catalogue lists them."""
    kwargs: P
    """The parameters by name."""
    queue: str | None = None
    """The queue of the kind, or nothing: a kind has one queue."""


class AnyParams(Params):
    """What the named kind takes; see the catalogue for the schema of each."""

    model_config = {"extra": "allow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one route spells a submit of one kind: the model, and the name that the params go by."""

    model: type[Options]
    params_field: str
    subject: Subject  # of the kind: looked up once, asked for at every submit


def submission_form(job_type: AnyJobType) -> Form:
    """Return the form of a kind's own route."""
    params: Any = job_type.params
    return Form(model=Submission[params], params_field="parameters", subject=job_type.subject)


def enqueue_form(job_type: AnyJobType) -> Form:
    """Return the form of the route that takes every kind."""
    params: Any = job_type.params
    return Form(model=EnqueueRequest[params], params_field="params", subject=job_type.subject)


def execute_form(job_type: AnyJobType) -> Form:
    """Return the form of the route for older clients."""
    params: Any = job_type.params
    return Form(model=ExecuteRequest[params], params_field="kwargs", subject=job_type.subject)


def name_in(document: object) -> str:
    """Return the name that a body asks for; raises InvalidInput with everything else that is wrong, too."""
    name = document.get("task_name") if isinstance(document, dict) else None
    if isinstance(name, str) and name:
        return name
    validate(EnqueueRequest[AnyParams], document)
    raise InvalidInput([FieldError(pointer="/task_name", code="missing", detail="This field is required.")])


def order_of(
    document: object,
    job_type: AnyJobType,
    form: Form,
    caller: Caller,
    *,
    raw: bytes | None = None,
    place: str = "",
) -> Order:
    """Judge a submit; raises Forbidden, InvalidInput with every error, BadRequest or TooLarge.

    ``raw`` is the document as it came: one that is small and :func:`app.jobs.validation.is_plain` is looked through
    neither for what no row holds nor for its size. ``place`` is where it stood in a larger one.
    """
    if job_type.is_admin_only and not caller.is_admin:
        raise Forbidden(f"{job_type.kind} is for administrators only.")
    subject, document = _settle_subject(document, form, caller)
    options = _fit(document, form, is_fine=raw is not None and len(raw) <= _SMALL and is_plain(raw))
    _check_task_type(options.task_type, job_type)
    return Order(
        job_type=job_type,
        params=getattr(options, form.params_field),
        owner=caller.user_id,
        user_id=subject,
        priority=options.priority,
        max_retries=options.max_retries,
        scheduled_for=_scheduled_for(options),
        expires_in=None if options.expires_in is None else timedelta(seconds=options.expires_in),
        place=f"{place}/{form.params_field}",
        unique_key=options.unique_key,
        webhook=options.webhook,
    )


def acceptance_of(job: NewJob, order: Order) -> str:
    """Say that a job was accepted, and with which priority if that is not the one asked for."""
    message = f"Task enqueued successfully with priority {job.priority}"
    asked = order.priority or job.priority
    if asked <= job.priority:
        return message
    return f"{message} (lowered from {asked}: {order.job_type.family} tasks take at most {job.priority})"


def _settle_subject(document: object, form: Form, caller: Caller) -> tuple[str | None, object]:
    """Return whom the job is about, and the document with that user handed to the params."""
    if not isinstance(document, dict):
        return None, document
    params, outer = document.get(form.params_field), document.get("user_id")
    if form.subject == "none" or not isinstance(params, dict):
        return _subject_of((outer,), form.subject, caller, "/user_id"), document
    inner = params.get("user_id")
    subject = _subject_of((outer, inner), form.subject, caller, f"/{form.params_field}/user_id")
    if not (inner is None or isinstance(inner, str)):
        return subject, document
    return subject, {**document, form.params_field: {**params, "user_id": subject}}


def _subject_of(named: Sequence[object], subject: Subject, caller: Caller, pointer: str) -> str | None:
    """Return whom a job is about: the user that was named, else the caller, or all users for administrators.

    What is no text is left to the validation. Null is the same as saying nothing.
    """
    users = {user for user in named if isinstance(user, str)}
    if len(users) > 1:
        detail = "The user_id here and at the top level differ; give it once, or the same twice."
        raise InvalidInput([FieldError(pointer=pointer, code="user_id_conflict", detail=detail)])
    if not users:
        return None if caller.is_admin and subject == "optional" else caller.user_id
    (user,) = users
    if not caller.may_act_for(user):
        raise Forbidden(f"To act for another user needs the scope {Scope.ANY_USER.value!r}, or an administrator.")
    return user


def _fit(document: object, form: Form, *, is_fine: bool) -> Options:
    errors = [] if is_fine else _document_errors(document, form.params_field)
    try:
        options = form.model.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(merge_errors(errors, field_errors(error, data=document))) from error
    if errors:
        raise InvalidInput(errors)
    if not is_fine:
        _check_size(document, form.params_field)
    return options


def _document_errors(document: object, params_field: str) -> list[FieldError]:
    if not isinstance(document, dict):
        return []
    around = {name: value for name, value in document.items() if name != params_field}
    return [*json_errors(around), *json_errors(document.get(params_field), f"/{params_field}")]


def _check_size(document: object, params_field: str) -> None:
    size = len(orjson.dumps(document[params_field])) if isinstance(document, dict) else 0
    if size > MAX_PARAMS:
        raise TooLarge(f"The {params_field} are {size:,} bytes of JSON; at most {MAX_PARAMS:,} are taken.")


def _check_task_type(given: str | None, job_type: AnyJobType) -> None:
    if given is None or given == job_type.task_type:
        return
    if given in tuple(TaskType):
        raise BadRequest(f"{job_type.kind} is of the task_type {job_type.task_type.value!r}, not {given!r}.")
    raise BadRequest(f"There is no task_type {given!r}; known are: {', '.join(TaskType)}.")


def _scheduled_for(options: Options) -> datetime | None:
    if options.countdown is not None and options.eta is not None:
        raise InvalidInput([FieldError(pointer="/eta", code="conflict", detail="Give countdown or eta, not both.")])
    check_eta(options.eta)
    return utc_now() + timedelta(seconds=options.countdown) if options.countdown else options.eta


def check_eta(eta: datetime | None) -> None:
    """Raise InvalidInput for a time that is too far ahead."""
    if eta is not None and eta > utc_now() + FARTHEST:
        raise InvalidInput([FieldError(pointer="/eta", code="too_far", detail="This is more than ten years ahead.")])
