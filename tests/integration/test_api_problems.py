"""Every bad request gets the right problem, and the service goes on."""

import base64
import io
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import orjson
import pytest

from app.database import Database
from app.errors import Unavailable
from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api

NOTE = "/api/tasks/test/note"
ENQUEUE = "/api/tasks/enqueue"
TYPED = {"Content-Type": "application/json"}
MIB = 1024 * 1024


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


def sent(body: bytes, **headers: str) -> dict[str, Any]:
    return {"data": body, "headers": TYPED | headers}


def cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "pointer"),
    [
        ("GET", "/nowhere", {}, 404, "not_found", None),
        ("GET", "/api/tasks/nonsense", {}, 404, "not_found", None),
        ("GET", "/api/tasks/%00", {}, 404, "not_found", None),
        ("GET", "/api/tasks/%ed%a0%80", {}, 404, "not_found", None),
        ("GET", f"/api/tasks/{'x' * 300}", {}, 404, "not_found", None),
        ("POST", "/api/tasks/nonsense/cancel", {}, 404, "not_found", None),
        ("POST", "/api/tasks/test/nonsense", {"json": {}}, 404, "not_found", None),
        ("PUT", "/api/tasks", {}, 405, "method_not_allowed", None),
        ("GET", NOTE, {}, 405, "method_not_allowed", None),
        ("GET", "/api/tasks", {"key": None}, 401, "unauthenticated", None),
        ("GET", "/api/tasks", {"key": "wrong"}, 401, "unauthenticated", None),
        ("POST", NOTE, {"key": None, "json": {}}, 401, "unauthenticated", None),
        ("POST", "/api/tasks/test/sweep", {"key": ADA_KEY, "json": {"parameters": {}}}, 403, "forbidden", None),
        (
            "POST",
            ENQUEUE,
            {"key": ADA_KEY, "json": {"task_name": "test.sweep", "params": {}}},
            403,
            "forbidden",
            None,
        ),
        ("POST", NOTE, {"key": ADA_KEY, "json": {"user_id": "bob", "parameters": {}}}, 403, "forbidden", None),
        ("POST", NOTE, sent(b"{"), 400, "malformed_json", None),
        ("POST", NOTE, sent(b""), 400, "malformed_json", None),
        ("POST", NOTE, sent(b'{"parameters": {"text": NaN}}'), 400, "malformed_json", None),
        ("POST", NOTE, sent(b"\xff\xfe"), 400, "malformed_json", None),
        ("POST", NOTE, sent(b"[" * 100_000), 400, "malformed_json", None),
        ("POST", NOTE, sent(b"[]"), 422, "validation_error", ""),
        ("POST", NOTE, {"json": {"parameters": {"text": "x" * 65 * 1024}}}, 413, "too_large", None),
        ("POST", NOTE, {"data": b"{}", "headers": {"Content-Type": "text/xml"}}, 415, "unsupported_media_type", None),
        ("POST", NOTE, sent(b"garbage", **{"Content-Encoding": "gzip"}), 415, "unsupported_media_type", None),
        ("POST", NOTE, {"json": {"parameters": {}, "priority": 11}}, 422, "validation_error", "/priority"),
        ("POST", NOTE, {"json": {"parameters": {}, "nope": 1}}, 422, "validation_error", "/nope"),
        ("POST", NOTE, {"json": {"parameters": {"text": 5}}}, 422, "validation_error", "/parameters/text"),
        ("POST", NOTE, {"json": {"parameters": {"text": "\0"}}}, 422, "validation_error", "/parameters/text"),
        ("POST", NOTE, {"json": {"task_type": "ari_snapshot", "parameters": {}}}, 400, "bad_request", None),
        ("POST", NOTE, {"json": {"task_type": "nonsense", "parameters": {}}}, 400, "bad_request", None),
        ("POST", ENQUEUE, {"json": {"task_name": "nonsense", "params": {}}}, 400, "unknown_task", None),
        ("POST", ENQUEUE, {"json": {"params": {}}}, 422, "validation_error", "/task_name"),
        ("POST", ENQUEUE, {"json": {"task_name": "", "params": {}}}, 422, "validation_error", "/task_name"),
        ("POST", ENQUEUE, {"json": {"task_name": "note", "params": {"x": 1}}}, 422, "validation_error", "/params/x"),
        ("POST", ENQUEUE, {"json": []}, 422, "validation_error", ""),
        ("GET", "/api/tasks?status=nonsense", {}, 400, "bad_request", None),
        ("GET", "/api/tasks?queue=nonsense", {}, 400, "bad_request", None),
        ("GET", "/api/tasks?limit=0", {}, 422, "validation_error", "/limit"),
        ("GET", "/api/tasks?limit=1001", {}, 422, "validation_error", "/limit"),
        ("GET", "/api/tasks?limit=1&limit=2", {}, 422, "validation_error", "/limit"),
        ("GET", "/api/tasks?offset=99999999999999999999", {}, 422, "validation_error", "/offset"),
        ("GET", "/api/tasks?created_after=nonsense", {}, 422, "validation_error", "/created_after"),
        ("GET", "/api/tasks?nonsense=1", {}, 422, "validation_error", "/nonsense"),
        ("GET", "/api/tasks?q=%00", {}, 422, "validation_error", "/q"),
        ("GET", "/api/tasks?cursor=nonsense", {}, 400, "bad_request", None),
        ("GET", f"/api/tasks?cursor={cursor('0001-01-01T00:00:00+14:00', 'x')}", {}, 400, "bad_request", None),
        ("GET", f"/api/tasks?sort=priority&cursor={cursor(1e30, 'x')}", {}, 400, "bad_request", None),
        ("GET", f"/api/tasks?sort=priority&cursor={cursor(2**63, 'x')}", {}, 400, "bad_request", None),
        ("DELETE", "/api/tasks/x?terminate=perhaps", {}, 422, "validation_error", "/terminate"),
        ("GET", "/api/records/nonsense", {}, 404, "not_found", None),
        ("GET", "/api/tasks/x/events", {}, 426, "upgrade_required", None),
    ],
)
async def test_a_bad_request_is_told_what_was_wrong(  # noqa: PLR0917  # pytest names them
    api: ApiUnderTest, method: str, path: str, options: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = await api.ask(method, path, **options)

    problem = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert pointer is None or pointer in [error["pointer"] for error in problem["errors"]]
    assert (await api.ask("GET", "/health")).status == 200


async def test_a_body_that_says_it_is_too_large_is_refused_unread(api: ApiUnderTest) -> None:
    answer = await api.ask("POST", NOTE, data=io.BytesIO(b"x" * 2 * MIB), headers=TYPED)

    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert (await api.ask("GET", "/health")).status == 200


async def test_a_body_of_unknown_length_is_cut_at_the_limit(api: ApiUnderTest) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10_000):
            read += 64 * 1024
            yield b"x" * 64 * 1024

    answer = await api.ask("POST", NOTE, data=endless(), headers=TYPED)

    assert answer.status == 413
    assert read < 64 * MIB


async def test_who_has_no_key_is_told_how_to_send_one(api: ApiUnderTest) -> None:
    answer = await api.ask("GET", "/api/tasks", key=None)

    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_wrong_method_is_told_the_right_ones(api: ApiUnderTest) -> None:
    answer = await api.ask("PUT", "/api/tasks/x")

    assert {"GET", "DELETE", "PATCH"} <= set(answer.headers["Allow"].split(", "))


async def test_a_request_keeps_the_id_it_came_with(api: ApiUnderTest) -> None:
    answer = await api.ask("GET", "/nowhere", headers={"X-Request-ID": "from-the-proxy"})

    assert answer.json["request_id"] == answer.headers["X-Request-ID"] == "from-the-proxy"


async def test_a_request_id_that_is_none_is_replaced(api: ApiUnderTest) -> None:
    answer = await api.ask("GET", "/health", headers={"X-Request-ID": "no id <at all>"})

    assert answer.headers["X-Request-ID"] != "no id <at all>"


async def test_a_failure_of_ours_shows_no_traceback(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(api.house.reader, "get", fail)

    answer = await api.ask("GET", "/api/tasks/x")

    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


async def test_while_the_database_is_out_nothing_is_accepted(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(*_: object, **__: object) -> NoReturn:
        raise Unavailable

    monkeypatch.setattr(Database, "transact", out)

    answer = await api.ask("POST", NOTE, json={"parameters": {}})

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers


async def test_browsers_of_allowed_origins_may_call(settings: Settings) -> None:
    ours = {"Origin": "https://ours.example"}
    asking = {"Access-Control-Request-Method": "POST"}
    async with running_api(settings.model_copy(update={"cors_origins": ("https://ours.example",)})) as api:
        preflight = await api.ask("OPTIONS", NOTE, key=None, headers=ours | asking)
        refusal = await api.ask("GET", "/api/tasks", key=None, headers=ours)
        foreign = await api.ask("GET", "/health", headers={"Origin": "https://foreign.example"})
        foreign_preflight = await api.ask(
            "OPTIONS", NOTE, key=None, headers={"Origin": "https://foreign.example"} | asking
        )

    assert (preflight.status, refusal.status, foreign_preflight.status) == (204, 401, 405)
    for answer in (preflight, refusal):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://ours.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert "Access-Control-Allow-Origin" not in foreign_preflight.headers
