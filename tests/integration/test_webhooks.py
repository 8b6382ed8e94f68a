"""Webhooks are told of the ends of tasks: once each, signed, again when they fail, and only of what is theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app import outbound
from app.clock import utc_now
from app.history.deliveries import list_deliveries
from app.history.rows import Job
from app.history.tables import jobs
from app.history.webhooks import change_webhook, find_webhook, note_failure
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family, RetryPolicy
from app.jobs.status import Status
from app.jobs.webhook import deliver
from app.queue import keys
from app.records.audit_entries import AUDIT_ENTRIES
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.receiver import Receiver, flood, hang, receiving
from tests.support.waiting import eventually
from tests.support.workplace import at_work, make_worker
from workers.families.webhook import delivery as delivery_work
from workers.families.webhook.delivery import deliver_event, retry_after_s
from workers.families.webhook.message import MAX_RESULT
from workers.sweep import Sweep

QUICK = replace(deliver, retry=RetryPolicy(max_retries=7, base_s=0.01))
EVENTS = ["task.completed", "task.failed", "task.cancelled"]


def catalogue() -> Catalogue:
    """Return the catalogue of the house, with deliveries that are tried again soon."""
    tests = Family(name="test", summary="For tests.", job_types=(house.note, house.count))
    return Catalogue([tests, Family(name="webhook", summary="Webhooks.", job_types=(QUICK,))])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"outbound_allow": ("127.0.0.1",), "outbound_http": True})


@pytest.fixture
async def api(settings: Settings, database_url: str) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=catalogue()) as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@asynccontextmanager
async def delivering(api: ApiUnderTest) -> AsyncIterator[None]:
    """Let a worker make deliveries during the block."""
    worker = make_worker(api.house, {deliver.kind: deliver_event}, queues=("webhooks",))  # type: ignore[dict-item]
    async with at_work(worker):
        yield


async def register(api: ApiUnderTest, url: str, key: str = ADA_KEY, **options: Any) -> Any:
    answer = await api.ask("POST", "/api/webhooks", key=key, json={"url": url, "events": EVENTS} | options)
    assert answer.status == 201, answer.text
    return answer.json


async def end_one(api: ApiUnderTest, status: Status = Status.COMPLETED, **changes: Any) -> str:
    """Submit a task of ada's, start it and end it; return its id."""
    await house.submit(api.house)
    (started,) = await house.start(api.house)
    assert await house.settle(api.house, started, status, **changes)
    return started.id


async def delivery_jobs(api: ApiUnderTest) -> list[Job]:
    async with api.house.database.read() as connection:
        ids = (await connection.execute(sa.select(jobs.c.id).where(jobs.c.kind == deliver.kind))).scalars().all()
    return list((await api.house.reader.get_many(ids)).values())


async def log_of(api: ApiUnderTest, webhook: Any, key: str = ADA_KEY) -> Any:
    return (await api.ask("GET", f"/api/webhooks/{webhook['webhook_id']}/deliveries", key=key)).json["deliveries"]


async def logged(api: ApiUnderTest, webhook: Any, status: str) -> Any:
    """Wait until the newest delivery has a status; return it."""

    async def look() -> Any:
        found = await log_of(api, webhook)
        return found[0] if found and found[0]["status"] == status else None

    return await eventually(look, within=15)


# --- in the transaction that ends a job, on both databases --------------------------------------

both = pytest.mark.databases("sqlite", "postgresql")


@both
async def test_an_end_that_is_written_twice_is_told_once(api: ApiUnderTest) -> None:
    for _ in range(2):
        await register(api, "http://127.0.0.1:9/hook")
    await house.submit(api.house)
    (started,) = await house.start(api.house)
    settlement = house.ending(started)

    won = [await api.house.lifecycle.settle(started, settlement) for _ in range(3)]

    assert won == [True, True, True]  # a reply may be lost, so that the same end is written again
    assert len(await delivery_jobs(api)) == 2
    assert {job.params["delivery_id"] for job in await delivery_jobs(api)} == {j.id for j in await delivery_jobs(api)}


@both
async def test_every_way_to_end_is_told_and_a_retry_is_not(api: ApiUnderTest) -> None:
    webhook = await register(api, "http://127.0.0.1:9/hook")
    completed = await end_one(api)
    failed = await end_one(api, Status.FAILED)
    await end_one(api, Status.PENDING)  # tried again
    (cancelled,) = await house.submit(api.house)
    await api.house.lifecycle.cancel(cancelled.id)
    many = await house.submit(api.house, house.order(), house.order())
    await api.house.lifecycle.bulk.cancel([job.id for job in many])

    told = {(one["task_id"], one["event"]) for one in await log_of(api, webhook)}

    assert told == {
        (completed, "task.completed"),
        (failed, "task.failed"),
        (cancelled.id, "task.cancelled"),
        *((job.id, "task.cancelled") for job in many),
    }


@both
async def test_an_expired_job_and_a_delivery_that_was_cancelled_end_no_loop(api: ApiUnderTest) -> None:
    webhook = await register(api, "http://127.0.0.1:9/hook")
    (expiring,) = await house.submit(api.house)
    await api.house.lifecycle._writer.end_pending(expiring.id, house.OOPS, now=utc_now())
    (job,) = await delivery_jobs(api)

    await api.house.lifecycle.cancel(job.id)

    assert [one["status"] for one in await log_of(api, webhook)] == ["cancelled"]
    assert len(await delivery_jobs(api)) == 1


@both
async def test_filters_and_events_and_owners_say_who_is_told(api: ApiUnderTest) -> None:
    hears = {
        "hers": await register(api, "http://127.0.0.1:9/1"),
        "her failures": await register(api, "http://127.0.0.1:9/2", events=["task.failed"]),
        "her counts": await register(api, "http://127.0.0.1:9/3", filters={"task_names": ["test.count"]}),
        "her queue": await register(api, "http://127.0.0.1:9/4", filters={"queues": ["alpha"]}),
        "bob's": await register(api, "http://127.0.0.1:9/5", key=BOB_KEY),
    }
    admin = await api.ask(
        "POST", "/api/webhooks", json={"url": "http://127.0.0.1:9/6", "events": EVENTS, "for_all": True}
    )
    hears["everybody's"] = admin.json

    await end_one(api)

    counts = {
        name: len(await list_deliveries(api.house.database, webhook["webhook_id"], after=None, limit=9))
        for name, webhook in hears.items()
    }
    assert counts == {
        "hers": 1,
        "her failures": 0,
        "her counts": 0,
        "her queue": 1,
        "bob's": 0,
        "everybody's": 1,
    }


@both
async def test_a_delivery_that_nobody_rang_is_rung_by_the_sweep(api: ApiUnderTest) -> None:
    await register(api, "http://127.0.0.1:9/hook")
    api.house.lifecycle._writer.hand_on(lambda _jobs: None)  # as if the worker died between commit and ring
    await end_one(api)
    (job,) = await delivery_jobs(api)
    assert await house.entry(api.house.redis, job) is None

    await Sweep(api.house, worker_id="sweeper").walk()

    assert await house.entry(api.house.redis, job) is not None
    assert await api.house.redis.exists(keys.body(job.id))


@both
async def test_a_delivery_is_rung_with_the_end_of_its_task(api: ApiUnderTest) -> None:
    await register(api, "http://127.0.0.1:9/hook")
    await end_one(api)
    (job,) = await delivery_jobs(api)

    async def look() -> bool:
        return await house.entry(api.house.redis, job) is not None

    await eventually(look)


@both
async def test_twenty_failures_within_three_days_disable_and_fewer_or_quicker_do_not(api: ApiUnderTest) -> None:
    webhook_id = (await register(api, "http://127.0.0.1:9/hook"))["webhook_id"]
    now = utc_now()

    async def fail(at: datetime) -> bool:
        limits: Any = {"at_most": 20, "within": timedelta(days=3)}
        return await note_failure(api.house.database, webhook_id, now=at, **limits) is not None

    quick = [await fail(now) for _ in range(25)]
    last = await fail(now + timedelta(days=3))

    assert (any(quick), last) == (False, True)
    found = await find_webhook(api.house.database, webhook_id)
    assert found is not None
    assert (found.failures, found.failing_since, found.disabled_at) == (26, now, now + timedelta(days=3))


# --- over the wire ------------------------------------------------------------------------------


async def test_the_receiver_verifies_an_event_that_shows_the_task(api: ApiUnderTest, receiver: Receiver) -> None:
    webhook = await register(api, receiver.url)
    task_id = await end_one(api, result='{"text":"écoute"}')

    async with delivering(api):
        entry = await logged(api, webhook, "delivered")

    (call,) = receiver.received
    event = call.verified_by(webhook["secret"])
    shown = (await api.ask("GET", f"/api/tasks/{task_id}", key=ADA_KEY)).json
    assert event["data"] == shown | {"is_result_omitted": False}
    assert (event["id"], event["type"], event["timestamp"]) == (call.id, "task.completed", shown["completed_at"])
    assert (entry["status_code"], entry["attempts"], entry["error"], entry["task_id"]) == (204, 1, None, task_id)
    assert call.verified_by("whsec_" + "A" * 43 + "=") is None


async def test_a_failed_delivery_is_tried_again_under_the_same_id_with_the_same_bytes(
    api: ApiUnderTest, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 200]
    webhook = await register(api, receiver.url)
    await end_one(api)

    async with delivering(api):
        entry = await logged(api, webhook, "delivered")

    assert entry["attempts"] == 3
    assert len({(call.id, call.body) for call in receiver.received}) == 1
    assert all(call.verified_by(webhook["secret"]) for call in receiver.received)
    found = await find_webhook(api.house.database, webhook["webhook_id"])
    assert found is not None
    assert (found.failures, found.failing_since) == (0, None)


async def test_a_delivery_that_never_succeeds_becomes_a_dead_letter_and_is_delivered_again_on_demand(
    api: ApiUnderTest, receiver: Receiver
) -> None:
    receiver.answers = [503]
    webhook = await register(api, receiver.url)
    await end_one(api)
    async with delivering(api):
        entry = await logged(api, webhook, "failed")
        assert (entry["attempts"], entry["status_code"], entry["error"]) == (8, 503, "The webhook answered 503.")
        dead = await api.ask("GET", "/api/dead-letters?queue=webhooks", key=ADA_KEY)
        assert entry["job_id"] in dead.text

        receiver.answers = [200]
        again = await api.ask("POST", f"/api/webhooks/deliveries/{entry['delivery_id']}/redeliver", key=ADA_KEY)
        assert again.status == 202, again.text
        entry = await logged(api, webhook, "delivered")

    assert (entry["attempts"], {call.id for call in receiver.received}) == (9, {entry["delivery_id"]})


async def test_a_webhook_that_is_gone_is_disabled_and_tried_no_more(api: ApiUnderTest, receiver: Receiver) -> None:
    receiver.answers = [410]
    webhook = await register(api, receiver.url)
    await end_one(api)
    async with delivering(api):
        await logged(api, webhook, "failed")

    shown = (await api.ask("GET", f"/api/webhooks/{webhook['webhook_id']}", key=ADA_KEY)).json
    await end_one(api)

    assert (shown["enabled"], shown["disabled_reason"]) == (False, "It answered 410 Gone.")
    assert (len(receiver.received), len(await delivery_jobs(api))) == (1, 1)
    entries = await api.house.records.page(AUDIT_ENTRIES, limit=100)
    assert "webhook_disabled" in repr(entries)


async def test_answers_without_an_end_and_receivers_that_hang_hold_nobody_up(
    api: ApiUnderTest, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = api.house.settings
    guard = outbound.Outbound(allow=settings.outbound_allow, allows_http=True, timeout_s=0.3)
    monkeypatch.setattr(delivery_work, "open_outbound", lambda _settings: guard)
    receiver.answers = [hang, flood]
    webhook = await register(api, receiver.url)
    await end_one(api)

    async with delivering(api):
        entry = await logged(api, webhook, "delivered")

    assert (entry["attempts"], entry["status_code"]) == (2, 200)


async def test_the_receivers_wish_to_wait_is_granted(api: ApiUnderTest, receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [429], {"Retry-After": "3600"}
    webhook = await register(api, receiver.url)
    await end_one(api)

    async def look() -> Any:
        (entry,) = await log_of(api, webhook)
        return entry if entry["attempts"] and entry["next_attempt_at"] else None

    async with delivering(api):
        entry = await eventually(look)

    waits = datetime.fromisoformat(entry["next_attempt_at"]) - utc_now()
    assert timedelta(minutes=55) < waits <= timedelta(hours=1)


async def test_two_secrets_sign_for_a_day_after_a_rotation(api: ApiUnderTest, receiver: Receiver) -> None:
    webhook = await register(api, receiver.url)
    path = f"/api/webhooks/{webhook['webhook_id']}"
    rotated = (await api.ask("POST", f"{path}/rotate", key=ADA_KEY)).json
    old, new = webhook["secret"], rotated["secret"]

    async with delivering(api):
        await api.ask("POST", f"{path}/test", key=ADA_KEY)
        await eventually(lambda: receiver.received)
        await change_webhook(
            api.house.database, webhook["webhook_id"], {"old_secret_ends_at": utc_now() - timedelta(seconds=1)}
        )
        await logged(api, webhook, "delivered")
        await api.ask("POST", f"{path}/test", key=ADA_KEY)
        await eventually(lambda: len(receiver.received) == 2)

    first, second = receiver.received
    assert first.verified_by(old) == first.verified_by(new) != None  # noqa: E711  # three alike, and there
    assert (second.verified_by(old), second.verified_by(new)["type"]) == (None, "webhook.test")


async def test_a_task_names_its_own_webhook_by_id_or_by_url(api: ApiUnderTest, receiver: Receiver) -> None:
    quiet = await register(api, receiver.url, events=["task.failed"])
    url = receiver.url.replace("/hook", "/other")
    by_id = await api.submit(key=ADA_KEY, webhook=quiet["webhook_id"])
    by_url = [await api.submit(key=ADA_KEY, webhook=url) for _ in range(2)]
    for started in await house.start(api.house):
        await house.settle(api.house, started)

    async with delivering(api):
        await eventually(lambda: len(receiver.received) == 3)

    assert [one["task_id"] for one in await log_of(api, quiet)] == [by_id["task_id"]]
    listed = (await api.ask("GET", "/api/webhooks", key=ADA_KEY)).json["webhooks"]
    (made,) = [webhook for webhook in listed if webhook["url"] == url]
    assert {one["task_id"] for one in await log_of(api, made)} == {task["task_id"] for task in by_url}
    rotated = (await api.ask("POST", f"/api/webhooks/{made['webhook_id']}/rotate", key=ADA_KEY)).json
    assert rotated["secret"].startswith("whsec_")


async def test_a_result_that_is_too_long_is_left_out(api: ApiUnderTest, receiver: Receiver) -> None:
    webhook = await register(api, receiver.url)
    await end_one(api, result='"' + "x" * MAX_RESULT + '"')

    async with delivering(api):
        await logged(api, webhook, "delivered")

    data = receiver.received[0].verified_by(webhook["secret"])["data"]
    assert (data["result"], data["is_result_omitted"]) == (None, True)
    assert len(receiver.received[0].body) < 4096


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), ("Mon, 01 Jun 2026 12:01:00 GMT", 60.0), ("Mon, 01 Jun 2020 12:00:00 GMT", 0.0), ("soon", None)],
)
def test_a_receivers_wish_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, datetime(2026, 6, 1, 12, tzinfo=UTC)) == seconds


async def test_a_webhook_whose_secret_another_server_has_sealed_fails_with_a_reason(
    api: ApiUnderTest, receiver: Receiver
) -> None:
    webhook = await register(api, receiver.url)
    await change_webhook(api.house.database, webhook["webhook_id"], {"secret": "AAAA" * 20})
    await end_one(api)

    async with delivering(api):
        entry = await logged(api, webhook, "failed")

    assert "SECRET_KEY" in entry["error"]
    assert receiver.received == []


# --- the routes ---------------------------------------------------------------------------------


async def test_nobody_sees_or_touches_the_webhooks_of_others(api: ApiUnderTest) -> None:
    webhook = await register(api, "http://127.0.0.1:9/hook")
    await end_one(api)
    (entry,) = await log_of(api, webhook)
    path = f"/api/webhooks/{webhook['webhook_id']}"

    asked = [
        await api.ask(method, where, key=BOB_KEY, **({"json": body} if body else {}))
        for method, where, body in (
            ("GET", path, None),
            ("PATCH", path, {"enabled": False}),
            ("DELETE", path, None),
            ("POST", f"{path}/rotate", None),
            ("POST", f"{path}/test", None),
            ("GET", f"{path}/deliveries", None),
            ("POST", f"/api/webhooks/deliveries/{entry['delivery_id']}/redeliver", None),
        )
    ]
    listed = await api.ask("GET", "/api/webhooks", key=BOB_KEY)
    for_all = {"url": "http://127.0.0.1:9/", "events": EVENTS, "for_all": True}
    greedy = await api.ask("POST", "/api/webhooks", key=BOB_KEY, json=for_all)
    named = await api.ask(
        "POST", "/api/tasks/test/note", key=BOB_KEY, json={"parameters": {}, "webhook": webhook["webhook_id"]}
    )

    assert {answer.status for answer in asked} == {404}
    assert (listed.json["total_count"], greedy.status) == (0, 403)
    assert (named.status, named.json["errors"][0]["pointer"]) == (422, "/webhook")
    assert (await api.ask("GET", path)).json["owner"] == "ada"  # the administrator sees it


async def test_a_secret_is_shown_once_and_stored_nowhere_in_clear(
    api: ApiUnderTest, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    webhook = await register(api, receiver.url)
    path = f"/api/webhooks/{webhook['webhook_id']}"
    rotated = (await api.ask("POST", f"{path}/rotate", key=ADA_KEY)).json
    task_id = await end_one(api)
    async with delivering(api):
        entry = await logged(api, webhook, "delivered")

    places = [
        f"{path}",
        "/api/webhooks",
        f"{path}/deliveries",
        f"/api/tasks/{task_id}",
        f"/api/tasks/{entry['job_id']}",
    ]
    answers = [(await api.ask("GET", place)).text for place in [*places, "/api/records/audit-entries"]]
    file = api.house.database.file
    assert file is not None
    stored = b"".join(found.read_bytes() for found in file.parent.glob("jobs.db*"))
    in_redis = b"".join([await api.house.redis.dump(key) or b"" for key in await api.house.redis.keys("*")])
    output = "".join(capfd.readouterr())

    for secret in (webhook["secret"], rotated["secret"]):
        plain = secret.removeprefix("whsec_")
        assert plain not in "".join(answers) + output
        assert plain.encode() not in stored + in_redis + receiver.received[0].body
    assert webhook["webhook_id"].encode() in stored


async def test_deliveries_are_hidden_from_lists_counts_and_submits(api: ApiUnderTest) -> None:
    await register(api, "http://127.0.0.1:9/hook")
    task_id = await end_one(api)
    (job,) = await delivery_jobs(api)

    listed = (await api.ask("GET", "/api/tasks", key=ADA_KEY)).json
    hidden = (await api.ask("GET", "/api/tasks?include=all", key=ADA_KEY)).json
    registered = (await api.ask("GET", "/api/tasks/registered/list")).text
    direct = await api.ask("POST", "/api/tasks/webhook/deliver", json={"parameters": {"delivery_id": "x"}})
    named = await api.ask(
        "POST", "/api/tasks/enqueue", json={"task_name": "webhook.deliver", "params": {"delivery_id": "x"}}
    )

    assert ([task["task_id"] for task in listed["tasks"]], listed["total_count"]) == ([task_id], 1)
    assert job.id in [task["task_id"] for task in hidden["tasks"]]
    assert "webhook.deliver" not in registered
    assert (direct.status, named.status) == (404, 400)
    assert "webhook.deliver" not in named.json["detail"].partition("known are")[2]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"url": "http://10.0.0.1/"}, "/url"),
        ({"url": "https://user:pw@example.com/"}, "/url"),
        ({"url": "ftp://example.com/"}, "/url"),
        ({"events": []}, "/events"),
        ({"events": ["task.progress"]}, "/events/0"),
        ({"filters": {"queues": ["nowhere"]}}, "/filters/queues/0"),
        ({"filters": {"task_names": ["test.nothing"]}}, "/filters/task_names/0"),
        ({"secret": "mine"}, "/secret"),
        ({"description": "a\0b"}, "/description"),
    ],
)
async def test_a_webhook_that_will_not_do_is_refused_by_field(api: ApiUnderTest, change: Any, pointer: str) -> None:
    body = {"url": "http://127.0.0.1:9/hook", "events": EVENTS} | change

    answer = await api.ask("POST", "/api/webhooks", key=ADA_KEY, json=body)

    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert (await api.ask("GET", "/api/webhooks", key=ADA_KEY)).json["total_count"] == 0


async def test_a_webhook_is_changed_switched_off_on_and_deleted(api: ApiUnderTest) -> None:
    webhook = await register(api, "http://127.0.0.1:9/hook")
    path = f"/api/webhooks/{webhook['webhook_id']}"

    off = await api.ask("PATCH", path, key=ADA_KEY, json={"enabled": False, "events": ["task.failed"]})
    on = await api.ask("PATCH", path, key=ADA_KEY, json={"enabled": True, "description": "nights"})
    inside = await api.ask("PATCH", path, key=ADA_KEY, json={"url": "http://192.168.0.1/"})
    nothing = await api.ask("PATCH", path, key=ADA_KEY, json={})
    gone = [(await api.ask("DELETE", path, key=ADA_KEY)).status, (await api.ask("GET", path, key=ADA_KEY)).status]

    assert (off.json["enabled"], off.json["events"]) == (False, ["task.failed"])
    assert (on.json["enabled"], on.json["disabled_reason"], on.json["description"]) == (True, None, "nights")
    assert (inside.status, nothing.status, gone) == (422, 422, [200, 404])


async def test_a_log_is_read_page_by_page(api: ApiUnderTest) -> None:
    webhook = await register(api, "http://127.0.0.1:9/hook")
    many = await house.submit(api.house, *(house.order() for _ in range(5)))
    await api.house.lifecycle.bulk.cancel([job.id for job in many])
    path, seen = f"/api/webhooks/{webhook['webhook_id']}/deliveries?limit=2", list[str]()
    cursor: str | None = ""

    while cursor is not None:
        page = (await api.ask("GET", path + (f"&cursor={cursor}" if cursor else ""), key=ADA_KEY)).json
        seen, cursor = [*seen, *(one["task_id"] for one in page["deliveries"])], page["next_cursor"]

    assert sorted(seen) == sorted(job.id for job in many)
    assert (await api.ask("GET", path + "&cursor=nonsense", key=ADA_KEY)).status == 400
