"""The one tree of errors. Everybody may import it; it imports nothing of the project.

Each class carries a stable ``code``, the HTTP status of its answer, and a docstring whose first line
is the default message. Facts are attributes, so that a log line or a problem answer can name them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class ServiceError(Exception):
    """The service could not do what was asked."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    errors: "Sequence[FieldError]" = ()  # every single thing that is wrong with an input

    def __init__(self, message: str | None = None, **facts: object) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.facts = facts
        super().__init__(self.message)


# --- what a caller did -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One thing that is wrong with an input, and where."""

    pointer: str  # RFC 6901, "/parameters/user_id"; "" is the whole document
    code: str  # stable, machine-readable: "missing", "extra_forbidden", "greater_than_equal"
    detail: str  # what would be right


class InvalidInput(ServiceError):
    """The input does not fit its schema."""

    code = "validation_error"
    status = 422
    errors: list[FieldError]

    def __init__(self, errors: list[FieldError], message: str | None = None) -> None:
        self.errors = errors
        count = len(errors)
        super().__init__(message or f"{count} field{'s' if count != 1 else ''} of the input would not do.")


class BadRequest(ServiceError):
    """The request fits its schema but makes no sense."""

    code = "bad_request"
    status = 400


class UnknownTask(BadRequest):
    """No such task type."""

    code = "unknown_task"


class UnknownName(BadRequest):
    """A name in the input means nothing here."""

    code = "unknown_name"

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__(" ".join(error.detail for error in errors[:3]))


class MalformedJson(BadRequest):
    """The body is not JSON."""

    code = "malformed_json"


class Unauthenticated(ServiceError):
    """A valid API key is needed: send it as 'Authorization: Bearer <key>'."""

    code = "unauthenticated"
    status = 401


class Forbidden(ServiceError):
    """This key may not do that."""

    code = "forbidden"
    status = 403


class NotFound(ServiceError):
    """Not found."""

    code = "not_found"
    status = 404


class Conflict(ServiceError):
    """The job is not in a state that allows this."""

    code = "conflict"
    status = 409


class UniqueKeyTaken(Conflict):
    """A live task has this unique_key."""

    code = "unique_key_taken"


class RequestRepeated(Conflict):
    """A request with this Idempotency-Key is being answered; ask again shortly."""

    code = "request_in_flight"


class IdempotencyKeyReused(ServiceError):
    """This Idempotency-Key was used for another request; take a new key for a new request."""

    code = "idempotency_key_reused"
    status = 422


class TooLarge(ServiceError):
    """The body is larger than this route takes."""

    code = "too_large"
    status = 413


class RateLimited(ServiceError):
    """This caller asks too often."""

    code = "rate_limited"
    status = 429

    def __init__(
        self, message: str | None = None, *, retry_after_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        super().__init__(message)


class TooManyTries(RateLimited):
    """Too many failed logins; wait before the next."""

    code = "too_many_tries"


class QuotaExceeded(ServiceError):
    """There is no room for more of this."""

    code = "quota_exceeded"
    status = 429


class TooManyStreams(TooManyTries):
    """Too many event streams are open; close one first."""

    code = "too_many_streams"


class Unavailable(ServiceError):
    """The database does not answer; nothing was accepted. Try again shortly."""

    code = "unavailable"
    status = 503


class Overloaded(Unavailable):
    """More is being worked on than there is room for; nothing was accepted. Try again shortly."""

    code = "overloaded"


class TimedOut(ServiceError):
    """This took longer than a request may."""

    code = "request_timeout"
    status = 504


# --- what a job says ---------------------------------------------------------------------------


class Retry(ServiceError):
    """The job asks to be run again later."""

    code = "retry"

    def __init__(self, message: str | None = None, *, after: float | None = None) -> None:
        self.after = after  # seconds; None takes the job type's own backoff
        super().__init__(message)


class Discard(ServiceError):
    """The job asks to end failed at once, without a retry."""

    code = "discarded"


class JobNotFound(Discard):
    """A record that the job needs does not exist."""

    code = "not_found"


class InsufficientData(Discard):
    """There are too few records to do the job on."""

    code = "insufficient_data"


class MemoryExceeded(Discard):
    """The job's process needed more memory than it may have."""

    code = "memory_exceeded"


class ProcessDied(ServiceError):
    """The job's process ended without an answer."""

    code = "process_died"


class AttemptLost(ServiceError):
    """The job is no longer this attempt's: it was cancelled, or another claim has it."""

    code = "attempt_lost"


class SoftTimeLimitExceeded(ServiceError):
    """The soft time limit has passed: finish now, or return what there is."""

    code = "timeout"


class ResultInvalid(Discard):
    """The job's result cannot be stored."""

    code = "result_invalid"


# --- what is wrong with the installation -------------------------------------------------------


class Misconfigured(ServiceError):
    """A setting or a definition is wrong; the process does not start."""

    code = "misconfigured"
