"""Logins: a short-lived token for a password, a browser's session, tickets, and tokens of an outside issuer."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from redis.exceptions import ConnectionError as RedisConnectionError

from app.api import throttle
from app.api.browsers import COOKIE, CSRF_HEADER
from app.credentials.secret import open_secret
from app.credentials.tokens import ISSUER
from app.credentials.users import set_access, set_password
from app.errors import Misconfigured
from app.queue import keys
from app.queue.rates import Rates
from app.settings import Settings
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, api_settings, running_api
from tests.support.credentials import PASSWORD, add_user, ask_as, browser, key_of, log_in, token_of
from tests.support.waiting import eventually

TASKS = "/api/tasks"
NOTE = "/api/tasks/test/note"
SUBMIT: dict[str, Any] = {"parameters": {}}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def status(api: ApiUnderTest, key: str, path: str = TASKS) -> int:
    return (await api.ask("GET", path, key=key)).status


# --- passwords and tokens ------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_password_gets_a_short_lived_token_with_the_users_scopes(api: ApiUnderTest) -> None:
    await add_user(api, "eve", "tasks:read")

    answer = await log_in(api, "eve", grant_type="password")

    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    body = answer.json
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("bearer", 900, "tasks:read")
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("eve", 900)
    assert await status(api, body["access_token"]) == 200
    assert (await api.ask("POST", NOTE, key=body["access_token"], json=SUBMIT)).status == 403


async def test_a_wrong_password_an_unknown_and_a_disabled_user_are_told_the_same(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    await add_user(api, "dan")
    await set_access(api.house.database, "dan", is_disabled=True)

    answers = [await log_in(api, "eve", "wrong"), await log_in(api, "nobody"), await log_in(api, "dan")]

    assert [answer.status for answer in answers] == [401] * 3
    assert len({answer.json["detail"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        ({"data": b"username"}, 400),
        ({"data": b"username=eve&password=\xff"}, 400),
        ({"data": b"&".join(b"a=b" for _ in range(50))}, 400),
        ({"data": b""}, 422),
        ({"data": b"username=eve"}, 422),
        ({"data": b"username=eve&password=x&grant_type=code"}, 422),
        ({"data": b"username=eve&password=" + b"x" * 9000}, 413),
    ],
)
async def test_a_form_that_will_not_do_is_a_problem(api: ApiUnderTest, body: dict[str, bytes], answered: int) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    answer = await api.ask("POST", "/api/auth/login", key=None, headers=headers, **body)

    assert (answer.status, answer.headers["Content-Type"]) == (answered, "application/problem+json")


async def test_after_some_failures_a_name_waits_from_this_address_and_others_do_not(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    await add_user(api, "dan")
    answers = await asyncio.gather(*(log_in(api, "eve", "wrong") for _ in range(8)))

    refused, right, other = [answer.status for answer in answers], await log_in(api, "eve"), await log_in(api, "dan")

    assert (refused.count(401), refused.count(429)) == (5, 3)
    assert (right.status, right.json["code"]) == (429, "too_many_tries")
    assert 0 < int(right.headers["Retry-After"]) <= 30
    assert other.status == 200


async def test_two_processes_count_failures_together_and_each_alone_while_redis_is_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_REDIS_S", 5.0)  # a machine that is slow today is no Redis that is out
    async with running_api(settings) as api, running_api(settings) as other:
        await add_user(api, "eve")
        together = [(await log_in(one, "eve", "wrong")).status for one in (api, other) * 3]
        monkeypatch.setattr(Rates, "take", refuse_connection)
        alone = [(await log_in(api, "eve", "wrong")).status for _ in range(6)]

    assert together == alone == [401] * 5 + [429]


async def test_a_login_gives_back_what_failures_took_and_leaves_no_name_in_redis(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    for _ in range(3):
        answers = [(await log_in(api, "eve", "wrong")).status for _ in range(4)]
        answers.append((await log_in(api, "eve")).status)
        assert answers == [401] * 4 + [200]

    kept = [key async for key in api.house.redis.scan_iter(f"{keys.RATE}*")]
    await log_in(api, "hunter2", "wrong")
    after = [key async for key in api.house.redis.scan_iter(f"{keys.RATE}*")]

    assert len(kept) == 2, "the address and the name, each with what failed; the pair is forgiven"
    assert len(after) == 4
    assert not any(b"eve" in key or b"hunter2" in key for key in after)


async def refuse_connection(*_: object) -> Any:
    raise RedisConnectionError("gone")


@pytest.mark.parametrize("change", ["disable", "password"])
async def test_a_users_tokens_and_sessions_die_within_five_seconds_sockets_included(
    api: ApiUnderTest, change: str
) -> None:
    await add_user(api, "eve")
    token = await token_of(api, "eve")
    task = (await api.ask("POST", NOTE, key=token, json=SUBMIT)).json
    headers = {"Authorization": f"Bearer {token}"}
    async with browser(api) as client, api.client.ws_connect(f"/ws/tasks/{task['task_id']}", headers=headers) as socket:
        started = await ask_as(client, "POST", "/api/auth/session", headers=headers)
        await socket.receive(timeout=5)
        at = time.monotonic()
        if change == "disable":
            await set_access(api.house.database, "eve", is_disabled=True)
        else:
            await set_password(api.house.database, "eve", "another long password")

        async def is_out() -> bool:
            return await status(api, token) == 401 and (await ask_as(client, "GET", TASKS)).status == 401

        await eventually(is_out, within=5)
        await socket.receive(timeout=5)

    assert time.monotonic() - at < 5
    assert (started.status, socket.close_code) == (201, 4401)


async def test_a_token_that_was_tampered_with_opens_nothing(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    good = await token_of(api, "eve")
    claims = jwt.decode(good, options={"verify_signature": False})
    key = open_secret(api_settings(api.house.settings)).key_for("token:access")

    def forged(key: bytes | str = key, algorithm: str = "HS256", **changes: Any) -> str:
        said = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(said, key, algorithm=algorithm)

    header, payload, _ = good.split(".")
    tokens = {
        "again": forged(),
        "none": forged("", "none"),
        "unsigned": f"{header}.{payload}.",
        "other key": forged(b"k" * 32),
        "other algorithm": forged(key + key, "HS512"),
        "expired": forged(exp=claims["iat"] - 1),
        "for ever": forged(exp=None),
        "other issuer": forged(iss="somebody"),
        "other audience": forged(aud=f"{ISSUER}:ticket"),
        "other generation": forged(proof="login:2"),
        "nobody": forged(sub="nobody"),
        "garbage": "a.b.c",
    }

    answers = {name: await status(api, token) for name, token in tokens.items()}

    assert answers.pop("again") == 200
    assert set(answers.values()) == {401}


# --- browsers ------------------------------------------------------------------------------------


async def test_a_session_lives_in_a_cookie_that_scripts_and_other_sites_do_not_get(api: ApiUnderTest) -> None:
    await add_user(api, "eve")

    local = await log_in(api, "eve", session="true")
    headers = {"Host": "jobs.example"}
    form = {"username": "eve", "password": PASSWORD, "session": "true"}
    remote = await api.ask("POST", "/api/auth/login", key=None, data=form, headers=headers)

    parts = [part.strip().lower() for part in local.headers["Set-Cookie"].split(";")]
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= set(parts)
    assert "secure" not in parts
    assert "Secure" in remote.headers["Set-Cookie"]


async def test_a_browser_changes_something_only_with_the_token_of_its_session(api: ApiUnderTest) -> None:
    async with browser(api) as client:
        started = await ask_as(client, "POST", "/api/auth/session", headers={"Authorization": f"Bearer {ADA_KEY}"})
        token = {CSRF_HEADER: started.json["csrf_token"]}
        shown = await ask_as(client, "GET", "/api/auth/session")
        read = await ask_as(client, "GET", TASKS)
        done = await ask_as(client, "POST", NOTE, json=SUBMIT, headers=token)
        own = {"Origin": f"http://{client._base_url.authority}"} if client._base_url else {}
        done_from_own_page = await ask_as(client, "POST", NOTE, json=SUBMIT, headers=token | own)
        refused = [
            await ask_as(client, "POST", NOTE, json=SUBMIT),
            await ask_as(client, "POST", NOTE, json=SUBMIT, headers={CSRF_HEADER: "0" * 64}),
            await ask_as(client, "POST", NOTE, json=SUBMIT, headers={CSRF_HEADER: "\xff"}),
            await ask_as(client, "POST", NOTE, json=SUBMIT, headers=token | {"Origin": "https://evil.example"}),
            await ask_as(client, "POST", NOTE, json=SUBMIT, headers=token | {"Origin": "null"}),
        ]

    assert (shown.json["user_id"], shown.json["csrf_token"]) == ("ada", started.json["csrf_token"])
    assert (read.status, done.status, done.json["user_id"], done_from_own_page.status) == (200, 202, "ada", 202)
    assert [answer.status for answer in refused] == [403] * 5
    assert not any("Access-Control-Allow-Credentials" in answer.headers for answer in (started, read, *refused))


async def test_a_page_of_another_origin_logs_nobody_in(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    form = {"username": "eve", "password": PASSWORD, "session": "true"}

    answer = await api.ask("POST", "/api/auth/login", key=None, data=form, headers={"Origin": "https://evil.example"})

    assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


async def test_who_logs_out_is_out_although_the_cookie_was_kept(api: ApiUnderTest) -> None:
    async with browser(api) as client:
        started = await ask_as(client, "POST", "/api/auth/session", headers={"Authorization": f"Bearer {ADA_KEY}"})
        kept = {"Cookie": started.headers["Set-Cookie"].partition(";")[0]}
        token = {CSRF_HEADER: started.json["csrf_token"]}
        ended = await ask_as(client, "DELETE", "/api/auth/session", headers=token)
        left = list(client.cookie_jar)
    again = await api.ask("GET", TASKS, key=None, headers=kept)

    assert (ended.status, left, again.status) == (200, [], 401)


async def test_a_session_ends_with_the_key_that_opened_it(api: ApiUnderTest) -> None:
    key_id, key = await key_of(api, "ada")
    async with browser(api) as client:
        await ask_as(client, "POST", "/api/auth/session", headers={"Authorization": f"Bearer {key}"})
        await api.ask("DELETE", f"/api/keys/{key_id}")

        after = await ask_as(client, "GET", TASKS)

    assert after.status == 401


async def test_a_session_is_no_key(api: ApiUnderTest) -> None:
    started = await api.ask("POST", "/api/auth/session", key=ADA_KEY)
    session = started.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    _, key = await key_of(api, "ada")

    as_key = await status(api, session)
    as_cookie = await api.ask("GET", TASKS, key=None, headers={"Cookie": f"{COOKIE}={key}"})
    listed = (await api.ask("GET", "/api/keys", key=ADA_KEY)).json["total_count"]

    assert (as_key, as_cookie.status, listed) == (401, 401, 1)


async def test_a_ticket_opens_one_websocket_and_no_other_in_no_process(settings: Settings) -> None:
    async with running_api(settings) as api, running_api(settings) as other:
        path = f"/api/tasks/{(await api.submit(key=ADA_KEY))['task_id']}/events"
        ticket = (await api.ask("POST", "/api/auth/ticket", key=ADA_KEY)).json["ticket"]
        codes = []
        for process in (api, api, other):
            async with process.client.ws_connect(f"{path}?ticket={ticket}") as socket:
                message = await socket.receive(timeout=5)
                codes.append(socket.close_code or json.loads(message.data)["type"])
        used_as_key = await status(api, ticket)

    assert (codes, used_as_key) == (["task.snapshot", 4401, 4401], 401)


async def test_a_socket_opened_by_a_ticket_ends_with_the_credential_that_got_it(api: ApiUnderTest) -> None:
    key_id, key = await key_of(api, "ada")
    path = f"/api/tasks/{(await api.submit(key=ADA_KEY))['task_id']}/events"
    ticket = (await api.ask("POST", "/api/auth/ticket", key=key)).json["ticket"]

    async with api.client.ws_connect(f"{path}?ticket={ticket}") as socket:
        await socket.receive(timeout=5)
        await api.ask("DELETE", f"/api/keys/{key_id}")
        await socket.receive(timeout=5)

    assert socket.close_code == 4401


@pytest.mark.parametrize(
    ("origin", "by", "answered"),
    [
        ("https://evil.example", "key", 403),
        ("null", "key", 403),
        ("https://ours.example", "key", 101),
        ("own", "key", 101),
        ("own", "cookie", 101),
        ("https://ours.example", "cookie", 403),
    ],
)
async def test_a_websocket_is_opened_by_pages_that_may_and_with_a_cookie_by_our_own_alone(
    settings: Settings, origin: str, by: str, answered: int
) -> None:
    async with running_api(settings.model_copy(update={"cors_origins": ("https://ours.example",)})) as api:
        path = f"/api/tasks/{(await api.submit(key=ADA_KEY))['task_id']}/events"
        host = api.client._base_url.authority if api.client._base_url else ""
        started = await api.ask("POST", "/api/auth/session", key=ADA_KEY)
        shown = (
            {"Authorization": f"Bearer {ADA_KEY}"}
            if by == "key"
            else {"Cookie": started.headers["Set-Cookie"].partition(";")[0]}
        )
        asking = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Origin": f"http://{host}" if origin == "own" else origin,
        }
        async with api.client.get(path, headers=asking | shown) as answer:
            found = answer.status

    assert found == answered


# --- an outside issuer ---------------------------------------------------------------------------


@dataclass(kw_only=True)
class OutsideIssuer:
    """Somebody else's keys, published over HTTP, and tokens signed with them."""

    keys: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    is_out: bool = False
    url: str = ""

    def add(self, key_id: str, key: Any) -> None:
        self.keys[key_id] = key

    def sign(self, key_id: str, algorithm: str = "RS256", **changes: Any) -> str:
        claims = {"iss": "https://id.example", "aud": "jobs", "sub": "zoe", "scope": "openid tasks:read"}
        given: dict[str, Any] = claims | {"exp": int(time.time()) + 300} | changes
        said = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(said, self.keys[key_id], algorithm=algorithm, headers={"kid": key_id})

    async def publish(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.is_out:
            raise web.HTTPInternalServerError
        published = []
        for key_id, key in self.keys.items():
            make = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
            published.append(json.loads(make.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig"})
        return web.json_response({"keys": published})


@asynccontextmanager
async def published() -> AsyncIterator[OutsideIssuer]:
    issuer = OutsideIssuer()
    issuer.add("rsa", rsa.generate_private_key(65537, 2048))
    issuer.add("ec", ec.generate_private_key(ec.SECP256R1()))
    app = web.Application()
    app.router.add_get("/jwks", issuer.publish)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
        yield issuer
    finally:
        await runner.cleanup()


@asynccontextmanager
async def trusting(settings: Settings, issuer: OutsideIssuer) -> AsyncIterator[ApiUnderTest]:
    trust = {"jwt_issuer": "https://id.example", "jwt_audience": "jobs", "jwt_jwks_url": issuer.url}
    async with running_api(settings.model_copy(update=trust)) as api:
        yield api


async def test_a_token_of_the_outside_issuer_is_its_subjects_with_the_scopes_it_names(settings: Settings) -> None:
    async with published() as issuer, trusting(settings, issuer) as api:
        by_rsa = [await status(api, issuer.sign("rsa")) for _ in range(3)]
        by_ec = await status(api, issuer.sign("ec", "ES256"))
        who = (await api.ask("GET", "/api/auth/session", key=issuer.sign("rsa"))).json
        written = await api.ask("POST", NOTE, key=issuer.sign("rsa"), json=SUBMIT)
        nothing = await status(api, issuer.sign("rsa", scope="openid"))

    assert (by_rsa, by_ec, issuer.asked) == ([200] * 3, 200, 1)
    assert (who["user_id"], who["scopes"], who["is_admin"]) == ("zoe", ["tasks:read"], False)
    assert (written.status, nothing) == (403, 403)


async def test_a_token_that_the_issuer_did_not_sign_for_us_opens_nothing(settings: Settings) -> None:
    async with published() as issuer, trusting(settings, issuer) as api:
        public = RSAAlgorithm.to_jwk(issuer.keys["rsa"].public_key())
        strange = OutsideIssuer(keys={"rsa": rsa.generate_private_key(65537, 2048)})
        tokens = {
            "another's signature": strange.sign("rsa"),
            "another audience": issuer.sign("rsa", aud="others"),
            "another issuer": issuer.sign("rsa", iss="https://evil.example"),
            "expired": issuer.sign("rsa", exp=int(time.time()) - 60),
            "for ever": issuer.sign("rsa", exp=None),
            "no subject": issuer.sign("rsa", sub=None),
            "another algorithm": issuer.sign("rsa", "RS512"),
            "the public key as a secret": confused(issuer.sign("rsa"), public),
            "no key id": jwt.encode({"sub": "zoe"}, issuer.keys["rsa"], algorithm="RS256"),
        }

        answers = {name: await status(api, token) for name, token in tokens.items()}

    assert set(answers.values()) == {401}, answers


def confused(token: str, public: str) -> str:
    """Sign what a token says with the issuer's public key, as if that were a shared secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    said = f"{base64url(json.dumps(header).encode())}.{token.split('.')[1]}"
    return f"{said}.{base64url(hmac.digest(public.encode(), said.encode(), 'sha256'))}"


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_new_key_of_the_issuer_is_found_and_made_up_ids_ask_nothing_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with published() as issuer, trusting(settings, issuer) as api:
        await status(api, issuer.sign("rsa"))
        issuer.add("new", rsa.generate_private_key(65537, 2048))
        early = [await status(api, issuer.sign("new")) for _ in range(5)]
        asked = issuer.asked
        monkeypatch.setattr("app.credentials.issuer._PAUSE_S", 0.0)
        later = await status(api, issuer.sign("new"))

    assert (early, asked, later, issuer.asked) == ([401] * 5, 1, 200, 2)


async def test_without_the_issuers_keys_nobody_is_let_in_and_nobody_is_called_a_stranger(settings: Settings) -> None:
    async with published() as issuer, trusting(settings, issuer) as api:
        issuer.is_out = True
        out = await api.ask("GET", TASKS, key=issuer.sign("rsa"))
        others = await status(api, BOB_KEY)

    assert (out.status, out.json["code"], others) == (503, "unavailable", 200)


async def test_half_an_issuer_is_a_mistake(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="JWT_JWKS_URL"):
        async with running_api(settings.model_copy(update={"jwt_issuer": "https://id.example"})):
            pass
