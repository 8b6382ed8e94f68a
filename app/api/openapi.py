"""The OpenAPI 3.1 document, made from the endpoints. Pure."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue, models_json_schema

from app.api.browsers import COOKIE, CSRF_HEADER
from app.api.endpoint import Access, Endpoint
from app.api.examples import example_of
from app.api.problems import MEDIA_TYPE, Problem

PACKAGE = "asyncjobs-service"

_TEMPLATE = "#/components/schemas/{model}"
_DESCRIPTION = "Background jobs over HTTP. Every path below /api is served below /api/v1 as well."

_TAGS = {
    "asyncapi": "What followers are told, as a document.",
    "auth": "Logins, sessions of browsers, and tickets for streams.",
    "dead-letters": "Failed tasks that wait for a decision.",
    "docs": "This documentation.",
    "events": "Streams of what happens to many tasks.",
    "keys": "API keys.",
    "queues": "Pausing queues.",
    "records": "The data that tasks work on.",
    "schedules": "What is submitted by the clock.",
    "tasks": "Submitting, reading and steering tasks.",
    "ws": "The streams under older addresses.",
}
_SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, or the token of a login."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"A browser's session; what changes anything carries its token in the header {CSRF_HEADER}.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Opens one stream, for browsers, which send no headers of their own there.",
    },
}
_PROBLEMS = {
    400: "It fits the schema but makes no sense.",
    401: "No credential, or one that has ended.",
    403: "The credential does not allow this.",
    404: "There is no such thing that the caller may see.",
    406: "The answer is of no type that is accepted.",
    409: "It is not in a state that allows this.",
    413: "The body is too large.",
    415: "The body is of another type, or packed.",
    422: "The input does not fit the schema.",
    426: "A websocket was not asked for.",
    429: "Too much for now; Retry-After says when.",
    503: "The database is out; Retry-After says when.",
}
_GZIP = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["gzip", "identity"]},
    "description": "gzip: the body is packed.",
}

_KEY_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "description": "Makes the request safe to repeat: for 24 hours the same key and body get the first answer again.",
    "examples": ["7f3b2c1e-nightly-report-2026-11-22"],
}


def document_of(endpoints: Iterable[tuple[str, Endpoint]]) -> dict[str, Any]:
    """Return the document of endpoints, each with the prefix it is served under."""
    served = list(endpoints)
    schemas = _Schemas(endpoint for _, endpoint in served)
    paths: dict[str, dict[str, Any]] = {}
    for prefix, endpoint in served:
        for number, path in enumerate((endpoint.path, *endpoint.aliases)):
            operation = _operation(endpoint, path, schemas)
            operation["operationId"] += f"_{number}" if number else ""
            paths.setdefault(prefix + path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": PACKAGE, "version": service_version(), "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": "The service that serves this document."}],
        "tags": _tags(paths),
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": {_problem_name(status): _problem(text, schemas) for status, text in _PROBLEMS.items()},
            "securitySchemes": _SECURITY,
        },
    }


class _Schemas:
    """The schemas of all models, under one name each."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
        for endpoint in endpoints:
            wanted += [(model, "validation") for model in (endpoint.body, endpoint.query) if model is not None]
            answers = [endpoint.answer, *endpoint.other_answers.values()]
            wanted += [(answer, "serialization") for answer in answers if answer is not None]
        self._found, joint = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_TEMPLATE)
        self.definitions: dict[str, JsonSchemaValue] = joint["$defs"]

    def of(self, model: type[BaseModel], mode: JsonSchemaMode) -> JsonSchemaValue:
        return self._found[model, mode]

    def properties(self, model: type[BaseModel]) -> tuple[dict[str, JsonSchemaValue], list[str]]:
        schema = self.definitions[self.of(model, "validation")["$ref"].rpartition("/")[2]]
        return schema.get("properties", {}), schema.get("required", [])


def _operation(endpoint: Endpoint, path: str, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "tags": [_tag(path)],
        "parameters": _parameters(endpoint, path, schemas),
        "responses": {
            **_problems(endpoint, path),
            str(endpoint.status): _answer(endpoint.answer, schemas, endpoint.answer_type),
            **{str(status): _answer(answer, schemas) for status, answer in endpoint.other_answers.items()},
            "default": _problem("A problem.", schemas),
        },
    }
    if endpoint.access is not Access.OPEN:
        operation["security"] = [{"key": []}, {"session": []}]
    elif endpoint.answer_type == "text/event-stream":
        operation["security"] = [{"key": []}, {"session": []}, {"ticket": []}]
    if endpoint.body is not None:
        schema = schemas.of(endpoint.body, "validation")
        example = example_of(schema, schemas.definitions)
        content: dict[str, Any] = {media_type: {"schema": schema} for media_type in endpoint.media_types}
        content[endpoint.media_types[0]]["example"] = example
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(endpoint: Endpoint, path: str, schemas: _Schemas) -> list[dict[str, Any]]:
    in_path = re.findall(r"{(\w+)}", path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path
    ]
    if endpoint.takes_key:
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": _KEY_SCHEMA})
    if endpoint.unpacks:
        parameters.append(_GZIP)
    if endpoint.query is not None:
        properties, required = schemas.properties(endpoint.query)
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in properties.items()
        ]
    return parameters


def _problems(endpoint: Endpoint, path: str) -> dict[str, Any]:
    """Return the problems that a route answers, besides those that nobody foresees."""
    follows = endpoint.answer_type == "text/event-stream"
    is_open = endpoint.access is Access.OPEN and not follows and endpoint.body is None
    statuses = {
        401: not is_open,
        403: not is_open,
        404: "{" in path,
        406: follows,
        409: endpoint.method != "GET",
        413: endpoint.body is not None,
        415: endpoint.body is not None,
        400: endpoint.body is not None or endpoint.query is not None,
        422: endpoint.body is not None or endpoint.query is not None,
        426: follows,
        429: not is_open,
        503: not is_open,
    }
    return {
        str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"}
        for status, is_possible in sorted(statuses.items())
        if is_possible
    }


def _problem_name(status: int) -> str:
    return f"Problem{status}"


def _problem(description: str, schemas: _Schemas) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": schemas.of(Problem, "serialization")}}
    return {"description": description, "content": content}


def _tags(paths: Iterable[str]) -> list[dict[str, str]]:
    used = sorted({_tag(path) for path in paths})
    return [{"name": tag, "description": _TAGS.get(tag, f"What is at /{tag}.")} for tag in used]


def _tag(path: str) -> str:
    """Return what a path is about: its first part behind the prefix."""
    first, *rest = path.removeprefix("/").split("/")
    return (rest[0] if first == "api" and rest else first).partition(".")[0]


def _answer(answer: type[BaseModel] | None, schemas: _Schemas, media_type: str = "application/json") -> dict[str, Any]:
    if answer is None:
        return {"description": "See the summary.", "content": {media_type: {}}}
    schema = schemas.of(answer, "serialization")
    return {"description": "Done.", "content": {media_type: {"schema": schema}}}


def service_version() -> str:
    """Return the version of the package, "0" where it is run from a checkout."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "0"
