"""The composition root of the API process: resources, routes, start and graceful stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import orjson
import uvloop
from aiohttp import web, web_response

from app.api.auth import admin_key_of, open_keyring
from app.api.bulk import bulk_endpoints
from app.api.dead_letters import dead_letter_endpoints
from app.api.docs import docs_endpoints
from app.api.endpoint import Call, Endpoint, Work, endpoint
from app.api.gate import BodyGate, BoundedRunner
from app.api.health import health_endpoints, probe_endpoints
from app.api.hub import Hub
from app.api.inspection import inspection_endpoints
from app.api.intake import intake_endpoints
from app.api.keys import key_endpoints
from app.api.leaving import LEAVING, leave, say_last
from app.api.links import Links
from app.api.middleware import add_headers, surround
from app.api.openapi import document_of
from app.api.operations import operation_endpoints
from app.api.problems import answer_broken_head
from app.api.purges import purge_endpoints
from app.api.queues import queue_endpoints
from app.api.quotas import WaitingQuota
from app.api.rate_limit import open_rate_limit
from app.api.reading import MIB
from app.api.records import MAX_BODY, record_endpoints
from app.api.resources import (
    BODIES,
    HUB,
    INSTALLATION,
    KEYRING,
    LINKS,
    LOGINS,
    METRICS,
    QUOTA,
    RATE_LIMIT,
    THROUGHPUT,
    Logins,
)
from app.api.schedules import schedule_endpoints
from app.api.sessions import session_endpoints
from app.api.stream import stream_aliases, stream_endpoints
from app.api.tasks import task_endpoints
from app.api.throughput import Throughput
from app.api.time_limit import TimeLimit
from app.api.watch import watch_workers
from app.api.webhooks import webhook_endpoints
from app.credentials.keys import KeyMint, create_first_key
from app.credentials.secret import open_secret
from app.history.migrate import head_revision
from app.installation import Installation, check_stores, open_installation
from app.interpreter import tune_interpreter
from app.jobs.schedules import SCHEDULES
from app.log import get_log
from app.metrics import ProcessMetrics
from app.records.record import load_record_types
from app.settings import Settings
from app.steady import dismiss, steadily

PREFIXES = ("/api", "/api/v1")
REREAD_S = 20.0  # how often the rows of followed tasks are read again

log = get_log()

_LINGERING_S = 2.0  # how long the rest of a refused body is read away, so that its sender gets to read the answer
_SHUTDOWN_S = 10.0  # how long requests that are being answered may take when the process is asked to stop


def run(settings: Settings, *, tell_key: Callable[[str], None]) -> None:
    """Serve the API until a signal asks to stop. For a process of its own."""
    uvloop.run(serve(settings, tell_key=tell_key))


async def serve(settings: Settings, *, tell_key: Callable[[str], None]) -> None:
    """Serve the API until SIGTERM or SIGINT; a second signal leaves at once.

    An installation without any credential gets an administrator's key, and ``tell_key`` is told it, once.
    """
    async with open_installation(settings) as installation:
        await check_stores(installation)
        if admin_key_of(settings) is None:
            key = await create_first_key(installation.database, KeyMint(open_secret(settings)))
            if key is not None:
                tell_key(key)
        app = build_app(installation)
        runner = make_runner(app)
        tune_interpreter()
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.host, settings.port)
            await site.start()
            log.info("api_started", addresses=[f"http://{host}:{port}" for host, port, *_ in runner.addresses])
            await _until_told_to_stop()
            log.info("api_stopping")
            await leave(app, runner)
        finally:
            await runner.cleanup()
    log.info("api_stopped")


def build_app(installation: Installation, *, reread_s: float = REREAD_S) -> web.Application:
    """Build the application on an open installation, which the caller closes after it."""
    settings = installation.settings
    origins, limit = settings.cors_origins, TimeLimit(settings.request_timeout_s)
    app = web.Application(
        middlewares=[surround(limit=limit, origins=origins)],
        client_max_size=MAX_BODY,  # every endpoint sets its own limit below this one
    )
    app[INSTALLATION] = installation
    app[KEYRING] = open_keyring(installation.settings, installation.database)
    app[LOGINS] = Logins(installation.redis)
    app[HUB] = Hub(reader=installation.reader, redis=installation.redis, reread_s=reread_s)
    app[THROUGHPUT] = Throughput(installation.redis)
    app[LINKS] = Links(limit=installation.settings.streams_per_caller)
    app[QUOTA] = WaitingQuota(installation.reader, settings.max_waiting_per_user)
    app[BODIES] = BodyGate(settings.max_bodies_mb * MIB)
    rate = open_rate_limit(settings, installation.redis)
    if rate is not None:
        app[RATE_LIMIT] = rate
    app[METRICS] = ProcessMetrics()
    app[LEAVING] = asyncio.Event()
    _add_routes(app, installation)
    app.on_response_prepare.append(add_headers(limit=limit, origins=origins))
    app.on_response_prepare.append(say_last)
    app.on_shutdown.append(_close_links)
    app.cleanup_ctx.append(_background)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """Make what serves the application; packed bodies are not unpacked, so that none can be a bomb."""
    # The only way to reach the answers to what is no HTTP, too: no answer tells which version of what this is.
    web_response.SERVER_SOFTWARE = "jobs"  # type: ignore[attr-defined]  # no option for it
    web.RequestHandler.handle_error = _handle_error  # type: ignore[method-assign,assignment]  # nor for this
    settings = app[INSTALLATION].settings
    return BoundedRunner(
        app,
        most_connections=settings.max_connections,
        keepalive_timeout=settings.idle_timeout_s,  # counts from the last answer, whatever dribbles in meanwhile
        access_log=None,
        auto_decompress=False,
        lingering_time=_LINGERING_S,
        shutdown_timeout=_SHUTDOWN_S,
    )


_plainly = web.RequestHandler.handle_error


def _handle_error(
    handler: web.RequestHandler,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> web.StreamResponse:
    return answer_broken_head(_plainly(handler, request, status, exc, message), request, message)


def _add_routes(app: web.Application, installation: Installation) -> None:
    prefixed = [
        *session_endpoints(),
        *key_endpoints(),
        *operation_endpoints(installation.catalogue),
        *health_endpoints(),
        *intake_endpoints(installation.catalogue),
        *bulk_endpoints(),
        *purge_endpoints(),
        *inspection_endpoints(),
        *task_endpoints(),
        *dead_letter_endpoints(),
        *stream_endpoints(),
        *record_endpoints(load_record_types()),
        *schedule_endpoints(SCHEDULES),
        *queue_endpoints(),
        *docs_endpoints(),
        *webhook_endpoints(),
    ]
    rooted = [*probe_endpoints(head_revision(), metrics_open=installation.settings.metrics_open), *stream_aliases()]
    served = [(PREFIXES[0], found) for found in prefixed] + [("", found) for found in rooted]
    document = endpoint("GET", "/openapi.json", _document_handler(served))
    for prefix in PREFIXES:
        for found in (*prefixed, document):
            _add_route(app, prefix, found)
    for found in rooted:
        _add_route(app, "", found)


def _document_handler(served: list[tuple[str, Endpoint]]) -> Work:
    text = orjson.dumps(document_of(served))

    async def show_document(call: Call) -> web.Response:
        """Show the OpenAPI document."""
        return web.Response(body=text, content_type="application/json")

    return show_document


def _add_route(app: web.Application, prefix: str, found: Endpoint) -> None:
    handler = found.handler(app)
    for path in _spellings(prefix, found):
        if found.method == "GET":
            app.router.add_get(path, handler)  # and HEAD
        else:
            app.router.add_route(found.method, path, handler)


def _spellings(prefix: str, found: Endpoint) -> Iterator[str]:
    """Yield every path an endpoint is found at: a redirect for a trailing slash would lose the body of a POST."""
    for path in (found.path, *found.aliases):
        yield prefix + path
        yield prefix + path + "/"


async def _close_links(app: web.Application) -> None:
    await app[LINKS].close_all()


async def _background(app: web.Application) -> AsyncIterator[None]:
    # Not a TaskGroup: start and clean-up may run in different tasks, and a group belongs to one.
    mend, helpers = app[INSTALLATION].queue.mend, _helpers(app).items()
    tasks = [asyncio.create_task(steadily(name, helper, mend=mend)) for name, helper in helpers]
    for task in tasks:
        task.add_done_callback(_report)
    yield
    await dismiss(tasks)
    await app[KEYRING].note_uses_now()
    app[LOGINS].passwords.close()


def _helpers(app: web.Application) -> dict[str, Callable[[], Awaitable[None]]]:
    house = app[INSTALLATION]
    return {
        "stream": app[HUB].read_stream,
        "rows": app[HUB].reread_rows,
        "throughput": app[THROUGHPUT].run,
        "key_uses": app[KEYRING].note_uses,
        "watch": partial(watch_workers, house.redis, house.outbox),
    }


def _report(task: asyncio.Task[None]) -> None:
    """Log the end of background work that was meant to go on for ever."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_work_failed", reason=repr(error), exc_info=error)


async def _until_told_to_stop() -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told.set)
    await told.wait()
    for number in signals:  # from here on a signal does what it always does
        loop.remove_signal_handler(number)
