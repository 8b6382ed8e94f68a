"""Problem answers (RFC 9457) for everything that goes wrong. Imported by the API alone."""

import math
from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web
from pydantic_core import to_json

from app.api.resources import request_id_of
from app.errors import FieldError, RateLimited, ServiceError, Unauthenticated, Unavailable
from app.jobs.fields import Model
from app.log import get_log

MEDIA_TYPE = "application/problem+json"

log = get_log()

_RETRY_AFTER_S = "2"
_CODES = {413: "too_large"}


class ProblemField(Model):
    """One thing that is wrong with the input."""

    pointer: str
    """Where, as a JSON pointer into the body, or ``/name`` of a query parameter."""
    code: str
    """What is wrong, stable and machine-readable."""
    detail: str
    """What would be right, for people."""


class Problem(Model):
    """Why a request was not done."""

    type: str
    """The kind of problem, as a URN that ends in its code."""
    title: str
    """The kind of problem in words; the same for every occurrence."""
    status: int
    """The HTTP status."""
    detail: str
    """What was wrong this time, and what would be right."""
    instance: str
    """The path that was asked for."""
    code: str
    """The kind of problem, stable and machine-readable."""
    request_id: str
    """The request's id, also in the header X-Request-ID and in the log."""
    errors: tuple[ProblemField, ...] = ()
    """Every single thing that is wrong with the input."""


def answer_service_error(error: ServiceError, request: web.Request) -> web.Response:
    """Turn an error of ours into its answer."""
    title = (type(error).__doc__ or error.code).strip().splitlines()[0].rstrip(".")
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="jobs"'
    if isinstance(error, Unavailable):
        headers["Retry-After"] = _RETRY_AFTER_S
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    problem = _problem(
        request, status=error.status, code=error.code, title=title, detail=error.message, errors=error.errors
    )
    return _answer(problem, headers)


def answer_http_error(error: web.HTTPException, request: web.Request) -> web.Response:
    """Turn an error of the framework (no such path, method not allowed …) into its answer."""
    title = HTTPStatus(error.status).phrase
    code = _CODES.get(error.status) or title.lower().replace(" ", "_")
    detail, headers = _said(error), {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail, headers["Allow"] = f"{request.method} is not allowed here; allowed are: {allowed}.", allowed
    if isinstance(error, web.HTTPUpgradeRequired):
        headers["Upgrade"] = "websocket"
    if isinstance(error, web.HTTPNotFound):
        detail = f"There is nothing at {request.path}: not found."
    return _answer(_problem(request, status=error.status, code=code, title=title, detail=detail), headers)


def answer_broken_head(plain: web.StreamResponse, request: web.BaseRequest, reason: str | None) -> web.Response:
    """Turn the framework's plain answer to what is no HTTP, or has too long a head, into a problem."""
    title = HTTPStatus(plain.status).phrase
    problem = Problem(
        type="urn:problem:broken_head",
        title=title,
        status=plain.status,
        detail=f"This is not HTTP as it should be, or its head is too long: {(reason or title)[:200]}",
        instance=request.path,
        code="broken_head",
        request_id=request_id_of(request),
    )
    answer = _answer(problem, {})
    answer.force_close()
    return answer


def answer_error(error: Exception, request: web.Request) -> web.Response:
    """Turn whatever went wrong into a problem, so that no client ever sees a traceback or HTML; raise a redirect."""
    match error:
        case ServiceError():
            if error.status >= 500:
                # The first line alone: the database's others quote the statement and its parameters.
                reason = str(error.__cause__ or error).partition("\n")[0]
                log.warning("request_refused", code=error.code, reason=reason)
            return answer_service_error(error, request)
        case web.HTTPException():
            if error.status < 400:
                raise error
            return answer_http_error(error, request)
    log.error("request_failed", method=request.method, path=request.path, exc_info=error)
    return answer_service_error(ServiceError("Something went wrong on our side."), request)


def _said(error: web.HTTPException) -> str:
    standard = f"{error.status}: {error.reason}"
    return (
        error.text
        if error.text and error.text != standard
        else f"{HTTPStatus(error.status).description or error.reason}."
    )


def _problem(
    request: web.Request, *, status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()
) -> Problem:
    return Problem(
        type=f"urn:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        instance=request.path,
        code=code,
        request_id=request_id_of(request),
        errors=tuple(ProblemField(pointer=error.pointer, code=error.code, detail=error.detail) for error in errors),
    )


def _answer(problem: Problem, headers: dict[str, str]) -> web.Response:
    return web.Response(body=to_json(problem), status=problem.status, content_type=MEDIA_TYPE, headers=headers)
