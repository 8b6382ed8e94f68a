"""Every answer carries what keeps browsers from being used against their people, and tells nothing of the server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api

WANTED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Server": "jobs",
}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/api/tasks", ADA_KEY, 200),
        ("GET", "/api/tasks", None, 401),
        ("GET", "/nowhere", None, 404),
        ("PUT", "/api/tasks", ADA_KEY, 405),
        ("POST", "/api/auth/login", None, 415),
    ],
)
async def test_every_answer_is_safe_to_show(
    api: ApiUnderTest, method: str, path: str, key: str | None, status: int
) -> None:
    answer = await api.ask(method, path, key=key)

    assert answer.status == status
    assert {name: answer.headers.get(name) for name in WANTED} == WANTED
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "camera=()" in answer.headers["Permissions-Policy"]


async def test_an_answer_to_what_is_no_http_tells_no_version(api: ApiUnderTest) -> None:
    url = api.client._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"NONSENSE\r\n\r\n")

    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert b"400" in answer.splitlines()[0]
    assert b"aiohttp" not in answer.lower()
    assert b"python" not in answer.lower()


async def test_a_page_may_load_what_is_ours_and_run_nothing_inline(api: ApiUnderTest) -> None:
    from aiohttp import web
    from aiohttp.test_utils import make_mocked_request

    page = web.Response(text="<p>", content_type="text/html")
    for prepare in api.app.on_response_prepare:
        await prepare(make_mocked_request("GET", "/", app=api.app), page)

    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'", "'none'", "'self'")


async def test_any_origin_may_ask_with_a_key_but_none_is_ever_trusted_with_a_cookie(settings: Settings) -> None:
    async with running_api(settings.model_copy(update={"cors_origins": ("*",)})) as api:
        session = await api.ask("POST", "/api/auth/session", key=ADA_KEY)
        cookie = {"Cookie": session.headers["Set-Cookie"].partition(";")[0]}
        origin = {"Origin": "https://evil.example"}
        preflight = await api.ask(
            "OPTIONS", "/api/tasks", key=None, headers=origin | {"Access-Control-Request-Method": "POST"}
        )
        token = {"X-CSRF-Token": session.json["csrf_token"]}
        read = await api.ask("GET", "/api/tasks", key=None, headers=cookie | origin)
        write = await api.ask(
            "POST", "/api/tasks/test/note", key=None, headers=cookie | origin | token, json={"parameters": {}}
        )

    for answer in (preflight, read, write):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "X-CSRF-Token" not in preflight.headers["Access-Control-Allow-Headers"]
    assert write.status == 403
