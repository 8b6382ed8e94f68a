"""The OpenAPI 3.1 document, made from the endpoints. Pure."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue, models_json_schema

from app.api.endpoint import Access, Endpoint
from app.api.problems import MEDIA_TYPE, Problem

PACKAGE = "asyncjobs-service"

_TEMPLATE = "#/components/schemas/{model}"
_DESCRIPTION = "Background jobs over HTTP. Every path below /api is served below /api/v1 as well."

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
        "info": {"title": PACKAGE, "version": _version(), "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token."}},
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
        "tags": [path.split("/")[1]],
        "parameters": _parameters(endpoint, path, schemas),
        "responses": {
            str(endpoint.status): _answer(endpoint.answer, schemas),
            **{str(status): _answer(answer, schemas) for status, answer in endpoint.other_answers.items()},
            "default": {
                "description": "A problem.",
                "content": {MEDIA_TYPE: {"schema": schemas.of(Problem, "serialization")}},
            },
        },
    }
    if endpoint.access is not Access.OPEN:
        operation["security"] = [{"key": []}]
    if endpoint.body is not None:
        schema = schemas.of(endpoint.body, "validation")
        content = {media_type: {"schema": schema} for media_type in endpoint.media_types}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(endpoint: Endpoint, path: str, schemas: _Schemas) -> list[dict[str, Any]]:
    in_path = re.findall(r"{(\w+)}", path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path
    ]
    if endpoint.takes_key:
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": _KEY_SCHEMA})
    if endpoint.query is not None:
        properties, required = schemas.properties(endpoint.query)
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in properties.items()
        ]
    return parameters


def _answer(answer: type[BaseModel] | None, schemas: _Schemas) -> dict[str, Any]:
    if answer is None:
        return {"description": "See the summary."}
    schema = schemas.of(answer, "serialization")
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:  # run from a checkout
        return "0"
