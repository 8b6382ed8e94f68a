"""How an attempt ended, as a closed set of values, and the verdict on an exception. Pure."""

import asyncio
import traceback
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from app.errors import BadRequest, Discard, InvalidInput, NotFound, ResultInvalid, Retry, ServiceError
from app.history.rows import Failure
from app.jobs.fields import Result
from app.jobs.validation import check_json, is_plain
from app.queue.wire import retry_of

MAX_RESULT_BYTES = 1 << 20
_GLANCE = 4096  # bytes; to search a result of megabytes would hold the interpreter, and the leases with it
_MAX_MESSAGE = 2_000
_MAX_NAME = 200
_MAX_TRACEBACK = 20_000  # characters kept; the end says more than the beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The work returned; ``result`` is JSON text."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The work failed. ``after_s`` is the delay that the job itself asked for, if it did."""

    failure: Failure
    after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The worker stops: the job goes back to its place, and no attempt is burnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The job is no longer this attempt's: it was cancelled, or another claim has it. Nothing is written."""


Outcome = Completed | Failed | Released | Lost

# Trying again would meet the same: bad input, what does not exist, too little data, a result that cannot be stored.
_POINTLESS = (Discard, InvalidInput, ValidationError, NotFound, BadRequest)


def completed(result: Result) -> Completed:
    """Serialise what the work returned; raise ResultInvalid if it cannot be stored."""
    try:
        text = _text_of(result.model_dump(mode="json"))
    except (InvalidInput, TypeError, ValueError, AttributeError) as error:
        raise ResultInvalid(f"The result cannot be stored as JSON: {_message(error)}") from error
    if len(text) > MAX_RESULT_BYTES:
        raise ResultInvalid(f"The result has {len(text)} bytes; at most {MAX_RESULT_BYTES} can be stored.")
    return Completed(result=text.decode())


def failed(error: BaseException) -> Failed:
    """Judge an exception that the work raised: what it is called, and whether trying again could help."""
    asked = error if isinstance(error, Retry) else retry_of(error)
    return Failed(
        failure=Failure(
            code=_code(error, asked),
            type=type(error).__name__[:_MAX_NAME],
            message=storable(_message(error)[:_MAX_MESSAGE]),
            traceback=storable(_traceback(error)[-_MAX_TRACEBACK:]),
            is_retryable=asked is not None or not isinstance(error, _POINTLESS),
        ),
        after_s=asked.after if asked else None,
    )


def timed_out(limit_s: float) -> Failed:
    """Say that the hard limit has passed."""
    message = f"The job ran longer than its limit of {limit_s:g} s."
    return Failed(failure=Failure(code="timeout", type="HardTimeLimitExceeded", message=message))


def storable(text: str) -> str:
    """Replace what no database stores as text: NUL and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _text_of(value: object) -> bytes:
    """Write JSON that both databases can hold; what its short text shows to be fine, as most do, is not walked."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        check_json(value)  # says where
        raise
    if len(text) > _GLANCE or b"null" in text or not is_plain(text):  # a null may have been a NaN
        check_json(value)
    return text


def _message(error: BaseException) -> str:
    if isinstance(error, InvalidInput):
        return "; ".join(f"{one.pointer}: {one.detail}" for one in error.errors)
    try:
        return str(error) or type(error).__name__
    except Exception:  # a job's own error class may refuse to be told
        return f"{type(error).__name__}, which cannot be shown as text"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as odd:  # names and notes of a job's own error class may be anything
        return f"The traceback cannot be shown: {type(odd).__name__}."


def _code(error: BaseException, asked: Retry | None) -> str:
    if asked is not None:
        return asked.code
    match error:
        case ServiceError():
            return error.code
        case ValidationError():
            return "validation_error"
        case TimeoutError():
            return "timeout"
        case PermissionError():
            return "auth_error"
        case ConnectionError() | asyncio.IncompleteReadError():
            return "network_error"
        case _:
            return "unknown"
