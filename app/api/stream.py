"""The routes to follow tasks by: a websocket where that is asked for, server-sent events where those are accepted."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from aiohttp import WSCloseCode, hdrs, web
from pydantic import Field

from app.api.auth import Caller, bearer_of
from app.api.browsers import check_origin, cookie_caller
from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.filters import EventFilters, event_filter_of
from app.api.hub import TooSlow
from app.api.links import EVENT_STREAM, EventSourceLink, Link, SocketLink
from app.api.news import END, EVENT_TYPES
from app.api.resources import HUB, KEYRING, LINKS
from app.api.stories import ListStory, Setting, Story, TaskStory
from app.credentials.scopes import Scope
from app.errors import BadRequest, Forbidden, ServiceError, Unauthenticated
from app.jobs.fields import Model
from app.live.events import Position, parse_position

TOO_SLOW = 4408

_CODE_OFFSET = 4000  # a refusal closes a websocket with this and its HTTP status: browsers see no earlier answer
_LAST_EVENT_ID = "Last-Event-ID"


class StreamQuery(Model):
    """Where to go on, and who asks."""

    after: Annotated[str, Field(max_length=100)] | None = None
    """The id of the last message that was seen: what came later follows, without a snapshot."""
    ticket: Annotated[str, Field(max_length=4096)] | None = None
    """A ticket in place of the header ``Authorization``, for browsers."""


class ListStreamQuery(EventFilters, StreamQuery):
    """Where to go on, who asks, and which events are wanted."""


def stream_endpoints() -> tuple[Endpoint, ...]:
    """Return the routes below ``/api``."""
    return (
        endpoint("GET", "/events", follow_tasks, access=Access.OPEN, answer_type=EVENT_STREAM),
        endpoint("GET", "/tasks/{task_id}/events", follow_task, access=Access.OPEN, answer_type=EVENT_STREAM),
    )


def stream_aliases() -> tuple[Endpoint, ...]:
    """Return the routes that stand outside ``/api``."""
    return tuple(
        endpoint(
            "GET",
            path,
            work,
            access=Access.OPEN,
            operation_id=f"{work.__name__}_by_alias",
            answer_type=EVENT_STREAM,
        )
        for path, work in (("/ws/tasks", follow_tasks), ("/ws/tasks/{task_id}", follow_task))
    )


async def follow_task(call: Call, query: StreamQuery) -> web.StreamResponse:
    """Follow a task to its end, by websocket or server-sent events: a snapshot, then every later event."""

    def make(setting: Setting) -> Story:
        return TaskStory(setting, call.request.match_info["task_id"])

    return await _Stream(call, query, make).answer()


async def follow_tasks(call: Call, query: ListStreamQuery) -> web.StreamResponse:
    """Follow all one's tasks, administrators everybody's: a snapshot of each live one, then every later event."""

    def make(setting: Setting) -> Story:
        return ListStory(setting, event_filter_of(query, catalogue=call.installation.catalogue, types=EVENT_TYPES))

    return await _Stream(call, query, make).answer()


class _Stream:
    """One answer that goes on."""

    def __init__(self, call: Call, query: StreamQuery, make: Callable[[Setting], Story]) -> None:
        self._call = call
        self._request = call.request
        self._query = query
        self._make = make

    async def answer(self) -> web.StreamResponse:
        """Follow in the way that the client can."""
        socket = SocketLink()
        if socket.is_wanted(self._request):
            self._check_page()
            return await self._answer_by_socket(socket)
        caller = await self._caller()
        self._check_page()
        accepted = self._request.headers.get(hdrs.ACCEPT, "*/*")
        if EVENT_STREAM in accepted and self._request.method == hdrs.METH_GET:
            return await self._answer_by_events(caller)
        if "*/*" in accepted or EVENT_STREAM in accepted:
            raise web.HTTPUpgradeRequired(text=f"Upgrade to a websocket, or send 'Accept: {EVENT_STREAM}'.")
        raise web.HTTPNotAcceptable(text=f"Events are a websocket, or {EVENT_STREAM}.")

    async def _answer_by_socket(self, socket: SocketLink) -> web.StreamResponse:
        """Serve a websocket; refusals come as its close code, because browsers see no other."""
        await socket.open(self._request)
        try:
            caller = await self._caller()
            with self._request.app[LINKS].hold(socket, caller):
                if self._is_over():
                    await socket.close(WSCloseCode.OK, "the task has ended")
                else:
                    await self._serve(socket, self._story(caller), caller)
        except ServiceError as error:
            await socket.close(*_code_of(error))
        self._abort()
        return socket.response

    async def _answer_by_events(self, caller: Caller) -> web.StreamResponse:
        """Serve server-sent events; refusals are ordinary answers."""
        if self._is_over():
            return web.Response(status=204)  # which tells a browser not to come back
        story = self._story(caller)
        await story.check()
        link = EventSourceLink()
        with self._request.app[LINKS].hold(link, caller):
            await link.open(self._request)
            await self._serve(link, story, caller)
        return link.response

    async def _serve(self, link: Link, story: Story, caller: Caller) -> None:
        """Tell until the story ends, the client has left, or its credential has ended."""
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(story, link))
            leaving = group.create_task(_leave(link))
            losing = group.create_task(self._request.app[KEYRING].lost(caller))
            _, others = await asyncio.wait({telling, leaving, losing}, return_when=asyncio.FIRST_COMPLETED)
            # Whoever ends first ends the others, before anybody closes: a close wakes up the one who hears.
            for other in others:
                other.cancel()
        ending = None
        if not telling.cancelled():
            ending = telling.result()
        elif not losing.cancelled():
            ending = _code_of(Unauthenticated("The credential has ended."))
        elif not leaving.cancelled():
            ending = leaving.result()
        if ending is not None:
            await link.close(*ending)
            if ending[0] == TOO_SLOW:
                self._abort()

    async def _caller(self) -> Caller:
        """Return who asks, by bearer token, by a ticket, or by the cookie of a session, and may read tasks."""
        keyring = self._request.app[KEYRING]
        if token := bearer_of(self._request.headers.get(hdrs.AUTHORIZATION)):
            caller = await keyring.caller_of(token)
        elif self._query.ticket is not None:
            caller = await keyring.ticket_holder(self._query.ticket)
        else:
            caller = await cookie_caller(self._request, keyring)
        if caller is None:
            raise Unauthenticated
        if not caller.may(Scope.TASKS_READ):
            raise Forbidden(f"This needs the scope {Scope.TASKS_READ.value!r}, which this credential does not have.")
        return caller

    def _check_page(self) -> None:
        """Raise Forbidden where a page asks that may not: with a cookie ours alone, else those of CORS_ORIGINS too."""
        shows_credential = hdrs.AUTHORIZATION in self._request.headers or self._query.ticket is not None
        check_origin(self._request, allowed=self._call.installation.settings.cors_origins if shows_credential else ())

    def _story(self, caller: Caller) -> Story:
        setting = Setting(
            hub=self._request.app[HUB], installation=self._call.installation, caller=caller, after=self._after()
        )
        return self._make(setting)

    def _seen(self) -> str:
        """Return the id of the last message that the client has seen; a browser that comes back knows it best."""
        return self._request.headers.get(_LAST_EVENT_ID) or self._query.after or ""

    def _after(self) -> Position | None:
        seen = self._seen()
        if not seen:
            return None
        position = parse_position(seen.removesuffix(END))
        if position is None:
            raise BadRequest(f"This is not the id of a message: {seen[:50]!r}; give one as it came, or none.")
        return position

    def _is_over(self) -> bool:
        """Whether the client has seen the end of the one task that it follows."""
        return "task_id" in self._request.match_info and self._seen().endswith(END)

    def _abort(self) -> None:
        """Drop the connection: what a client has not read by now would be kept for it for ever."""
        if self._request.transport is not None:
            self._request.transport.abort()


async def _tell(story: Story, link: Link) -> tuple[int, str]:
    """Tell everything; return the code to close with, and its reason."""
    try:
        return await story.tell(link)
    except ConnectionResetError:
        return WSCloseCode.GOING_AWAY, "the client has left"
    except (TooSlow, TimeoutError):
        return TOO_SLOW, "events were not taken in time"
    except ServiceError as error:
        return _code_of(error)


async def _leave(link: Link) -> tuple[int, str] | None:
    """Wait until the client has left; return a code for one that does not read."""
    try:
        await link.gone()
    except TimeoutError:
        return TOO_SLOW, "events were not taken in time"
    except ConnectionResetError:
        pass
    return None


def _code_of(error: ServiceError) -> tuple[int, str]:
    if error.status >= 500:
        return WSCloseCode.TRY_AGAIN_LATER, error.message
    return _CODE_OFFSET + error.status, error.message
