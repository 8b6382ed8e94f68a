"""One endpoint as a value: from it follow parsing, validation, the route table and the OpenAPI document.

A handler takes the :class:`Call` and, by the names of its parameters, what is read for it:

- ``query``: the query string, validated as the annotated model;
- ``body``: the JSON body, validated as the annotated model;
- ``document``: the JSON body, parsed only; the endpoint names the model that the handler checks it with;
- ``raw``: the bytes of the body.

It returns the annotated answer model, or a response of its own. Its docstring's first line is the summary.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic_core import to_json

from app.api.auth import NOBODY, Caller, bearer_of
from app.api.reading import JSON_TYPES, MIB, check_media_type, read_body, read_query
from app.api.resources import INSTALLATION, KEYRING
from app.errors import Forbidden, Unauthenticated
from app.installation import Installation
from app.jobs.validation import parse_json, validate

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Work = Callable[..., Awaitable[BaseModel | web.StreamResponse]]


class Access(Enum):
    """Who may call."""

    OPEN = "open"  #: anybody; the handler itself may still ask for a key
    CALLER = "caller"  #: whoever has a key
    ADMIN = "admin"  #: the administrator


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as its handler sees it."""

    request: web.Request
    caller: Caller
    installation: Installation
    headers: dict[str, str] = field(default_factory=dict)  # what the handler wants the answer to carry


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation of the HTTP contract."""

    method: Method
    path: str  # below the prefix, "/tasks/{task_id}"
    work: Work
    summary: str
    operation_id: str
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: type[BaseModel] | None  # None: the handler makes the response
    status: int
    access: Access
    body_limit: int
    media_types: tuple[str, ...]
    aliases: tuple[str, ...]  # other paths of the same operation
    other_answers: Mapping[int, type[BaseModel]]  # by their status
    takes_key: bool  # whether a request may carry an Idempotency-Key
    reads: tuple[tuple[str, Any], ...]  # the handler's parameters: name and annotation

    def handler(self) -> Handler:
        """Return the handler that aiohttp calls."""

        async def handle(request: web.Request) -> web.StreamResponse:
            caller = admit(request, self.access)
            call = Call(request=request, caller=caller, installation=request.app[INSTALLATION])
            given = {name: await self._read(request, name, annotation) for name, annotation in self.reads}
            answer = await self.work(call, **given)
            if isinstance(answer, web.StreamResponse):
                return answer
            return json_response(answer, status=self.status, headers=call.headers)

        return handle

    async def _read(self, request: web.Request, name: str, annotation: Any) -> object:
        if name == "query":
            return read_query(annotation, request)
        check_media_type(request, self.media_types)
        raw = await read_body(request, self.body_limit)
        if name == "raw":
            return raw
        document = parse_json(raw)
        return validate(annotation, document) if name == "body" else document


def endpoint(
    method: Method,
    path: str,
    work: Work,
    *,
    status: int = 200,
    access: Access = Access.CALLER,
    body: type[BaseModel] | None = None,
    answer: type[BaseModel] | None = None,
    other_answers: Mapping[int, type[BaseModel]] = MappingProxyType({}),
    takes_key: bool = False,
    body_limit: int = MIB,
    media_types: tuple[str, ...] = JSON_TYPES,
    aliases: tuple[str, ...] = (),
    summary: str | None = None,
    operation_id: str = "",
) -> Endpoint:
    """Define an endpoint; what is not said follows from the signature of ``work``."""
    hints = get_type_hints(work)
    returned = hints.pop("return")
    hints.pop("call")
    return Endpoint(
        method=method,
        path=path,
        work=work,
        summary=summary or (inspect.getdoc(work) or "").splitlines()[0],
        operation_id=operation_id or str(getattr(work, "__name__", path)),
        body=body or hints.get("body"),
        query=hints.get("query"),
        answer=answer or (None if issubclass(returned, web.StreamResponse) else returned),
        status=status,
        access=access,
        body_limit=body_limit,
        media_types=media_types,
        aliases=aliases,
        other_answers=other_answers,
        takes_key=takes_key,
        reads=tuple(hints.items()),
    )


def admit(request: web.Request, access: Access) -> Caller:
    """Return who is calling; raise Unauthenticated or Forbidden if they may not."""
    if access is Access.OPEN:
        return NOBODY
    token = bearer_of(request.headers.get(hdrs.AUTHORIZATION))
    caller = request.app[KEYRING].caller_of(token) if token else None
    if caller is None:
        raise Unauthenticated("This API key is not known." if token else None)
    if access is Access.ADMIN and not caller.is_admin:
        raise Forbidden("This is for administrators only.")
    return caller


def json_response(answer: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a model as JSON."""
    return web.Response(body=to_json(answer), status=status, content_type="application/json", headers=headers)
