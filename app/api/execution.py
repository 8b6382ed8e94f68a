"""Submits as older clients of a broker spell them: positional arguments beside named ones, and a queue. Pure."""

from dataclasses import replace

from app.api.auth import Caller
from app.api.submissions import Form, order_of
from app.errors import BadRequest, FieldError, InvalidInput
from app.jobs.catalogue import QUEUE_ALIASES, AnyJobType, Catalogue
from app.orders import Order


def executed_order_of(
    document: dict[str, object], job_type: AnyJobType, form: Form, caller: Caller, catalogue: Catalogue
) -> Order:
    """Judge a submit with ``args`` and ``kwargs``; raises what :func:`order_of` raises, with pointers into both."""
    _check_queue(document.get("queue"), job_type, catalogue)
    args, kwargs = document.get("args", []), document.get("kwargs", {})
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        return order_of({**document, "kwargs": kwargs}, job_type, form, caller)
    names = list(job_type.params.model_fields)
    if wrong := _wrong_args(args, kwargs, names):
        raise InvalidInput(wrong)
    try:
        return order_of(
            {**document, "kwargs": {**dict(zip(names, args, strict=False)), **kwargs}}, job_type, form, caller
        )
    except InvalidInput as error:
        raise InvalidInput([_as_sent(one, names[: len(args)]) for one in error.errors]) from error


def _check_queue(queue: object, job_type: AnyJobType, catalogue: Catalogue) -> None:
    if not isinstance(queue, str):
        return  # what is neither text nor null is left to the validation
    meant = QUEUE_ALIASES.get(queue, queue)
    if meant not in catalogue.queues:
        raise BadRequest(f"There is no queue {queue!r}; known are: {', '.join(catalogue.queues)}.")
    if meant != job_type.queue:
        raise BadRequest(f"{job_type.kind} waits in the queue {job_type.queue!r}, not in {queue!r}; leave queue out.")


def _wrong_args(args: list[object], kwargs: dict[str, object], names: list[str]) -> list[FieldError]:
    taken = ", ".join(names) or "none"
    extra = [
        FieldError(
            pointer=f"/args/{at}", code="too_many_args", detail=f"The kind takes {len(names)} parameters: {taken}."
        )
        for at in range(len(names), len(args))
    ]
    twice = [
        FieldError(pointer=f"/args/{at}", code="given_twice", detail=f"This is {name!r}, which kwargs gives as well.")
        for at, name in enumerate(names[: len(args)])
        if name in kwargs
    ]
    return [*twice, *extra[:1]]


def _as_sent(error: FieldError, positional: list[str]) -> FieldError:
    """Point to where the client put a value that the model knows by name."""
    _, _, path = error.pointer.partition("/kwargs/")
    name, slash, rest = path.partition("/")
    if not error.pointer.startswith("/kwargs/") or name not in positional:
        return error
    return replace(error, pointer=f"/args/{positional.index(name)}{slash}{rest}")
