"""Credentials stay where they belong: in no log, no row, no metric, no key of Redis."""

import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from app.processes import start_child, stop_child
from app.settings import Settings
from tests.contract.test_cli import APP, run
from tests.support.environment import environment_of
from tests.support.service import process
from tests.support.waiting import eventually

PASSWORD = "canary-password-of-eve"
WEBHOOK_SECRET = "whsec_canarycanarycanarycanary"
STATIC = "canary-static-key-of-ada"


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    """Settings without any credential but ada's static key, which log everything."""
    return settings.model_copy(
        update={"admin_api_key": None, "api_keys": {"ada": SecretStr(STATIC)}, "log_level": "DEBUG", "port": 0}
    )


async def address_in(log: Path) -> str:
    def look() -> str | None:
        found = re.search(r'"addresses": \["(http://[^"]+)"', log.read_text())
        return found[1] if found else None

    return await eventually(look, within=40)


async def everything_stored(settings: Settings) -> str:
    file = settings.sql_url.partition(":///")[2]
    with sqlite3.connect(file) as connection:
        database = "\n".join(connection.iterdump())
    redis = Redis.from_url(settings.redis_url)
    dumped = [repr((key, await redis.dump(key))) for key in await redis.keys("*")]
    await redis.aclose()
    return database + "\n".join(dumped)


async def test_no_credential_is_found_in_a_log_a_row_a_metric_or_redis(quiet: Settings) -> None:
    environment = environment_of(quiet)
    created = run(APP, "users", "create", "eve", "--password-stdin", stdin=PASSWORD + "\n", **environment)
    made = run(APP, "keys", "create", "--user", "eve", "--scope", "admin", **environment)
    assert (created.returncode, made.returncode) == (0, 0), created.stderr + made.stderr
    key = made.stdout.strip()

    with process(quiet, "app", "serve"):
        (log,) = quiet.data_dir.glob("app-serve-*.log")
        async with aiohttp.ClientSession(await address_in(log)) as client:
            secrets, metrics = await use_everything(client, key)
    logged = log.read_text()
    stored = await everything_stored(quiet)

    assert '"request_answered"' in logged
    assert "eve" in stored
    assert len(secrets) == 9
    for name, text in {"log": logged, "rows and Redis": stored, "metrics": metrics}.items():
        assert [secret for secret in secrets if secret in text] == [], name


async def use_everything(client: aiohttp.ClientSession, key: str) -> tuple[list[str], str]:
    """Show credentials in every way there is, right and wrong; return them all, and the metrics afterwards."""

    async def ask(method: str, path: str, token: str | None = key, **options: Any) -> Any:
        headers = {"X-Webhook-Secret": WEBHOOK_SECRET} | ({"Authorization": f"Bearer {token}"} if token else {})
        async with client.request(method, path, headers=headers | options.pop("headers", {}), **options) as answer:
            return (await answer.json()) | {"cookie": answer.headers.get("Set-Cookie", "")}

    form = {"username": "eve", "password": PASSWORD, "session": "true"}
    login = await ask("POST", "/api/auth/login", None, data=form)
    wrong = "jk_abcdefghijklmnop_canary-wrong-key"
    await ask("POST", "/api/auth/login", None, data=form | {"password": "canary-wrong-password"})
    await ask("GET", f"/api/tasks?token={key}")
    await ask("GET", "/api/tasks", wrong)
    await ask("POST", "/api/keys", json={"name": "x", "scopes": [key]})
    ticket = (await ask("POST", "/api/auth/ticket", login["access_token"]))["ticket"]
    async with client.ws_connect(f"/api/tasks/none/events?ticket={ticket}") as socket:
        await socket.receive(timeout=5)
    second = await ask("POST", "/api/keys", json={"name": "x", "user_id": "bob"})
    await ask("POST", f"/api/keys/{second['key_id']}/rotate")
    await ask("POST", "/api/tasks/system/echo", STATIC, json={"parameters": {}})
    await ask("DELETE", "/api/auth/session", None, headers={"X-CSRF-Token": login["csrf_token"]})
    async with client.get("/metrics") as answer:
        metrics = await answer.text()
    session = re.match(r"jobs_session=([^;]+)", login["cookie"])
    assert session is not None
    secrets = [key, PASSWORD, STATIC, WEBHOOK_SECRET, login["access_token"], session[1], ticket, second["key"], wrong]
    return secrets, metrics


async def test_the_first_start_shows_one_administrators_key_once(quiet: Settings, tmp_path: Path) -> None:
    environment = environment_of(quiet)
    keys = []
    for start in range(2):
        shown, log = tmp_path / f"shown-{start}", tmp_path / f"log-{start}"
        with shown.open("wb") as output, log.open("wb") as errors:
            argv = [sys.executable, "-m", "app", "serve"]
            api = start_child(argv, env=environment, cwd=Path(__file__).parents[2], stdout=output, stderr=errors)
        try:
            address = await address_in(log)
            keys += re.findall(r"jk_\S+", shown.read_text())
            headers = {"Authorization": f"Bearer {keys[0]}"}
            async with (
                aiohttp.ClientSession(address, headers=headers) as client,
                client.get("/api/auth/session") as who,
            ):
                assert (await who.json())["is_admin"]
        finally:
            assert stop_child(api) == 0
        assert keys[0] not in log.read_text()

    assert len(keys) == 1
    assert "jk_" not in await everything_stored(quiet)
    assert not (quiet.data_dir / "admin.key").exists()
