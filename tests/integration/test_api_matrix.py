"""Who gets what: every route of the running service, asked by every kind of caller.

A route without a line in the table fails, and so does a line without a route.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import WSMsgType

from app.api.server import PREFIXES
from app.jobs.catalogue import load_catalogue
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.credentials import key_of

CALLERS = ("anonymous", "owner", "other", "reader", "admin")

# What is addressed belongs to the owner; the reader has a key of the owner's that may only read. A line with WS
# is a websocket's: 101 is a snapshot of the task, anything else the code that it was closed with.
TABLE = """
#                                             anonymous owner other reader admin
GET    /health                                      200   200   200    200   200
GET    /ready                                       200   200   200    200   200
GET    /metrics                                     200   200   200    200   200
GET    /ws/tasks                                    401   426   426    426   426
WS     /ws/tasks                                   4401   101   101    101   101
GET    /ws/tasks/{task_id}                          401   426   426    426   426
WS     /ws/tasks/{task_id}                         4401   101  4404    101   101
GET    /api/events                                  401   426   426    426   426
WS     /api/events                                 4401   101   101    101   101
GET    /api/asyncapi.json                           401   200   200    200   200
GET    /api/docs                                    200   200   200    200   200
GET    /api/docs/{file}                             200   200   200    200   200
GET    /api/openapi.json                            401   200   200    200   200

POST   /api/auth/login                              422   422   422    422   422
GET    /api/auth/session                            401   200   200    200   200
POST   /api/auth/session                            401   201   201    201   201
DELETE /api/auth/session                            401   400   400    400   400
POST   /api/auth/ticket                             401   201   201    201   201
GET    /api/keys                                    401   200   200    200   200
POST   /api/keys                                    401   201   201    403   201
GET    /api/keys/{key_id}                           401   200   404    200   200
DELETE /api/keys/{key_id}                           401   200   404    403   200
POST   /api/keys/{key_id}/revoke                    401   200   404    403   200
POST   /api/keys/{key_id}/rotate                    401   201   404    403   201

GET    /api/tasks                                   401   200   200    200   200
GET    /api/tasks/list                              401   200   200    200   200
GET    /api/tasks/pending                           401   200   200    200   200
GET    /api/tasks/failed                            401   200   200    200   200
GET    /api/tasks/count/all                         401   200   200    200   200
GET    /api/tasks/health                            401   200   200    200   200
GET    /api/tasks/queues/stats                      401   200   200    200   200
GET    /api/tasks/registered/list                   401   200   200    200   200
GET    /api/tasks/workers/stats                     401   200   200    200   200
GET    /api/tasks/workers/status                    401   200   200    200   200
GET    /api/tasks/{task_id}                         401   200   404    200   200
GET    /api/tasks/status/{task_id}                  401   200   404    200   200
GET    /api/tasks/{task_id}/attempts                401   200   404    200   200
GET    /api/tasks/{task_id}/result                  401   200   404    200   200
GET    /api/tasks/{task_id}/events                  401   426   426    426   426
WS     /api/tasks/{task_id}/events                 4401   101  4404    101   101
DELETE /api/tasks/{task_id}                         401   200   404    403   200
POST   /api/tasks/{task_id}/cancel                  401   200   404    403   200
POST   /api/tasks/{task_id}/retry                   401   202   404    403   202
PATCH  /api/tasks/{task_id}                         401   200   404    403   200

POST   /api/tasks/enqueue                           401   201   201    403   201
POST   /api/tasks/ari/aggregate-snapshots           401   202   202    403   202
POST   /api/tasks/ari/analyze-trends                401   202   202    403   202
POST   /api/tasks/edm/batch-analysis                401   202   202    403   202
POST   /api/tasks/edm/detect-misinformation         401   202   202    403   202
POST   /api/tasks/edm/track-resolutions             401   202   202    403   202
POST   /api/tasks/ffe/plan-goal                     401   202   202    403   202
POST   /api/tasks/ffe/track-progress                401   202   202    403   202
POST   /api/tasks/maintenance/archive-audit-logs    401   403   403    403   202
POST   /api/tasks/maintenance/cleanup-cache         401   403   403    403   202
POST   /api/tasks/maintenance/enforce-retention-policy 401 403  403    403   202
POST   /api/tasks/maintenance/maintain-database     401   403   403    403   202
POST   /api/tasks/model/benchmark                   401   202   202    403   202
POST   /api/tasks/model/evaluate                    401   202   202    403   202
POST   /api/tasks/model/finetune                    401   202   202    403   202
POST   /api/tasks/system/daily-metrics              401   403   403    403   202
POST   /api/tasks/system/echo                       401   202   202    403   202
POST   /api/tasks/system/flaky                      401   202   202    403   202
POST   /api/tasks/system/health-check               401   403   403    403   202
POST   /api/tasks/system/monitor-queues             401   403   403    403   202

GET    /api/records/alerts                          401   200   200    200   200
POST   /api/records/alerts                          401   403   403    403   200
GET    /api/records/ari-snapshots                   401   200   200    200   200
POST   /api/records/ari-snapshots                   401   200   200    403   200
GET    /api/records/audit-entries                   401   200   200    200   200
POST   /api/records/audit-entries                   401   200   200    403   200
GET    /api/records/edm-debts                       401   200   200    200   200
POST   /api/records/edm-debts                       401   200   200    403   200
GET    /api/records/fact-checks                     401   200   200    200   200
POST   /api/records/fact-checks                     401   403   403    403   200
GET    /api/records/ffe-blocks                      401   200   200    200   200
POST   /api/records/ffe-blocks                      401   200   200    403   200
GET    /api/records/ffe-goals                       401   200   200    200   200
POST   /api/records/ffe-goals                       401   200   200    403   200
GET    /api/records/interactions                    401   200   200    200   200
POST   /api/records/interactions                    401   200   200    403   200
GET    /api/records/models                          401   200   200    200   200
POST   /api/records/models                          401   200   200    403   200
GET    /api/records/training-examples               401   200   200    200   200
POST   /api/records/training-examples               401   200   200    403   200

GET    /api/schedules                               401   200   200    200   200
POST   /api/schedules/{name}/enable                 401   403   403    403   200
POST   /api/schedules/{name}/disable                401   403   403    403   200
POST   /api/schedules/{name}/run                    401   403   403    403   202

GET    /api/webhooks                                401   200   200    200   200
POST   /api/webhooks                                401   201   201    403   201
GET    /api/webhooks/{webhook_id}                   401   200   404    200   200
PATCH  /api/webhooks/{webhook_id}                   401   200   404    403   200
DELETE /api/webhooks/{webhook_id}                   401   200   404    403   200
POST   /api/webhooks/{webhook_id}/rotate            401   200   404    403   200
POST   /api/webhooks/{webhook_id}/test              401   202   404    403   202
GET    /api/webhooks/{webhook_id}/deliveries        401   200   404    200   200
POST   /api/webhooks/deliveries/{delivery_id}/redeliver 401 202 404    403   202
"""

MODEL = {"parameters": {"model_name": "m"}}
GOAL = {"parameters": {"goal_id": "g", "goal_description": "Learn to sail"}}
WEBHOOK = {"url": "https://hooks.example.com/", "events": ["task.failed"]}
SUBMIT: dict[str, Any] = {"parameters": {}}

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/auth/login"): {},
    ("POST", "/api/keys"): {"name": "x"},
    ("POST", "/api/webhooks"): WEBHOOK,
    ("PATCH", "/api/webhooks/{webhook_id}"): {"enabled": False},
    ("PATCH", "/api/tasks/{task_id}"): {"priority": 7},
    ("POST", "/api/tasks/enqueue"): {"task_name": "system.echo", "params": {}},
    ("POST", "/api/tasks/ffe/plan-goal"): GOAL,
    ("POST", "/api/tasks/ffe/track-progress"): {"parameters": {"goal_id": "g"}},
    ("POST", "/api/tasks/model/benchmark"): MODEL,
    ("POST", "/api/tasks/model/evaluate"): MODEL,
    ("POST", "/api/tasks/model/finetune"): MODEL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table."""

    method: str
    path: str
    expected: dict[str, int]


def lines() -> Iterator[Line]:
    for text in TABLE.splitlines():
        if text.strip() and not text.startswith("#"):
            method, path, *numbers = text.split()
            yield Line(method=method, path=path, expected=dict(zip(CALLERS, map(int, numbers), strict=True)))


def served(api: ApiUnderTest) -> set[tuple[str, str]]:
    """Return every route there is, in one of its spellings."""
    routes = {
        (route.method, route.resource.canonical) for route in api.app.router.routes() if route.resource is not None
    }
    return {(method, path) for method, path in routes if method != "HEAD" and not path.endswith("/")}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=load_catalogue()) as running:
        yield running


async def task(api: ApiUnderTest) -> str:
    answer = await api.ask("POST", "/api/tasks/system/echo", key=ADA_KEY, json={"parameters": {}})
    return str(answer.json["task_id"])


async def cancelled_task(api: ApiUnderTest) -> str:
    task_id = await task(api)
    await api.ask("DELETE", f"/api/tasks/{task_id}", key=ADA_KEY)
    return task_id


async def webhook(api: ApiUnderTest) -> str:
    """Return a webhook of the owner's; there are never so many that the next is refused."""
    for old in (await api.ask("GET", "/api/webhooks", key=ADA_KEY)).json["webhooks"]:
        await api.ask("DELETE", f"/api/webhooks/{old['webhook_id']}", key=ADA_KEY)
    answer = await api.ask("POST", "/api/webhooks", key=ADA_KEY, json=WEBHOOK)
    return str(answer.json["webhook_id"])


async def ended_delivery(api: ApiUnderTest) -> str:
    answer = await api.ask("POST", f"/api/webhooks/{await webhook(api)}/test", key=ADA_KEY)
    await api.ask("DELETE", f"/api/tasks/{answer.json['job_id']}", key=ADA_KEY)
    return str(answer.json["delivery_id"])


async def own_key(api: ApiUnderTest) -> str:
    return (await key_of(api, "ada"))[0]


PREPARED: dict[tuple[str, str], Callable[[ApiUnderTest], Awaitable[str]]] = {
    ("POST", "/api/tasks/{task_id}/retry"): cancelled_task
}


async def address(api: ApiUnderTest, line: Line) -> str:
    """Return a path of this line's route to something that the owner has just made."""
    path = line.path.replace("{name}", "audit-archive").replace("{file}", "docs.js")
    if "{key_id}" in path:
        path = path.replace("{key_id}", await own_key(api))
    if "{webhook_id}" in path:
        path = path.replace("{webhook_id}", await webhook(api))
    if "{delivery_id}" in path:
        path = path.replace("{delivery_id}", await ended_delivery(api))
    if "{task_id}" in path:
        prepare = PREPARED.get((line.method, line.path), task)
        path = path.replace("{task_id}", await prepare(api))
    return path


async def ask(api: ApiUnderTest, line: Line, path: str, key: str | None) -> tuple[int, str]:
    if line.method == "WS":
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with api.client.ws_connect(path, headers=headers) as socket:
            message = await socket.receive(timeout=5)
            return (101, str(message.data)) if message.type is WSMsgType.TEXT else (socket.close_code or 0, "")
    options: dict[str, Any] = {}
    if line.method in {"POST", "PATCH"}:
        kind = [] if "/records/" in path else SUBMIT
        options["json"] = BODIES.get((line.method, line.path), kind)
    answer = await api.ask(line.method, path, key=key, **options)
    return answer.status, answer.text


async def test_every_route_answers_every_caller_as_the_table_says(api: ApiUnderTest) -> None:
    _, reader = await key_of(api, "ada", "tasks:read")
    keys = dict(zip(CALLERS, (None, ADA_KEY, BOB_KEY, reader, ADMIN_KEY), strict=True))
    theirs = await task(api)
    wrong: list[str] = []

    for line in lines():
        for caller, key in keys.items():
            path = await address(api, line)
            found, text = await ask(api, line, path, key)
            if found != line.expected[caller]:
                wrong.append(
                    f"{line.method} {line.path} as {caller}: {found}, not {line.expected[caller]} {text[:200]}"
                )
            if caller in ("anonymous", "other") and theirs in text:
                wrong.append(f"{line.method} {line.path} as {caller}: shows the owner's task")

    assert wrong == []


async def test_every_route_has_a_line_and_every_line_a_route(api: ApiUnderTest) -> None:
    known = {(line.method, line.path) for line in lines() if line.method != "WS"}

    routes = {(method, path) for method, path in served(api) if not path.startswith("/api/v1")}

    assert routes - known == set(), "these routes have no line in the table"
    assert known - routes == set(), "these lines have no route"


async def test_both_prefixes_serve_the_same_routes_and_neither_lets_anybody_in(api: ApiUnderTest) -> None:
    routes = served(api)
    versioned = {(method, path) for method, path in routes if path.startswith("/api/v1/")}
    plain = {(method, path) for method, path in routes if path.startswith("/api/")} - versioned
    assert {(method, path.replace("/api/v1", "/api", 1)) for method, path in versioned} == plain

    answers = {
        (method, spelling): (await api.ask(method, re.sub(r"{\w+}", "x", spelling), key=None)).status
        for method, path in routes
        for spelling in (path, path + "/")
    }

    opened = {path.rstrip("/") for (_, path), status in answers.items() if status != 401}
    below = {"/auth/login", "/docs", "/docs/{file}"}
    assert opened == {"/health", "/ready", "/metrics", *(prefix + path for prefix in PREFIXES for path in below)}


async def test_the_metrics_need_a_key_where_they_are_not_open(settings: Settings) -> None:
    async with running_api(settings.model_copy(update={"metrics_open": False})) as api:
        answers = [(await api.ask("GET", "/metrics", key=key)).status for key in (None, ADA_KEY)]

    assert answers == [401, 200]
