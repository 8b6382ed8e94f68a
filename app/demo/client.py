"""The service as any client sees it: HTTP, a bearer token, a websocket. Imported inside the demo alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import orjson
from pydantic import ConfigDict, JsonValue, ValidationError

from app.errors import ServiceError
from app.jobs.catalogue import AnyJobType
from app.jobs.fields import Model, Params
from app.jobs.status import Status

_ANSWER_S = 15.0  # for one request, and between two messages of a websocket
_PAUSE_S = 0.2  # before a websocket that was cut is opened again


class View(Model):
    """What the demo reads of a task, from an answer or an event."""

    model_config = ConfigDict(extra="ignore")  # a client must not mind what a later version adds

    task_id: str
    """The id of the task."""
    status: Status
    """Where it is in its life."""
    progress: float = 0
    """How far it is, 0–100."""
    progress_message: str | None = None
    """What it is doing, in words."""
    error_message: str | None = None
    """Why its last attempt failed."""
    duration_seconds: float | None = None
    """How long its latest attempt ran; events that are not the last do not say."""
    result: JsonValue = None
    """What it returned, once completed."""


class Client:
    """One caller of the API. Raises ServiceError in a sentence when the service says no, or nothing."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def is_ready(self) -> bool:
        """Whether the API takes work."""
        try:
            async with self._session.get("/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def store(self, kind: str, ndjson: bytes) -> int:
        """Store records, all or none; return how many the service says there are of them."""
        answer = await self._call("POST", f"/api/records/{kind}", ndjson, content_type="application/x-ndjson")
        stored = answer.get("stored") if isinstance(answer, dict) else None
        if not isinstance(stored, int):
            raise ServiceError(f"This is not how the service says that it stored records: {answer}")
        return stored

    async def submit(self, job_type: AnyJobType, params: Params) -> str:
        """Submit a task by the route of its type and return its id."""
        body = orjson.dumps({"parameters": params.model_dump(mode="json")})
        answer = await self._call("POST", f"/api/tasks/{job_type.route}", body)
        return _read(answer).task_id

    async def follow(self, task_id: str, show: Callable[[View], None]) -> View:
        """Show every change of a task, live, until it has ended; return it as it ended.

        A connection that is cut is made again, so that only the caller's limit ends the wait.
        """
        while True:
            last = await self._listen(task_id, show)
            if last is None:  # cut before the end: the row knows
                last = _read(await self._call("GET", f"/api/tasks/{task_id}"))
                show(last)
            if last.status.is_final:
                return last
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, task_id: str, show: Callable[[View], None]) -> View | None:
        """Return the end of the task as the websocket told it; None when the connection went first."""
        limits = aiohttp.ClientWSTimeout(ws_receive=_ANSWER_S, ws_close=1)
        try:
            async with self._session.ws_connect(f"/api/tasks/{task_id}/events", timeout=limits) as socket:
                async for message in socket:
                    view = _read(message.json().get("data"))
                    show(view)
                    if view.status.is_final:
                        return view
        except (aiohttp.ClientError, TimeoutError):
            return None
        return None

    async def _call(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> JsonValue:
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._session.request(method, path, data=body, headers=headers) as answer:
                content: JsonValue = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ServiceError(f"{method} {path} was not answered: {str(error) or 'it took too long'}.") from error
        if answer.status >= 400:
            detail = content.get("detail") if isinstance(content, dict) else content
            raise ServiceError(f"{method} {path} was refused with {answer.status}: {detail}")
        return content


@asynccontextmanager
async def open_client(address: str, key: str) -> AsyncIterator[Client]:
    """Open a client of the API at ``address`` (``http://host:port``) with a key, and close it at the end."""
    headers = {"Authorization": f"Bearer {key}"}
    limit = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(address, headers=headers, timeout=limit) as session:
        yield Client(session)


def _read(answer: JsonValue) -> View:
    try:
        return View.model_validate(answer)
    except ValidationError as error:
        raise ServiceError(f"This is not what the service calls a task: {error}") from error
