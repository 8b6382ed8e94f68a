"""API keys: shown once, kept as a digest, bound to scopes and time, rotated without a gap, and revoked everywhere."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import sqlalchemy as sa

from app.api.resources import KEYRING
from app.clock import iso, utc_now
from app.credentials.users import set_access
from app.database import metadata
from app.history.api_keys import find_key
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.credentials import add_user, key_of
from tests.support.waiting import eventually

KEYS = "/api/v1/keys"
NOTE = "/api/tasks/test/note"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def status(api: ApiUnderTest, key: str, path: str = "/api/tasks") -> int:
    return (await api.ask("GET", path, key=key)).status


async def dump(api: ApiUnderTest) -> str:
    async with api.house.database.read() as connection:
        rows = [(await connection.execute(sa.select(table))).all() for table in metadata.sorted_tables]
    return repr(rows)


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_key_is_shown_once_and_the_database_holds_none(api: ApiUnderTest) -> None:
    made = await api.ask("POST", KEYS, key=ADA_KEY, json={"name": "laptop"})
    key, key_id = made.json["key"], made.json["key_id"]
    used = await status(api, key)
    shown = [await api.ask("GET", path, key=ADA_KEY) for path in (KEYS, f"{KEYS}/{key_id}")]

    assert (made.status, used, made.headers["Cache-Control"]) == (201, 200, "no-store")
    assert (made.json["user_id"], made.json["scopes"]) == ("ada", ["records:write", "tasks:read", "tasks:write"])
    assert [answer.status for answer in shown] == [200, 200]
    secret = key.rpartition(f"{key_id}_")[2]
    assert len(secret) >= 43
    stored = await dump(api)
    assert key_id in stored
    for text in (*(answer.text for answer in shown), stored):
        assert secret not in text


async def test_a_key_allows_what_its_scopes_say_and_the_refusal_names_the_one_that_is_missing(
    api: ApiUnderTest,
) -> None:
    _, reading = await key_of(api, "ada", "tasks:read")
    _, storing = await key_of(api, "ada", "records:write")
    _, acting = await key_of(api, "product", "tasks:read", "tasks:write", "tasks:any-user")
    records, for_bob = "/api/records/audit-entries", {"user_id": "bob", "parameters": {}}

    refused = [
        await api.ask("POST", NOTE, key=reading, json={"parameters": {}}),
        await api.ask("POST", records, key=reading, json=[]),
        await api.ask("GET", records, key=storing),
        await api.ask("POST", NOTE, key=ADA_KEY, json=for_bob),
        await api.ask("GET", f"{records}?user_id=bob", key=ADA_KEY),
    ]
    done = [
        await api.ask("GET", records, key=reading),
        await api.ask("POST", records, key=storing, json=[]),
        await api.ask("POST", NOTE, key=acting, json=for_bob),
        await api.ask("GET", f"{records}?user_id=bob", key=acting),
    ]

    assert [answer.status for answer in refused] == [403] * 5
    named = [re.findall(r"'([\w:-]+)'", answer.json["detail"]) for answer in refused]
    assert named == [["tasks:write"], ["records:write"], ["tasks:read"], ["tasks:any-user"], ["tasks:any-user"]]
    assert [answer.status for answer in done] == [200, 200, 202, 200]
    assert done[2].json["user_id"] == "bob"
    assert await status(api, acting, f"/api/tasks/{done[2].json['task_id']}") == 200


async def test_who_acts_for_a_user_stores_their_records_and_nobody_else_does(api: ApiUnderTest) -> None:
    _, acting = await key_of(api, "product", "records:write", "tasks:any-user")
    entry = {"entry_id": "e1", "user_id": "bob", "timestamp": iso(utc_now()), "event_type": "x", "action": "x"}

    stored = await api.ask("POST", "/api/records/audit-entries", key=acting, json=[entry])
    stolen = await api.ask("POST", "/api/records/audit-entries", key=ADA_KEY, json=[entry | {"entry_id": "e2"}])

    assert (stored.status, stolen.status) == (200, 422)


async def test_nobody_makes_a_key_that_reaches_farther_than_their_own(api: ApiUnderTest) -> None:
    _, brief = await key_of(api, "ada", "tasks:read", "tasks:write", lives_s=3600)
    later = iso(utc_now().replace(year=utc_now().year + 1))

    refused = [
        await api.ask("POST", KEYS, key=ADA_KEY, json={"name": "x", "scopes": ["admin"]}),
        await api.ask("POST", KEYS, key=ADA_KEY, json={"name": "x", "user_id": "bob"}),
        await api.ask("POST", KEYS, key=brief, json={"name": "x", "scopes": ["records:write"]}),
        await api.ask("POST", KEYS, key=brief, json={"name": "x", "expires_at": later}),
    ]
    bound = await api.ask("POST", KEYS, key=brief, json={"name": "x"})
    rotated = await api.ask("POST", f"{KEYS}/{bound.json['key_id']}/rotate", key=brief)
    by_admin = await api.ask("POST", KEYS, json={"name": "x", "user_id": "bob", "scopes": ["admin"]})

    assert [answer.status for answer in refused] == [403] * 4
    assert bound.json["scopes"] == ["tasks:read", "tasks:write"]
    brief_end = (await api.ask("GET", f"{KEYS}?limit=1&offset=2", key=ADA_KEY)).json["keys"][0]["expires_at"]
    assert bound.json["expires_at"] == brief_end
    assert rotated.json["expires_at"] == brief_end
    assert (by_admin.status, await status(api, by_admin.json["key"], "/api/keys?user_id=ada")) == (201, 200)


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        ({}, 422),
        ({"name": ""}, 422),
        ({"name": "x", "scopes": ["nonsense"]}, 400),
        ({"name": "x", "scopes": []}, 400),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, 400),
        ({"name": "x", "user_id": "\n"}, 400),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(api: ApiUnderTest, body: object, answered: int) -> None:
    answer = await api.ask("POST", KEYS, json=body)

    assert answer.status == answered
    assert (await api.ask("GET", KEYS)).json["total_count"] == 0


async def test_a_foreign_key_is_not_there(api: ApiUnderTest) -> None:
    key_id, key = await key_of(api, "ada")
    paths = [("GET", key_id), ("DELETE", key_id), ("POST", f"{key_id}/rotate"), ("POST", f"{key_id}/revoke")]

    answers = [await api.ask(method, f"{KEYS}/{path}", key=BOB_KEY) for method, path in paths]
    listed = (await api.ask("GET", KEYS, key=BOB_KEY)).json["keys"]

    assert ([answer.status for answer in answers], listed) == ([404] * 4, [])
    assert await status(api, key) == 200


async def test_a_key_ends_when_its_time_has_come_an_open_socket_with_it(api: ApiUnderTest) -> None:
    task = await api.submit(key=ADA_KEY)
    _, key = await key_of(api, "ada", lives_s=1.5)
    headers = {"Authorization": f"Bearer {key}"}

    before = await status(api, key)
    async with api.client.ws_connect(f"/api/tasks/{task['task_id']}/events", headers=headers) as socket:
        await socket.receive(timeout=5)
        await socket.receive(timeout=5)
        code = socket.close_code

    assert (before, code, await status(api, key)) == (200, 4401, 401)


@pytest.mark.databases("sqlite", "postgresql")
async def test_after_a_rotation_both_keys_live_and_a_second_one_ends_the_oldest(api: ApiUnderTest) -> None:
    key_id, first = await key_of(api, "ada")
    made = await api.ask("POST", f"{KEYS}/{key_id}/rotate", key=first)
    second = made.json["key"]
    both = [await status(api, key) for key in (first, second)]
    again = await api.ask("POST", f"{KEYS}/{key_id}/rotate", key=ADA_KEY)
    third = (await api.ask("POST", f"{KEYS}/{made.json['key_id']}/rotate", key=ADA_KEY)).json["key"]
    api.app[KEYRING].forget_key(key_id)

    assert both == [200, 200]
    assert again.status == 409
    assert [await status(api, key) for key in (first, second, third)] == [401, 200, 200]


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(api: ApiUnderTest) -> None:
    key_id, first = await key_of(api, "ada")

    made = await api.ask("POST", f"{KEYS}/{key_id}/rotate?overlap_seconds=0", key=ADA_KEY)

    assert [await status(api, key) for key in (first, made.json["key"])] == [401, 200]


async def test_of_concurrent_rotations_one_wins(api: ApiUnderTest) -> None:
    key_id, _ = await key_of(api, "ada")

    answers = await asyncio.gather(*(api.ask("POST", f"{KEYS}/{key_id}/rotate", key=ADA_KEY) for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]


async def test_a_revoked_key_is_refused_by_every_process_within_five_seconds_open_sockets_included(
    settings: Settings,
) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(running_api(settings)) for _ in range(2)]
        task = await here.submit(key=ADA_KEY)
        key_id, key = await key_of(here, "ada")
        headers = {"Authorization": f"Bearer {key}"}
        path = f"/api/tasks/{task['task_id']}/events"
        sockets = [
            await stack.enter_async_context(api.client.ws_connect(path, headers=headers)) for api in (here, there)
        ]
        for socket in sockets:
            await socket.receive(timeout=5)
        assert [await status(api, key) for api in (here, there)] == [200, 200]

        started = time.monotonic()
        await here.ask("DELETE", f"{KEYS}/{key_id}", key=ADA_KEY)
        assert await status(here, key) == 401
        await asyncio.gather(*(socket.receive(timeout=5) for socket in sockets))
        await eventually(lambda: refused(there, key), within=5)

        assert time.monotonic() - started < 5
        assert [socket.close_code for socket in sockets] == [4401, 4401]


async def refused(api: ApiUnderTest, key: str) -> bool:
    return await status(api, key) == 401


async def test_a_disabled_users_keys_are_refused(api: ApiUnderTest) -> None:
    await add_user(api, "eve")
    key_id, key = await key_of(api, "eve")
    before = await status(api, key)
    await set_access(api.house.database, "eve", is_disabled=True)
    api.app[KEYRING].forget_key(key_id)

    assert (before, await status(api, key)) == (200, 401)


async def test_a_request_costs_no_query_while_its_key_is_fresh(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def counting(database: object, key_id: str) -> object:
        asked.append(key_id)
        return await find_key(api.house.database, key_id)

    monkeypatch.setattr("app.api.auth.find_key", counting)
    key_id, key = await key_of(api, "ada")

    answers = [await status(api, key, "/api/tasks/registered/list") for _ in range(20)]

    assert (answers, asked) == ([200] * 20, [key_id])


async def test_it_is_noted_when_a_key_was_used_last(api: ApiUnderTest) -> None:
    key_id, key = await key_of(api, "ada")
    before = (await api.ask("GET", f"{KEYS}/{key_id}")).json["last_used_at"]
    await status(api, key)
    await api.app[KEYRING].note_uses_now()

    after = (await api.ask("GET", f"{KEYS}/{key_id}")).json["last_used_at"]

    assert before is None
    assert after is not None


async def test_every_act_of_an_administrator_leaves_an_entry_that_nobody_can_overwrite(api: ApiUnderTest) -> None:
    task = await api.submit(key=ADA_KEY)
    own = await api.submit()
    await api.ask("DELETE", f"/api/tasks/{task['task_id']}?terminate=true", headers={"X-Request-ID": "r-1"})
    await api.ask("DELETE", f"/api/tasks/{task['task_id']}")
    await api.ask("DELETE", f"/api/tasks/{own['task_id']}")
    await api.ask("POST", "/api/schedules/audit-archive/disable")
    await api.ask("POST", KEYS, key=ADA_KEY, json={"name": "x"})

    listed = (await api.ask("GET", "/api/records/audit-entries")).json["records"]

    seen = [(entry["user_id"], entry["action"], entry["resource"], entry["result"]) for entry in reversed(listed)]
    assert seen == [
        ("admin", "cancel_task", f"/api/tasks/{task['task_id']}", "success"),
        ("admin", "cancel_task", f"/api/tasks/{task['task_id']}", "conflict"),
        ("admin", "disable_schedule", "/api/schedules/audit-archive/disable", "success"),
        ("ada", "make_key", KEYS, "success"),
    ]
    first = listed[-1]
    assert (first["ip_address"], first["session_id"], first["component"]) == ("127.0.0.1", "setting", "api")
    assert first["details"] == {"request_id": "r-1", "method": "DELETE", "users": ["ada"]}
    forged = [entry | {"user_id": "ada", "action": "nothing"} for entry in listed[:1]]
    for key in (ADA_KEY, ADMIN_KEY):
        answer = await api.ask("POST", "/api/records/audit-entries", key=key, json=forged)
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/0/entry_id")


async def test_reading_and_ones_own_tasks_leave_no_entry(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    await api.ask("GET", f"/api/tasks/{job.id}")
    task = await api.submit(key=ADA_KEY)
    await api.ask("DELETE", f"/api/tasks/{task['task_id']}", key=ADA_KEY)

    assert (await api.ask("GET", "/api/records/audit-entries")).json["records"] == []
