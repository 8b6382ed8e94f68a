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
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic_core import to_json

from app.api.auth import NOBODY, Caller, bearer_of
from app.api.browsers import cookie_caller
from app.api.reading import JSON_TYPES, MIB, body_at_hand, check_media_type, read_body, read_query
from app.api.resources import BODIES, INSTALLATION, KEYRING, QUOTA, RATE, RATE_LIMIT, request_id_of
from app.credentials.acts import Act, record_act
from app.credentials.scopes import Scope
from app.errors import Forbidden, RateLimited, ServiceError, Unauthenticated
from app.installation import Installation
from app.jobs.validation import parse_json, validate

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Work = Callable[..., Awaitable[BaseModel | web.StreamResponse]]

_NO_LIMIT = nullcontext()


class Access(Enum):
    """Who may call."""

    OPEN = "open"  #: anybody; the handler itself may still ask for a key
    CALLER = "caller"  #: whoever has a key with the endpoint's scope
    ADMIN = "admin"  #: the administrator


@dataclass(slots=True, kw_only=True)  # not frozen: making it is part of every request, and would take twice as long
class Call:
    """One request as its handler sees it."""

    request: web.Request
    caller: Caller
    installation: Installation
    headers: dict[str, str] = field(default_factory=dict)  # what the handler wants the answer to carry
    foreign: list[str] = field(default_factory=list)  # users whose things an administrator touches here
    powers: list[str] = field(default_factory=list)  # what only an administrator may do that is done here


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
    scope: Scope  # what a caller's key must allow
    is_audited: bool  # whether every call leaves an audit entry; those of administrators do that change something
    body_limit: int
    media_types: tuple[str, ...]
    unpacks: bool  # whether the body may come as gzip; the limit is that of what it holds
    aliases: tuple[str, ...]  # other paths of the same operation
    other_answers: Mapping[int, type[BaseModel]]  # by their status
    answer_type: str  # the media type of the answer
    takes_key: bool  # whether a request may carry an Idempotency-Key
    reads: tuple[tuple[str, Any], ...]  # the handler's parameters: name and annotation

    def handler(self, app: web.Application) -> Handler:
        """Return the handler that aiohttp calls; what it needs of the application is looked up once."""
        installation, bodies = app[INSTALLATION], app[BODIES]
        is_limited = self.access is not Access.OPEN and RATE_LIMIT in app
        takes_body = any(name != "query" for name, _ in self.reads)

        async def handle(request: web.Request) -> web.StreamResponse:
            caller = await admit(request, self.access, self.scope)
            call = Call(request=request, caller=caller, installation=installation)
            if is_limited and not caller.is_admin:
                await take_units(call, 1)
            if not takes_body:
                return await self._do(call)
            # Room for what the request brings; a body without a length may be as long as the route takes.
            length = request.content_length
            size = bodies.admit(self.body_limit if length is None else min(length, self.body_limit))
            try:
                return await self._do(call)
            finally:
                bodies.let_go(size)

        return handle

    async def _do(self, call: Call) -> web.StreamResponse:
        """Read what the handler takes, call it, and leave an audit entry of what changes, however it ends."""
        given = {name: await self._read(call.request, name, annotation) for name, annotation in self.reads}
        result = "internal_error"
        try:
            answer = await self.work(call, **given)
            result = "success"
        except ServiceError as error:
            result = error.code
            raise
        finally:
            if self.is_audited or self._is_admin_act(call):
                act = _act(self.operation_id, call, given.get("query"), result)
                await record_act(call.installation.records, act)
        if isinstance(answer, web.Response):  # asked first: whether something is a model takes as long as to route it
            return answer
        if isinstance(answer, BaseModel):
            return json_response(answer, status=self.status, headers=call.headers)
        return answer

    def _is_admin_act(self, call: Call) -> bool:
        """Whether this is a change that only an administrator can make."""
        return self.method != "GET" and (self.access is Access.ADMIN or bool(call.foreign) or bool(call.powers))

    async def _read(self, request: web.Request, name: str, annotation: Any) -> object:
        if name == "query":
            return read_query(annotation, request)
        check_media_type(request, self.media_types, unpacks=self.unpacks)
        raw = body_at_hand(request, self.body_limit) or await read_body(request, self.body_limit)
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
    scope: Scope | None = None,
    is_audited: bool = False,
    body: type[BaseModel] | None = None,
    answer: type[BaseModel] | None = None,
    other_answers: Mapping[int, type[BaseModel]] = MappingProxyType({}),
    takes_key: bool = False,
    body_limit: int = MIB,
    media_types: tuple[str, ...] = JSON_TYPES,
    unpacks: bool = False,
    aliases: tuple[str, ...] = (),
    answer_type: str = "application/json",
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
        scope=scope or (Scope.TASKS_READ if method == "GET" else Scope.TASKS_WRITE),
        is_audited=is_audited,
        body_limit=body_limit,
        media_types=media_types,
        unpacks=unpacks,
        aliases=aliases,
        other_answers=other_answers,
        answer_type=answer_type,
        takes_key=takes_key,
        reads=tuple(hints.items()),
    )


async def take_units(call: Call, cost: int) -> None:
    """Take units of the caller's rate, and let the answer tell what is left; raise RateLimited."""
    limit = call.request.app.get(RATE_LIMIT)
    if limit is None:
        return
    try:
        call.request[RATE] = await limit.take(call.caller, cost)
    except RateLimited as refused:
        call.request[RATE] = refused.headers
        raise


def room_for(call: Call, count: int) -> AbstractAsyncContextManager[None]:
    """Accept so many tasks of the caller during the block; raise QuotaExceeded where they have no room to wait."""
    quota = call.request.app[QUOTA]
    return quota.held(call.caller, count) if quota.binds(call.caller) else _NO_LIMIT


async def admit(request: web.Request, access: Access, scope: Scope) -> Caller:
    """Return who is calling; raise Unauthenticated or Forbidden if they may not."""
    if access is Access.OPEN:
        return NOBODY
    caller = await identify(request)
    if access is Access.ADMIN and not caller.is_admin:
        raise Forbidden("This is for administrators only.")
    if not caller.may(scope):
        raise Forbidden(f"This needs the scope {scope.value!r}, which this credential does not have.")
    return caller


async def identify(request: web.Request) -> Caller:
    """Return who is calling, by bearer token or by the cookie of a browser's session; raise Unauthenticated."""
    keyring = request.app[KEYRING]
    token = bearer_of(request.headers.get(hdrs.AUTHORIZATION))
    caller = await keyring.caller_of(token) if token else await cookie_caller(request, keyring)
    if caller is None:
        raise Unauthenticated("This credential is not known, or has ended." if token else None)
    return caller


def json_response(answer: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a model as JSON."""
    return web.Response(body=to_json(answer), status=status, content_type="application/json", headers=headers)


def _act(operation_id: str, call: Call, query: object, result: str) -> Act:
    request = call.request
    details: dict[str, Any] = {"request_id": request_id_of(request), "method": request.method}
    if isinstance(query, BaseModel) and (given := query.model_dump(mode="json", exclude_defaults=True)):
        details["query"] = given
    if call.foreign:
        details["users"] = sorted(set(call.foreign))
    if call.powers:
        details["powers"] = sorted(set(call.powers))
    return Act(
        actor=call.caller.user_id,
        action=operation_id,
        resource=request.path,
        result=result,
        component="api",
        details=details,
        ip=request.remote,
        credential=call.caller.proof,
    )
