"""What surrounds every request: its id, its log line, its metrics, and the headers for browsers."""

import re
import time
from collections.abc import Awaitable, Callable, Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict, istr

from app.api.problems import answer_error
from app.api.resources import METRICS, RATE, REQUEST_ID
from app.api.time_limit import TimeLimit, TookTooLong
from app.clock import new_id
from app.errors import TimedOut
from app.log import bind_request, get_log

X_REQUEST_ID = istr("X-Request-ID")

log = get_log()

_GIVEN_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # what a proxy in front may call a request
_EXPOSED = f"Location, Retry-After, RateLimit, RateLimit-Policy, Idempotency-Replayed, {X_REQUEST_ID}"
_ALLOWED = f"Authorization, Content-Type, Idempotency-Key, {X_REQUEST_ID}"
_METHODS = "GET, POST, PATCH, DELETE"
_PREFLIGHT_S = "600"
_SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
# What is no page shows and runs nothing at all; a page only what comes from here, and nothing that stands inside it.
_DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGE_SAFETY = CIMultiDict({**_SAFETY, "Content-Security-Policy": _PAGE_POLICY})
_DATA_SAFETY = CIMultiDict({**_SAFETY, "Content-Security-Policy": _DATA_POLICY})

Prepare = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def surround(*, limit: TimeLimit, origins: Collection[str]) -> Middleware:
    """Make the middleware that gives each request an id and its time, answers what it raises, counts and times it.

    One, since each more that only passes requests on takes as long as a lesser part of a submit.
    """
    note = _Notes()

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(X_REQUEST_ID)
        request_id = new_id() if given is None or not _GIVEN_ID.fullmatch(given) else given
        request[REQUEST_ID] = request_id
        bind_request(request_id)
        started = time.perf_counter()
        try:
            if origins and _is_preflight(request, origins):
                response: web.StreamResponse = _answer_preflight()
            else:
                response = await limit.hold(handler(request))
        except TookTooLong:
            late = TimedOut(f"This took longer than the {limit.limit_s:g} s that a request may take.")
            response = answer_error(late, request)
        except Exception as error:  # the last stop: whatever this is, the client gets an answer and the log the cause
            response = answer_error(error, request)
        note(request, response.status, time.perf_counter() - started)
        return response

    return answer


class _Notes:
    """Counts, times and logs answers, each by its route: the path's ids would make a time series each.

    Every request passes here, so a route's name is made once, and the logger bound once.
    """

    def __init__(self) -> None:
        self._names: dict[web.AbstractResource, str] = {}
        self._log = log.bind()

    def __call__(self, request: web.Request, status: int, duration_s: float) -> None:
        resource, method = request.match_info.route.resource, request.method
        name = "none" if resource is None else self._names.get(resource) or self._name(resource)
        counted = method if method in hdrs.METH_ALL else "other"
        request.app[METRICS].count_request(method=counted, route=name, status=status, duration_s=duration_s)
        self._log.debug("request_answered", method=method, route=name, status=status, duration_s=duration_s)

    def _name(self, resource: web.AbstractResource) -> str:
        name = self._names[resource] = resource.canonical.rstrip("/")
        return name


def _is_preflight(request: web.Request, origins: Collection[str]) -> bool:
    """Whether this is the question that browsers ask before a call from another, allowed origin."""
    is_asked = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return is_asked and _allowed_origin(request, origins) is not None


def _answer_preflight() -> web.Response:
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _ALLOWED,
        hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_S,
    }
    return web.Response(status=204, headers=headers)


def add_headers(*, limit: TimeLimit, origins: Collection[str]) -> Prepare:
    """Make the signal that completes the headers of every response, a websocket's and a problem's too.

    Other origins show keys in headers; the cookie is for our own pages alone, so none is ever allowed credentials.
    """

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        if not isinstance(response, web.Response):  # a stream: it begins before its handler is done
            limit.lift()
        headers = response.headers
        headers[X_REQUEST_ID] = request.get(REQUEST_ID, "")
        if RATE in request:
            headers.update(request[RATE])
        is_page = headers.get(hdrs.CONTENT_TYPE, "").startswith("text/html")
        headers.update(_PAGE_SAFETY if is_page else _DATA_SAFETY)
        headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        if not origins:
            return
        headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin := _allowed_origin(request, origins):
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    return prepare


def _allowed_origin(request: web.Request, origins: Collection[str]) -> str | None:
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return None
    if origin in origins:
        return origin
    return "*" if "*" in origins else None
