"""The AsyncAPI 3.0 document of the event streams, made from the same definitions that write them. Pure."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.news import CLOSED, EVENT_TYPES, GAP, MESSAGE_TYPES, OPENED, SNAPSHOT, MessageType
from app.api.openapi import PACKAGE, service_version
from app.api.schemas import Task

_OF_TASK = (SNAPSHOT, GAP, CLOSED, *(name for name in EVENT_TYPES if name.startswith("task.")))
_OF_MANY = (OPENED, SNAPSHOT, GAP, CLOSED, *EVENT_TYPES)
_TEMPLATE = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Each message is JSON: a text frame of a websocket, or the data of a server-sent event, whose id and event repeat "
    "the message's. `after`, or the header Last-Event-ID, with the id of the last message goes on behind it. A "
    "websocket is closed with 1000 at a task's end, 1001 when the service restarts, 1013 while the database is out, "
    "4400, 4401, 4403, 4404 and 4429 as their HTTP cousins, and 4408 when a client does not take its messages in time."
)


def asyncapi_of() -> dict[str, Any]:
    """Return the document."""
    wanted: list[type[BaseModel]] = list(dict.fromkeys([Task, *(found.data for found in MESSAGE_TYPES.values())]))
    found, joint = models_json_schema([(model, "serialization") for model in wanted], ref_template=_TEMPLATE)
    schemas = {model: schema for (model, _), schema in found.items()}
    channels = {
        "task": _channel("/api/tasks/{task_id}/events", "One task, to its end.", _OF_TASK, of_task=True),
        "tasks": _channel("/api/events", "All tasks of a caller; for administrators, everybody's.", _OF_MANY),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"{PACKAGE} events", "version": service_version(), "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"follow_{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]],
            }
            for name, channel in channels.items()
        },
        "components": {
            "messages": {
                _name(name, whole=whole): _message(name, of_type, schemas[Task if whole else of_type.data])
                for name, of_type in MESSAGE_TYPES.items()
                for whole in {False, of_type.whole}
            },
            "schemas": joint["$defs"],
        },
    }


def _channel(address: str, summary: str, names: tuple[str, ...], *, of_task: bool = False) -> dict[str, Any]:
    messages = [_name(name, whole=of_task and MESSAGE_TYPES[name].whole) for name in names]
    channel: dict[str, Any] = {
        "address": address,
        "summary": summary,
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        "bindings": {"ws": {"method": "GET"}},
    }
    if of_task:
        channel["parameters"] = {"task_id": {"description": "The task's id."}}
    return channel


def _message(name: str, of_type: MessageType, data: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "id": {"type": "string", "description": "Where to resume; empty: it moves no position."},
        "type": {"const": name},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": data,
    }
    payload = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"name": name, "title": name, "summary": of_type.summary, "payload": payload}


def _name(name: str, *, whole: bool) -> str:
    verb = name.title().replace(".", "")
    return f"{verb}InFull" if whole else verb
