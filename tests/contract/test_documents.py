"""The documents that machines read: what they promise is what is there, and changes only on purpose.

``UPDATE_SNAPSHOTS=1 pytest tests/contract/test_documents.py`` writes the shape of the OpenAPI document anew.
"""

import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from app.api.news import MESSAGE_TYPES, news_of
from app.api.server import PREFIXES
from app.jobs.catalogue import load_catalogue
from app.live.events import Position, queue_event, worker_event
from app.settings import Settings
from tests.integration.test_api_stream import progress_of
from tests.support.api import ADA_KEY, ApiUnderTest, running_api

pytestmark = pytest.mark.databases("sqlite")

SHAPE = Path(__file__).parent / "openapi_shape.txt"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=load_catalogue()) as running:
        yield running


@pytest.fixture
async def document(api: ApiUnderTest) -> Any:
    return (await api.ask("GET", "/api/openapi.json")).json


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield f"{method.upper()} {path}", operation


def digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def shape(document: Any) -> str:
    lines = [
        f"{name} {operation['operationId']} {','.join(sorted(operation['responses']))} {digest(operation)}"
        for name, operation in operations(document)
    ]
    lines += [f"schema {name} {digest(schema)}" for name, schema in document["components"]["schemas"].items()]
    return "\n".join(sorted(lines)) + "\n"


async def test_the_openapi_document_has_the_shape_of_the_snapshot(document: Any) -> None:
    found = shape(document)
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        SHAPE.write_text(found)

    assert found.splitlines() == SHAPE.read_text().splitlines()


async def test_every_body_has_an_example_that_fits_its_schema(document: Any) -> None:
    wrong, count = [], 0
    for name, operation in operations(document):
        for media_type, content in list(operation.get("requestBody", {}).get("content", {}).items())[:1]:
            count += 1
            schema = content["schema"] | {"components": document["components"]}
            validator = jsonschema_rs.Draft202012Validator(schema)
            wrong += [f"{name} {media_type}: {error.message}" for error in validator.iter_errors(content["example"])]

    assert count > 30
    assert wrong == []


async def test_every_route_says_how_it_refuses_and_who_may_ask(document: Any) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        problems = [
            answer
            for answer in operation["responses"].values()
            if "$ref" in answer or "application/problem+json" in answer.get("content", {})
        ]
        assert problems, name
        assert operation["tags"][0] in tags, name
        for used in operation.get("security", []):
            assert used.keys() <= document["components"]["securitySchemes"].keys()
    assert document["servers"]


async def test_every_reference_of_the_documents_leads_somewhere(api: ApiUnderTest, document: Any) -> None:
    asyncapi = (await api.ask("GET", "/api/asyncapi.json")).json

    for found in (document, asyncapi):
        references = set(re.findall(r'"\$ref":"#/([^"]+)"', orjson.dumps(found).decode()))
        assert references
        for reference in references:
            at = found
            for part in reference.split("/"):
                at = at[part.replace("~1", "/")]  # or there is no such place


async def test_packed_records_are_documented(document: Any) -> None:
    parameters = document["paths"]["/api/records/ari-snapshots"]["post"]["parameters"]

    assert "Content-Encoding" in {parameter["name"] for parameter in parameters}


async def test_the_asyncapi_document_names_every_message_and_no_other(api: ApiUnderTest) -> None:
    document = (await api.ask("GET", "/api/asyncapi.json", key=ADA_KEY)).json

    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    assert {channel["address"] for channel in document["channels"].values()} == {
        "/api/events",
        "/api/tasks/{task_id}/events",
    }
    assert {message["name"] for message in document["components"]["messages"].values()} == set(MESSAGE_TYPES)
    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["messages"]


async def test_what_is_sent_is_what_the_asyncapi_document_promises(api: ApiUnderTest) -> None:
    document = (await api.ask("GET", "/api/asyncapi.json")).json
    promised = {name: message["payload"] for name, message in document["components"]["messages"].items()}
    told = {
        "TaskProgress": news_of(progress_of("j", 5.0), Position(entry="1-1", epoch=2)),
        "QueuePaused": news_of(queue_event("queue.paused", "ari"), Position(entry="1-1", epoch=2)),
        "WorkerLost": news_of(worker_event("worker.lost", "here:1:abc"), Position(entry="1-1", epoch=2)),
    }
    task = (await api.ask("POST", "/api/tasks/system/echo", json={"parameters": {}})).json
    async with api.client.ws_connect(
        f"/api/tasks/{task['task_id']}/events", headers={"Authorization": "Bearer " + api_key()}
    ) as stream:
        live = {"TaskSnapshot": await stream.receive_json(timeout=10)}
        await api.ask("DELETE", f"/api/tasks/{task['task_id']}")
        live["TaskCancelledInFull"] = await stream.receive_json(timeout=10)

    for name, value in {**{name: orjson.loads(message.body) for name, message in told.items()}, **live}.items():
        schema = promised[name] | {"components": document["components"]}
        errors = [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(value)]
        assert errors == [], name


def api_key() -> str:
    from tests.conftest import ADMIN_KEY

    return ADMIN_KEY


class Page(HTMLParser):
    """What a page loads, and whether anything stands inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [value for name in ("src", "href") if (value := given.get(name))]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_docs_page_loads_what_is_ours_and_needs_no_network(api: ApiUnderTest, prefix: str) -> None:
    page = await api.ask("GET", f"{prefix}/docs", key=None)
    read = Page(page.text)
    files = {path: await api.ask("GET", path, key=None) for path in read.loads if not path.endswith(".png")}

    assert page.headers["Content-Type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert (read.inline, [path for path in read.loads if not path.startswith("/api/docs/")]) == ([], [])
    assert {answer.status for answer in files.values()} == {200}
    assert {path for path, answer in files.items() if "javascript" in answer.headers["Content-Type"]} == {
        "/api/docs/swagger-ui-bundle.js",
        "/api/docs/docs.js",
    }
    assert "SwaggerUIBundle" in files["/api/docs/swagger-ui-bundle.js"].text


@pytest.mark.parametrize("name", ["nothing.js", "swagger-editor.js", "..%2F__init__.py", "docs.html"])
async def test_the_docs_serve_no_other_file(api: ApiUnderTest, name: str) -> None:
    assert (await api.ask("GET", f"/api/docs/{name}", key=None)).status == 404
