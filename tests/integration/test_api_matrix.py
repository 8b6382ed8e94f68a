"""Who gets what: every route of the running service, asked by every kind of caller.

A route without a line in the table fails, and so does a line without a route.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp import WSMsgType

from app.api.server import PREFIXES
from app.clock import utc_now
from app.history.writer import Writer
from app.jobs.catalogue import load_catalogue
from app.live.workers import beat
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.credentials import key_of
from tests.support.sample_records import SAMPLES
from tests.support.workers import heartbeat

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
GET    /api/tasks/active/list                       401   200   200    200   200
GET    /api/tasks/reserved/list                     401   200   200    200   200
GET    /api/tasks/scheduled/list                    401   200   200    200   200
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
POST   /api/tasks/execute                           401   403   403    403   202
POST   /api/tasks/batch                             401   202   202    403   202
POST   /api/tasks/bulk                              401   403   403    403   202
POST   /api/tasks/purge/queue?queue_name=default&confirm=true 401   403   403    403   200
POST   /api/tasks/purge/results?confirm=true        401   403   403    403   200
POST   /api/tasks/cancel/all?confirm=true           401   403   403    403   200
POST   /api/tasks/ari/aggregate-snapshots           401   202   202    403   202
POST   /api/tasks/ari/analyze-active-users          401   403   403    403   202
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
POST   /api/tasks/system/bulk                       401   403   403    403   202
POST   /api/tasks/system/daily-metrics              401   403   403    403   202
POST   /api/tasks/system/echo                       401   202   202    403   202
POST   /api/tasks/system/flaky                      401   202   202    403   202
POST   /api/tasks/system/health-check               401   403   403    403   202
POST   /api/tasks/system/monitor-queues             401   403   403    403   202

GET    /api/records/alerts                          401   403   403    403   200
POST   /api/records/alerts                          401   403   403    403   200
GET    /api/records/alerts/{id}                     401   403   403    403   200
DELETE /api/records/alerts/{id}                     401   403   403    403   200
GET    /api/records/ari-snapshots                   401   200   200    200   200
POST   /api/records/ari-snapshots                   401   200   200    403   200
DELETE /api/records/ari-snapshots?user_id=ada       401   200   403    403   200
GET    /api/records/ari-snapshots/{id}              401   200   404    200   200
DELETE /api/records/ari-snapshots/{id}              401   200   404    403   200
GET    /api/records/audit-entries                   401   200   200    200   200
POST   /api/records/audit-entries                   401   200   200    403   200
DELETE /api/records/audit-entries?user_id=ada       401   200   403    403   200
GET    /api/records/audit-entries/{id}              401   200   404    200   200
DELETE /api/records/audit-entries/{id}              401   200   404    403   200
GET    /api/records/edm-debts                       401   200   200    200   200
POST   /api/records/edm-debts                       401   200   200    403   200
DELETE /api/records/edm-debts?user_id=ada           401   200   403    403   200
GET    /api/records/edm-debts/{id}                  401   200   404    200   200
DELETE /api/records/edm-debts/{id}                  401   200   404    403   200
POST   /api/records/edm-debts/{id}/resolve          401   200   404    403   200
GET    /api/records/fact-checks                     401   200   200    200   200
POST   /api/records/fact-checks                     401   403   403    403   200
GET    /api/records/fact-checks/{id}                401   200   200    200   200
DELETE /api/records/fact-checks/{id}                401   403   403    403   200
GET    /api/records/ffe-blocks                      401   200   200    200   200
POST   /api/records/ffe-blocks                      401   200   200    403   200
DELETE /api/records/ffe-blocks?user_id=ada          401   200   403    403   200
GET    /api/records/ffe-blocks/{id}                 401   200   404    200   200
DELETE /api/records/ffe-blocks/{id}                 401   200   404    403   200
POST   /api/records/ffe-blocks/{id}/complete        401   200   404    403   200
GET    /api/records/ffe-goals                       401   200   200    200   200
POST   /api/records/ffe-goals                       401   200   200    403   200
DELETE /api/records/ffe-goals?user_id=ada           401   200   403    403   200
GET    /api/records/ffe-goals/{id}                  401   200   404    200   200
DELETE /api/records/ffe-goals/{id}                  401   200   404    403   200
GET    /api/records/interactions                    401   200   200    200   200
POST   /api/records/interactions                    401   200   200    403   200
DELETE /api/records/interactions?user_id=ada        401   200   403    403   200
GET    /api/records/interactions/{id}               401   200   404    200   200
DELETE /api/records/interactions/{id}               401   200   404    403   200
GET    /api/records/models                          401   200   200    200   200
POST   /api/records/models                          401   200   200    403   200
DELETE /api/records/models?user_id=ada              401   200   403    403   200
GET    /api/records/models/{id}                     401   200   404    200   200
DELETE /api/records/models/{id}                     401   200   404    403   200
GET    /api/records/training-examples               401   200   200    200   200
POST   /api/records/training-examples               401   200   200    403   200
DELETE /api/records/training-examples?user_id=ada   401   200   403    403   200
GET    /api/records/training-examples/{id}          401   200   404    200   200
DELETE /api/records/training-examples/{id}          401   200   404    403   200
DELETE /api/records?user_id=ada                     401   200   403    403   200

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
GET    /api/dead-letters                            401   200   200    200   200
POST   /api/dead-letters/{id}/replay                401   403   403    403   202
POST   /api/dead-letters/{id}/discard               401   403   403    403   200
POST   /api/queues/{queue}/pause                    401   403   403    403   200
POST   /api/queues/{queue}/resume                   401   403   403    403   200
POST   /api/workers/{worker_id}/drain               401   403   403    403   200
"""

MODEL = {"parameters": {"model_name": "kneser-ney"}}
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
    ("POST", "/api/tasks/execute"): {"task_name": "system.echo"},
    ("POST", "/api/tasks/batch"): {"tasks": [{"task_name": "system.echo", "params": {}}]},
    ("POST", "/api/tasks/bulk"): {"action": "cancel", "filter": {"queue": "default"}},
    ("POST", "/api/tasks/system/bulk"): {"parameters": {"action": "cancel", "selection": {"queue": "default"}}},
    ("POST", "/api/records/edm-debts/{id}/resolve"): {"resolution_method": "citation_added"},
    ("POST", "/api/records/ffe-blocks/{id}/complete"): {"actual_minutes": 40},
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
    query: str
    expected: dict[str, int]

    @property
    def is_act(self) -> bool:
        """Whether this changes what only an administrator may change."""
        return self.method != "GET" and self.expected["owner"] == 403 and self.expected["admin"] < 300


def lines() -> Iterator[Line]:
    for text in TABLE.splitlines():
        if text.strip() and not text.startswith("#"):
            method, path, *numbers = text.split()
            path, mark, query = path.partition("?")
            expected = dict(zip(CALLERS, map(int, numbers), strict=True))
            yield Line(method=method, path=path, query=mark + query, expected=expected)


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


async def failed_task(api: ApiUnderTest) -> str:
    job = replace(house.new_job(kind="system.echo", queue="default", params={}), submitted_by="ada")
    await Writer(api.house.database).accept([job])
    await Writer(api.house.database).end_pending(job.id, house.OOPS, now=utc_now())
    return job.id


async def live_worker(api: ApiUnderTest) -> str:
    await beat(api.house.redis, heartbeat("here:1:abc"))
    return "here:1:abc"


async def record(api: ApiUnderTest, kind: str) -> str:
    """Store the owner's record of a kind anew; return its id as a path spells it."""
    stored = await api.ask("POST", f"/api/records/{kind}", json=[SAMPLES[kind]])
    assert stored.status == 200, stored.text
    return quote(str(next(iter(SAMPLES[kind].values()))), safe="")


PREPARED: dict[tuple[str, str], Callable[[ApiUnderTest], Awaitable[str]]] = {
    ("POST", "/api/tasks/{task_id}/retry"): cancelled_task
}


async def address(api: ApiUnderTest, line: Line) -> str:
    """Return a path of this line's route to something that the owner has just made."""
    path = (
        line.path.replace("{name}", "audit-archive").replace("{file}", "docs.js").replace("{queue}", "default")
        + line.query
    )
    if "{worker_id}" in path:
        path = path.replace("{worker_id}", await live_worker(api))
    if "/records/" in path and "{id}" in path:
        path = path.replace("{id}", await record(api, path.split("/")[3]))
    if "{id}" in path:
        path = path.replace("{id}", await failed_task(api))
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


async def last_act(api: ApiUnderTest) -> dict[str, Any]:
    """Return the newest audit entry."""
    listed = (await api.ask("GET", "/api/records/audit-entries?limit=1")).json["records"]
    return dict(listed[0]) if listed else {}


async def test_every_act_of_an_administrator_leaves_an_entry(api: ApiUnderTest) -> None:
    acts = [line for line in lines() if line.is_act]
    without: list[str] = []

    for line in acts:
        path = await address(api, line)
        await ask(api, line, path, ADMIN_KEY)
        entry = await last_act(api)
        if (entry.get("user_id"), entry.get("resource")) != ("admin", unquote(path.partition("?")[0])):
            without.append(f"{line.method} {line.path}")

    assert without == []
    assert len(acts) >= 20


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/tasks/enqueue", {"task_name": "system.health_check", "params": {}}),
        ("/api/tasks/execute", {"task_name": "system.health_check"}),
        ("/api/tasks/batch", {"tasks": [{"task_name": "system.health_check", "params": {}}]}),
    ],
)
async def test_what_only_an_administrator_may_submit_leaves_an_entry_however_it_is_submitted(
    api: ApiUnderTest, path: str, body: dict[str, Any]
) -> None:
    answer = await api.ask("POST", path, json=body)

    entry = await last_act(api)
    assert answer.status in {201, 202}, answer.text
    assert (entry["user_id"], entry["resource"], entry["result"]) == ("admin", path, "success")


async def test_an_administrator_who_deletes_somebody_elses_record_leaves_an_entry(api: ApiUnderTest) -> None:
    for path in ("/api/records/ffe-goals/goal-1", "/api/records/ffe-goals?user_id=ada", "/api/records?user_id=ada"):
        await record(api, "ffe-goals")

        answer = await api.ask("DELETE", path)

        entry = await last_act(api)
        assert (answer.status, entry["resource"]) == (200, path.partition("?")[0])
        assert entry["details"]["users"] == ["ada"]


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
