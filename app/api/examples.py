"""Examples of bodies, made from their JSON schemas: the fields that are required, each with a plain value. Pure."""

from collections.abc import Mapping
from typing import Any

_TEXTS = {
    "date-time": "2026-11-22T09:30:00Z",
    "date": "2026-11-22",
    "time": "09:30:00",
    "uri": "https://example.com/",
    "password": "a long pass phrase",
}

Schema = Mapping[str, Any]


def example_of(schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    """Return a value that fits a schema; its own example or default if it has one."""
    schema = _resolved(schema, definitions)
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example_of(schema[choice][0], definitions)
    return _plain(schema, definitions)


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _plain(schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _field(name, properties[name], definitions) for name in schema.get("required", ())}
        case "array":
            return [example_of(schema.get("items", {}), definitions)] * schema.get("minItems", 1)
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
            return least if "exclusiveMaximum" not in schema else min(least, schema["exclusiveMaximum"] / 2)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _TEXTS.get(schema.get("format", ""), "text")


def _field(name: str, schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    """Return a value of a field; a plain text is told from another by the field's name."""
    value = example_of(schema, definitions)
    return f"{name.removesuffix('_id')}-1".replace("_", "-") if value == "text" and name.endswith("_id") else value
