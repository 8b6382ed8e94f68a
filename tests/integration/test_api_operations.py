"""What operators ask: queues, workers, health, metrics, the catalogue, the OpenAPI document."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.resources import THROUGHPUT
from app.jobs.status import Status
from app.live.totals import read_totals
from app.live.workers import Heartbeat, beat
from app.queue.client import Corrupt
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.waiting import eventually
from tests.support.workers import heartbeat

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


@pytest.fixture
async def api_without_redis(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings.model_copy(update={"redis_url": NOWHERE})) as running:
        yield running


async def test_a_queue_tells_what_is_ready_scheduled_and_running(api: ApiUnderTest) -> None:
    await house.start_one(api.house)
    await api.submit()
    await api.submit(countdown=3600)

    queues = (await api.ask("GET", "/api/tasks/queues/stats", key=ADA_KEY)).json

    alpha = next(queue for queue in queues["queues"] if queue["name"] == "alpha")
    assert (queues["total_queues"], alpha["ready"], alpha["messages"]) == (2, 1, 1)
    assert (alpha["scheduled"], alpha["running"], alpha["paused"], alpha["consumers"]) == (1, 1, False, 0)
    assert alpha["oldest_ready_age_s"] >= 0


async def test_a_queue_tells_how_many_jobs_end_per_second(api: ApiUnderTest) -> None:
    throughput = api.app[THROUGHPUT]
    await throughput.sample()
    await house.settle(api.house, await house.start_one(api.house))
    await eventually(lambda: counted(api))
    await throughput.sample()

    rate = throughput.rate("alpha")

    assert rate is not None
    assert rate > 0
    assert throughput.rate("beta") == 0


async def test_live_workers_are_listed(api: ApiUnderTest) -> None:
    await beat(api.house.redis, busy_worker())

    status = (await api.ask("GET", "/api/tasks/workers/status")).json
    stats = (await api.ask("GET", "/api/tasks/workers/stats")).json

    assert status["total_workers"] == stats["total_workers"] == 1
    assert {"id", "host", "pid", "queues", "slots", "running", "processed", "failed", "rss", "loop_lag"} <= set(
        status["workers"][0]
    )
    assert stats["workers"]["w1"] == {
        "pool": {"implementation": "asyncio", "max-concurrency": 10},
        "total": {"tasks": 7},
    }


async def test_health_is_degraded_without_workers_and_whole_with_one(api: ApiUnderTest) -> None:
    before = (await api.ask("GET", "/api/tasks/health")).json
    await beat(api.house.redis, busy_worker())
    after = (await api.ask("GET", "/api/tasks/health")).json

    assert (before["status"], before["checks"]["workers"]) == ("degraded", "none")
    assert (after["status"], after["checks"]) == ("healthy", {"redis": "ok", "database": "ok", "workers": "ok"})


async def test_without_redis_the_service_is_degraded_but_ready(api_without_redis: ApiUnderTest) -> None:
    api = api_without_redis

    health = await api.ask("GET", "/api/tasks/health")
    ready = await api.ask("GET", "/ready", key=None)
    queues = await api.ask("GET", "/api/tasks/queues/stats")
    metrics = await api.ask("GET", "/metrics", key=None)

    assert (health.status, health.json["status"], health.json["checks"]["redis"]) == (200, "degraded", "out")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert (queues.status, queues.json["code"]) == (503, "unavailable")
    assert "redis_up 0.0" in metrics.text


async def test_a_database_that_is_not_migrated_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    empty = {"database_url": f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}", "db_auto_upgrade": False}
    async with running_api(settings.model_copy(update=empty)) as api:
        ready = await api.ask("GET", "/ready", key=None)
        health = await api.ask("GET", "/api/tasks/health")
        alive = await api.ask("GET", "/health", key=None)

    assert (ready.status, ready.json["code"]) == (503, "unavailable")
    assert health.json["status"] == "unhealthy"
    assert (alive.status, alive.json) == (200, {"status": "ok"})


async def test_metrics_count_what_ended_and_how_long_it_took(api: ApiUnderTest) -> None:
    for status in (Status.COMPLETED, Status.COMPLETED, Status.FAILED):
        job = await house.start_one(api.house)
        await house.settle(api.house, job, status, ended_at=job.started_at + timedelta(seconds=3))
    await api.submit()
    await api.house.queue.quarantine([Corrupt(queue_key="", id="odd", reason="unreadable body", found=b"?")])
    await eventually(lambda: counted(api, 3))

    text = (await api.ask("GET", "/metrics", key=None)).text

    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    kind = (("queue", "alpha"), ("task", "test.note"))
    assert samples["tasks_total", ("queue", "alpha"), ("status", "completed"), ("task", "test.note")] == 2
    assert samples["tasks_total", ("queue", "alpha"), ("status", "failed"), ("task", "test.note")] == 1
    assert samples["task_duration_seconds_count", *kind] == 3
    assert samples["task_duration_seconds_sum", *kind] == pytest.approx(9)
    assert samples["task_duration_seconds_bucket", ("le", "1.0"), *kind] == 0
    assert samples["task_duration_seconds_bucket", ("le", "5.0"), *kind] == 3
    assert samples["entries_quarantined_total", ("reason", "unreadable body")] == 1
    assert samples["queue_ready", ("queue", "alpha")] == 1
    assert samples["workers_alive",] == 0
    assert samples["http_requests_total", ("method", "POST"), ("route", "/api/tasks/test/note"), ("status", "202")] == 1


async def test_the_catalogue_tells_everything_of_every_kind(api: ApiUnderTest) -> None:
    known = (await api.ask("GET", "/api/tasks/registered/list", key=ADA_KEY)).json

    note = next(task for task in known["catalogue"] if task["task_name"] == "test.note")
    assert (known["total"], sorted(known["tasks"])) == (4, ["test.count", "test.judge", "test.note", "test.sweep"])
    assert (note["path"], note["queue"], note["aliases"]) == ("/api/tasks/test/note", "alpha", ["note"])
    assert set(note["params_schema"]["properties"]) == {"text", "user_id"}


async def test_the_openapi_document_holds_every_route_and_no_loose_end(api: ApiUnderTest) -> None:
    answer = await api.ask("GET", "/api/openapi.json", key=ADA_KEY)

    document = answer.json
    served = {
        resource.canonical
        for resource in api.app.router.resources()
        if not resource.canonical.endswith("/") and not resource.canonical.startswith("/api/v1")
    }
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == served - {"/api/openapi.json"}
    references = {part.partition('"')[0] for part in answer.text.split('"$ref":"#/components/schemas/')[1:]}
    assert references <= set(document["components"]["schemas"])
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))


def busy_worker() -> Heartbeat:
    return replace(heartbeat("w1"), slots=10, running=2, processed=7, failed=1, rss=1_000_000, loop_lag=0.001)


async def counted(api: ApiUnderTest, ended: int = 1) -> bool:
    totals = await read_totals(api.house.redis)
    return sum(count for key, count in totals.items() if key[0] == "tasks") >= ended
