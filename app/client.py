"""A typed client of the service's HTTP contract. For programs outside, the command line and the demo.

``async with Client(url, token) as client: task = await client.submit("system.echo", {"payload": 1})``

Every call has a time limit. What is safe to repeat is repeated with backoff when the connection is lost or the
service is busy: reads always, submits because each carries an idempotency key of its own, records because they
have ids. Refusals are raised as :class:`Refused`, by kind; silence as :class:`NoAnswer`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

import aiohttp
import orjson
from aiohttp import hdrs
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from app.errors import FieldError, ServiceError
from app.jobs.status import Status

ANSWER_S = 15.0  # for one request
HEARTBEAT_S = 20.0  # of the service; a stream that is silent for twice as long is opened again

_TRIES = 5
_BACKOFF_S, _LONGEST_S = 0.2, 5.0
_BUSY = frozenset({429, 502, 503, 504})
_CODE_OFFSET = 4000
_END = ".end"
_NDJSON = "application/x-ndjson"


class Answer(BaseModel):
    """What the service says; a client must not mind what a later version adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


A = TypeVar("A", bound=Answer)


class TaskView(Answer):
    """A task, as an answer or an event shows it; events that are not the last leave most of it out."""

    task_id: str
    task_name: str = ""
    queue: str = ""
    user_id: str | None = None
    status: Status
    priority: int | None = None
    progress: float = 0
    progress_message: str | None = None
    stage: str | None = None
    result: JsonValue = None
    error_message: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_seconds: float | None = None
    retried_from: str | None = None
    message: str | None = None


class StreamEvent(Answer):
    """One message of a stream."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, JsonValue]

    @property
    def task(self) -> TaskView | None:
        """The task that it is about, None for a message about something else."""
        return _read(TaskView, self.data) if "task_id" in self.data else None


class TaskPage(Answer):
    """One page of a list."""

    tasks: tuple[TaskView, ...]
    total_count: int
    next_cursor: str | None


class Refused(ServiceError):
    """The service refused; ``http_status``, ``problem_code``, ``request_id`` and ``errors`` say why."""

    def __init__(self, what: str, http_status: int, problem: Mapping[str, Any]) -> None:
        self.http_status = http_status
        self.problem_code = str(problem.get("code", "unknown"))
        self.request_id = str(problem.get("request_id", ""))
        fields = problem.get("errors", ())
        self.errors = [FieldError(**{name: str(found.get(name, "")) for name in _FIELDS}) for found in fields]
        said = "".join(f"\n  {error.pointer}: {error.detail}" for error in self.errors)
        super().__init__(f"{what} was refused with {http_status}: {problem.get('detail', 'without a word')}{said}")


class NotAuthenticated(Refused):
    """The credential is not known, or has ended."""


class NotAllowed(Refused):
    """The credential does not allow this."""


class NotThere(Refused):
    """There is no such thing that the caller may see."""


class InConflict(Refused):
    """The thing is not in a state that allows this."""


class NotAccepted(Refused):
    """The input will not do."""


class TooMuch(Refused):
    """Too many requests, or too many streams."""


class NoAnswer(ServiceError):
    """The service did not answer, or not in its own language."""


_FIELDS = ("pointer", "code", "detail")
_KINDS: Mapping[int, type[Refused]] = {
    400: NotAccepted,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotThere,
    409: InConflict,
    413: NotAccepted,
    422: NotAccepted,
    429: TooMuch,
}


class _Reply(NamedTuple):
    status: int
    content: Any
    retry_after_s: float


class Client:
    """One caller of the API at ``url`` (``http://host:port``). An asynchronous context manager."""

    def __init__(self, url: str, token: str, *, answer_s: float = ANSWER_S) -> None:
        self._session = aiohttp.ClientSession(
            url,
            headers={hdrs.AUTHORIZATION: f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=answer_s),
            raise_for_status=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def is_ready(self) -> bool:
        """Whether the API takes work."""
        try:
            async with self._session.get("/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def submit(
        self, name: str, params: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None, **options: Any
    ) -> TaskView:
        """Submit a task by its kind, an alias, or its route (``ari/analyze-trends``).

        ``options`` are those of the contract: priority, user_id, countdown, eta, unique_key …
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        if "/" in name:
            path, body = f"/api/tasks/{name}", {**options, "parameters": params or {}}
        else:
            path, body = "/api/tasks/enqueue", {**options, "task_name": name, "params": params or {}}
        return _read(TaskView, await self._call("POST", path, json=body, headers=headers, is_safe=True))

    async def submit_batch(
        self, tasks: Iterable[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[str]:
        """Submit up to 10,000 tasks, all or none, each as ``{task_name, params, …}``; return their ids in order."""
        body = b"\n".join(map(orjson.dumps, tasks))
        headers = {"Idempotency-Key": idempotency_key or str(uuid4()), hdrs.CONTENT_TYPE: _NDJSON}
        answer = await self._call("POST", "/api/tasks/batch", data=body, headers=headers, is_safe=True)
        return [str(task_id) for task_id in answer["task_ids"]]

    async def store_records(self, kind: str, records: Iterable[Mapping[str, Any]] | bytes) -> int:
        """Store records, all or none, given as mappings or as NDJSON; return how many the service stored."""
        body = records if isinstance(records, bytes) else b"\n".join(map(orjson.dumps, records))
        headers = {hdrs.CONTENT_TYPE: _NDJSON}
        answer = await self._call("POST", f"/api/records/{kind}", data=body, headers=headers, is_safe=True)
        return int(answer["stored"])

    async def get(self, task_id: str) -> TaskView:
        """Return a task; raise NotThere if there is none."""
        return _read(TaskView, await self._call("GET", _path(task_id), is_safe=True))

    async def cancel(self, task_id: str, *, terminate: bool = True) -> Status:
        """Cancel a task, a running one unless ``terminate`` is False; raise InConflict if it has ended."""
        query = {"terminate": str(terminate).lower()}
        return Status((await self._call("DELETE", _path(task_id), params=query))["status"])

    async def retry(self, task_id: str) -> TaskView:
        """Run a failed or cancelled task again; return the new task."""
        return _read(TaskView, await self._call("POST", f"{_path(task_id)}/retry"))

    async def page(self, *, cursor: str | None = None, **filters: Any) -> TaskPage:
        """Return one page of tasks, the newest first."""
        query = {name: str(value) for name, value in {**filters, "cursor": cursor}.items() if value is not None}
        return _read(TaskPage, await self._call("GET", "/api/tasks", params=query, is_safe=True))

    async def tasks(self, **filters: Any) -> AsyncIterator[TaskView]:
        """Yield every task that the filters let pass, the newest first, a page at a time."""
        cursor: str | None = None
        while True:
            page = await self.page(cursor=cursor, **filters)
            for task in page.tasks:
                yield task
            if (cursor := page.next_cursor) is None:
                return

    async def wait(self, task_id: str) -> TaskView:
        """Wait until a task has ended, however long that takes; return it."""
        async for event in self.follow(task_id):
            task = event.task
            if task is not None and event.id.endswith(_END):
                return task
        return await self.get(task_id)

    async def follow(self, task_id: str, *, after: str = "") -> AsyncIterator[StreamEvent]:
        """Yield a snapshot of a task and every later event, the last of which is its end.

        A connection that is lost is opened again where it was, for as long as it takes.
        """
        async for event in self._events(f"{_path(task_id)}/events", {}, after):
            yield event
            if event.id.endswith(_END):
                return

    async def follow_all(self, *, after: str = "", **filters: Any) -> AsyncIterator[StreamEvent]:
        """Yield every event of the caller's tasks that the filters let pass, from now on, for ever."""
        query = {name: str(value) for name, value in filters.items() if value is not None}
        async for event in self._events("/api/events", query, after):
            yield event

    async def _events(self, path: str, query: Mapping[str, str], after: str) -> AsyncIterator[StreamEvent]:
        failures = 0
        while True:
            try:
                async for event in self._listen(path, {**query, **({"after": after} if after else {})}):
                    failures, after = 0, event.id or after
                    yield event
            except aiohttp.WSServerHandshakeError as error:
                if error.status in _KINDS and error.status != 429:
                    raise _KINDS[error.status](f"GET {path}", error.status, {"detail": error.message}) from error
                failures += 1
            except (aiohttp.ClientError, TimeoutError):
                failures += 1
            if after.endswith(_END):
                return
            await asyncio.sleep(_pause_s(failures))

    async def _listen(self, path: str, query: Mapping[str, str]) -> AsyncIterator[StreamEvent]:
        """Yield what one connection brings until it is lost; raise Refused when the service closed it for good."""
        limits = aiohttp.ClientWSTimeout(ws_close=1)
        async with self._session.ws_connect(path, params=query, timeout=limits, heartbeat=HEARTBEAT_S) as socket:
            async for message in socket:
                yield _read(StreamEvent, orjson.loads(message.data))
            refusal = (socket.close_code or 0) - _CODE_OFFSET
            if refusal in _KINDS and refusal != 429:
                raise _KINDS[refusal](f"GET {path}", refusal, {"detail": "the stream was closed"})

    async def _call(self, method: str, path: str, *, is_safe: bool = False, **options: Any) -> Any:
        """Ask, again where that is safe; return the answer, raise Refused or NoAnswer."""
        if "json" in options:
            options["data"] = orjson.dumps(options.pop("json"))
            options["headers"] = {hdrs.CONTENT_TYPE: "application/json"} | options.get("headers", {})
        for failures in range(1, _TRIES + 1):
            is_last = not is_safe or failures == _TRIES
            try:
                reply = await self._ask(method, path, options)
            except (aiohttp.ClientError, TimeoutError) as error:
                if is_last:
                    said = str(error) or "it took too long"
                    raise NoAnswer(f"{method} {path} was not answered: {said}.") from error
                await asyncio.sleep(_pause_s(failures))
                continue
            if reply.status < 400:
                return reply.content
            if is_last or not _is_passing(reply):
                problem = reply.content if isinstance(reply.content, dict) else {"detail": reply.content}
                raise _KINDS.get(reply.status, Refused)(f"{method} {path}", reply.status, problem)
            await asyncio.sleep(max(reply.retry_after_s, _pause_s(failures)))
        raise NoAnswer(f"{method} {path} was not answered.")

    async def _ask(self, method: str, path: str, options: Mapping[str, Any]) -> _Reply:
        async with self._session.request(method, path, **options) as answer:
            raw = await answer.read()
            content: Any = raw[:200].decode(errors="replace")
            with suppress(orjson.JSONDecodeError):
                content = orjson.loads(raw)
            wait = answer.headers.get(hdrs.RETRY_AFTER, "")
            return _Reply(answer.status, content, min(float(wait), _LONGEST_S) if wait.isdigit() else 0.0)


def _is_passing(reply: _Reply) -> bool:
    """Whether asking again may help; an earlier try of this very request may still be at work."""
    code = reply.content.get("code") if isinstance(reply.content, dict) else None
    return reply.status in _BUSY or code == "request_in_flight"


def _pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row, a little at random."""
    return float(min(_LONGEST_S, _BACKOFF_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret


def _path(task_id: str) -> str:
    return f"/api/tasks/{task_id}"


def _read(model: type[A], answer: object) -> A:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise NoAnswer(f"This is not how the service speaks: {error}") from error
