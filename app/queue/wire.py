"""What stands in Redis, in arq's own wire format but as JSON: never pickle, neither written nor read."""

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from arq.worker import Retry as ArqRetry

from app.errors import Retry, ServiceError

_OURS = "v"  # marks a body that has a row; arq ignores fields that it does not know
CANCELLED = "cancelled"  # code of the error that arq's client reads as a cancellation


class JobFailed(ServiceError):
    """The job failed. What arq's ``Job.result()`` raises for a job of ours."""

    code = "job_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A job definition as found in Redis."""

    kind: str
    args: list[Any]
    kwargs: dict[str, Any]
    enqueued_ms: int  # by its sender's clock; 0 if it does not say
    is_ours: bool


def dump(value: dict[str, Any]) -> bytes:
    """Serialise for arq's client (``job_serializer``)."""
    return orjson.dumps(value)


def load(raw: bytes) -> dict[str, Any]:
    """Deserialise for arq's client (``job_deserializer``); an error becomes the exception it stands for."""
    value: dict[str, Any] = orjson.loads(raw)
    if value.get("s") is False:
        error = value["r"]
        is_cancelled = error["code"] == CANCELLED
        value["r"] = asyncio.CancelledError() if is_cancelled else JobFailed(error["message"], code=error["code"])
    return value


def body_of(kind: str, params: dict[str, Any], enqueued_ms: int) -> bytes:
    """Write the body of one of our jobs."""
    return orjson.dumps({"t": None, "f": kind, "a": [], "k": params, "et": enqueued_ms, _OURS: 1})


def read_body(raw: bytes) -> Body | None:
    """Read a body, ours or a stock client's; None when it is no JSON of that shape (a pickle, say)."""
    try:
        value = orjson.loads(raw)
    except ValueError:
        return None
    match value:
        case {"f": str(kind), "a": list(args), "k": dict(kwargs)} if kind.isprintable():
            sent = value.get("et")
            enqueued_ms = sent if isinstance(sent, int) else 0
            return Body(kind=kind, args=args, kwargs=kwargs, enqueued_ms=enqueued_ms, is_ours=_OURS in value)
    return None


def retry_of(error: BaseException) -> Retry | None:
    """Return what ``raise arq.Retry(defer=…)`` asks for in our words; None for any other exception."""
    if not isinstance(error, ArqRetry):
        return None
    return Retry(
        "The job asked to be run again.", after=None if error.defer_score is None else error.defer_score / 1000
    )


def result_of(
    *,
    job_id: str,
    kind: str,
    params: dict[str, Any],
    attempt: int,
    queue_key: str,
    enqueued_ms: int,
    started_ms: int,
    ended_ms: int,
    result: str | None,
    error: dict[str, str] | None,
) -> bytes:
    """Write a result as arq stores it; ``result`` is JSON text that is put in as it stands."""
    return orjson.dumps(
        {
            "t": attempt,
            "f": kind,
            "a": [],
            "k": params,
            "et": enqueued_ms,
            "s": error is None,
            "r": orjson.Fragment(result or "null") if error is None else error,
            "st": started_ms,
            "ft": ended_ms,
            "q": queue_key,
            "id": job_id,
        }
    )
