"""Structured logging. Every module calls :func:`get_log`; a composition root calls :func:`configure_logging`.

Event names are past-tense facts (``job_settled``). Context (``job_id``, ``kind``, ``attempt``, ``queue``,
``worker_id``) is bound once with :func:`bind_job`; params, results and secrets are never logged.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, cast


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let ``import module`` fail during the block, unless it is loaded already."""
    is_loaded = module in sys.modules
    sys.modules.setdefault(module, cast(Any, None))
    try:
        yield
    finally:
        if not is_loaded:
            del sys.modules[module]


# structlog loads rich where there is one, for tracebacks that nobody prints here: 4 MB of every process.
with _without("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

# Without the frames' local variables, which hold whatever secret was being handled.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


class Named(Protocol):
    """A job that log lines can name."""

    @property
    def names(self) -> dict[str, Any]:
        """What a log line says of it."""


_job: ContextVar[Named | None] = ContextVar("job", default=None)
_request: ContextVar[str | None] = ContextVar("request", default=None)


def bind_job(job: Named) -> None:
    """Name the job in every line that is logged in this task from now on; costs next to nothing until one is."""
    _job.set(job)


def bind_request(request_id: str) -> None:
    """Name the request in every line that is logged in this task and its children from now on; as cheap."""
    _request.set(request_id)


def _name_context(_logger: object, _method: str, event: EventDict) -> EventDict:
    if (request_id := _request.get()) is not None:
        event = {"request_id": request_id, **event}
    job = _job.get()
    return event if job is None else {**job.names, **event}


def configure_logging(level: str = "INFO", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send structlog and the standard library's loggers to standard error in one format."""
    is_console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        _name_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_console
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write: processes may share the file
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.getLevelName(level), logging.WARNING))


def get_log() -> FilteringBoundLogger:
    """Return the project's logger."""
    return cast(FilteringBoundLogger, structlog.get_logger())
