"""Following one task over a websocket: a snapshot, then every newer event, at last the end."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
from aiohttp import WSCloseCode, WSMsgType, hdrs, web
from pydantic_core import to_json

from app.api.auth import Caller, bearer_of
from app.api.browsers import check_origin, cookie_caller
from app.api.endpoint import Access, Call, Endpoint, endpoint, identify
from app.api.hub import Follower, Hub, TooSlow, is_newer
from app.api.resources import HUB, KEYRING, SOCKETS
from app.api.schemas import Task, task_of
from app.api.views import find_visible, latest_progress
from app.clock import iso, utc_now
from app.credentials.scopes import Scope
from app.errors import Unavailable
from app.history.rows import Job
from app.installation import Installation
from app.live.events import Event, ending_of
from app.live.progress import Progress

HEARTBEAT_S = 20.0
NOT_AUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_SLOW = 4401, 4403, 4404, 4408

_SEND_S = 10.0  # a client that has not taken a message by then is cut
_CLOSE_S = 2.0
_MAX_HEARD = 4096  # bytes of one message from a client; none is expected


def stream_endpoints() -> tuple[Endpoint, ...]:
    """Return the routes below ``/api``."""
    return (endpoint("GET", "/tasks/{task_id}/events", follow_task, access=Access.OPEN),)


def stream_aliases() -> tuple[Endpoint, ...]:
    """Return the routes that stand outside ``/api``."""
    return (
        endpoint("GET", "/ws/tasks/{task_id}", follow_task, access=Access.OPEN, operation_id="follow_task_by_alias"),
    )


async def follow_task(call: Call) -> web.StreamResponse:
    """Follow a task over a websocket, with a bearer token, a browser's session, or a ``?ticket=``."""
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, timeout=_CLOSE_S, compress=False, max_msg_size=_MAX_HEARD)
    if not socket.can_prepare(call.request).ok:
        await identify(call.request)
        raise web.HTTPUpgradeRequired(text="Events are a websocket: send an upgrade request.")
    _check_page(call)
    await socket.prepare(call.request)
    sockets = call.request.app[SOCKETS]
    sockets.add(socket)
    try:
        await _serve(socket, call)
    finally:
        sockets.discard(socket)
    return socket


async def close_sockets(app: web.Application) -> None:
    """Tell every client that this process goes away; they may come back to another."""
    sockets = app[SOCKETS]
    async with asyncio.TaskGroup() as group:
        for socket in tuple(sockets):
            group.create_task(_close(socket, WSCloseCode.GOING_AWAY, "the service restarts"))


async def _serve(socket: web.WebSocketResponse, call: Call) -> None:
    """Speak until the task has ended or the client has left; refusals come here, as browsers see no earlier one."""
    request = call.request
    try:
        caller = await _caller_of(request)
    except Unavailable as error:
        await _close(socket, WSCloseCode.TRY_AGAIN_LATER, error.message)
        return
    if caller is None:
        await _close(socket, NOT_AUTHENTICATED, "a valid credential is needed")
        return
    if not caller.may(Scope.TASKS_READ):
        await _close(socket, FORBIDDEN, f"this needs the scope {Scope.TASKS_READ.value}")
        return
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(_tell(socket, call, caller))
        hearing = group.create_task(_hear(socket))
        watching = group.create_task(request.app[KEYRING].lost(caller))
        _, others = await asyncio.wait({telling, hearing, watching}, return_when=asyncio.FIRST_COMPLETED)
        # Whoever ends first ends the others, before anybody closes: a close wakes up the one who hears.
        for other in others:
            other.cancel()
    if not telling.cancelled():
        await _close(socket, *telling.result())
    elif not watching.cancelled():
        await _close(socket, NOT_AUTHENTICATED, "the credential has ended")
    if request.transport is not None:
        request.transport.abort()  # what a client has not read by now would be kept for it for ever


async def _caller_of(request: web.Request) -> Caller | None:
    """Return who asks: by bearer token, by a ticket, or by the cookie of a session."""
    keyring = request.app[KEYRING]
    if token := bearer_of(request.headers.get(hdrs.AUTHORIZATION)):
        return await keyring.caller_of(token)
    if ticket := request.query.get("ticket"):
        return await keyring.ticket_holder(ticket)
    return await cookie_caller(request, keyring)


def _check_page(call: Call) -> None:
    """Raise Forbidden where a page asks that may not: with a cookie our own alone, else those of CORS_ORIGINS too."""
    shows_credential = hdrs.AUTHORIZATION in call.request.headers or "ticket" in call.request.query
    check_origin(call.request, allowed=call.installation.settings.cors_origins if shows_credential else ())


async def _hear(socket: web.WebSocketResponse) -> None:
    """Return once the connection is closed, by whichever side; what clients say is not listened to."""
    async for _ in socket:
        pass


async def _tell(socket: web.WebSocketResponse, call: Call, caller: Caller) -> tuple[int, str]:
    """Tell the client everything; return the code to close with, and its reason."""
    story = _Story(
        socket=socket,
        hub=call.request.app[HUB],
        installation=call.installation,
        caller=caller,
        job_id=call.request.match_info["task_id"],
    )
    try:
        return await story.tell()
    except ConnectionResetError:
        return WSCloseCode.GOING_AWAY, "the client has left"
    except (TooSlow, TimeoutError):
        return TOO_SLOW, "events were not taken in time"
    except Unavailable as error:
        return WSCloseCode.TRY_AGAIN_LATER, error.message


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What one client is told of one task."""

    socket: web.WebSocketResponse
    hub: Hub
    installation: Installation
    caller: Caller
    job_id: str

    async def tell(self) -> tuple[int, str]:
        """Tell everything; return the close code and its reason."""
        async with self.hub.follow(self.job_id) as follower:  # first: what happens from here on is not missed
            job = await find_visible(self.installation.reader, self.job_id, self.caller)
            if job is None:
                return NOT_FOUND, "no such task"
            progress = (await latest_progress(self.installation.redis, [job])).get(job.id)
            task = self._task(job, progress)
            await self._send(self.hub.position, "task.snapshot", utc_now(), to_json(task))
            if job.status.is_final:
                return await self._end(job, self.hub.position)
            return await self._tell_news(follower, _seen(job, task))

    async def _tell_news(self, follower: Follower, last: Event) -> tuple[int, str]:
        while True:
            published = await follower.next()
            event = published.event
            if not is_newer(event, last):
                continue
            if event.status.is_final:
                job = await self._ended()
                if job is None:
                    continue
                return await self._end(job, published.id)
            await self._send(published.id, event.type, event.at, orjson.dumps(_change(event)))
            last = event

    async def _ended(self) -> Job | None:
        """Return the row if it has ended; None leaves it to the next reading of the rows."""
        try:
            job = await find_visible(self.installation.reader, self.job_id, self.caller)
        except Unavailable:
            return None
        return job if job is not None and job.status.is_final else None

    async def _end(self, job: Job, position: str) -> tuple[int, str]:
        await self._send(position, f"task.{job.status}", job.completed_at or utc_now(), to_json(self._task(job)))
        return WSCloseCode.OK, "the task has ended"

    def _task(self, job: Job, progress: Progress | None = None) -> Task:
        return task_of(job, progress=progress, for_admin=self.caller.is_admin)

    async def _send(self, position: str, name: str, at: datetime, content: bytes) -> None:
        message = {"id": position, "type": name, "timestamp": iso(at), "data": orjson.Fragment(content)}
        async with asyncio.timeout(_SEND_S):
            await self.socket.send_frame(orjson.dumps(message), WSMsgType.TEXT)


def _seen(job: Job, task: Task) -> Event:
    return replace(ending_of(job), progress=task.progress)


def _change(event: Event) -> dict[str, Any]:
    return {
        "task_id": event.job_id,
        "task_name": event.kind,
        "queue": event.queue,
        "user_id": event.user_id,
        "status": event.status,
        "attempt": event.attempt,
        "progress": event.progress,
        "progress_message": event.message,
        "stage": event.stage,
        "error_message": event.error,
    }


async def _close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    with suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(_CLOSE_S + 1):
            await socket.close(code=code, message=reason.encode()[:120])
