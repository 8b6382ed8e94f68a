"""What a failed job is as a dead letter: why it failed, in seven words, and what became of it. No I/O."""

from datetime import timedelta
from enum import StrEnum

KEPT = timedelta(days=30)  # after that nobody is expected to care


class Category(StrEnum):
    """Why a job failed, as far as it matters for what to do about it."""

    TIMEOUT = "timeout"
    """It ran, or waited, for too long."""
    RATE_LIMITED = "rate_limited"
    """Somebody outside asked it to slow down."""
    AUTH_ERROR = "auth_error"
    """It was not let in somewhere."""
    NETWORK_ERROR = "network_error"
    """A connection failed."""
    VALIDATION_ERROR = "validation_error"
    """Its input, or its result, will not do: trying again changes nothing."""
    WORKER_LOST = "worker_lost"
    """The process that ran it died."""
    UNKNOWN = "unknown"
    """Anything else."""


CODES: dict[Category, frozenset[str]] = {
    Category.TIMEOUT: frozenset({"timeout", "expired"}),
    Category.RATE_LIMITED: frozenset({"rate_limited"}),
    Category.AUTH_ERROR: frozenset({"auth_error", "unauthenticated", "forbidden"}),
    Category.NETWORK_ERROR: frozenset({"network_error", "unavailable"}),
    Category.VALIDATION_ERROR: frozenset(
        {
            "validation_error",
            "result_invalid",
            "unknown_task",
            "bad_request",
            "malformed_json",
            "not_found",
            "insufficient_data",
            "too_large",
        }
    ),
    Category.WORKER_LOST: frozenset({"worker_lost", "process_died", "memory_exceeded"}),
}


class Fate(StrEnum):
    """What became of a dead letter."""

    PENDING = "pending"
    """Nobody has done anything about it yet, or what was done has not completed."""
    RECOVERED = "recovered"
    """It was run again, and that completed."""
    DISCARDED = "discarded"
    """Somebody has given it up."""
    EXPIRED = "expired"
    """It failed more than 30 days ago."""


def category_of(code: str | None) -> Category:
    """Return the category of an error's code."""
    return next((category for category, codes in CODES.items() if code in codes), Category.UNKNOWN)
