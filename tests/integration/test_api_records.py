"""Records over HTTP: all or none, each user their own."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.jobs.ari import Metric
from app.settings import Settings
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api

PATH = "/api/records/ari-snapshots"
NDJSON = {"Content-Type": "application/x-ndjson"}

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


def snapshot(number: int, **changes: Any) -> dict[str, Any]:
    scores = {metric.value: 0.5 for metric in Metric}
    at = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
    return {"snapshot_id": f"s{number}", "user_id": "ada", "timestamp": at, **scores} | changes


def lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(map(orjson.dumps, records))


async def test_an_array_and_lines_store_the_same(api: ApiUnderTest) -> None:
    array = await api.ask("POST", PATH, json=[snapshot(1), snapshot(2)])
    ndjson = await api.ask("POST", PATH, data=lines(snapshot(2, engagement=0.9), snapshot(3)), headers=NDJSON)

    stored = (await api.ask("GET", PATH)).json
    assert (array.status, array.json) == (200, {"kind": "ari-snapshots", "stored": 2})
    assert ndjson.json["stored"] == 2
    assert [record["snapshot_id"] for record in stored["records"]] == ["s3", "s2", "s1"]
    assert (stored["total_count"], stored["records"][1]["engagement"]) == (3, 0.9)


async def test_every_bad_line_is_named_and_nothing_is_stored(api: ApiUnderTest) -> None:
    body = lines(snapshot(1), snapshot(2, engagement=7)) + b"\n{broken\n" + lines(snapshot(3, nonsense=1))

    answer = await api.ask("POST", PATH, data=body, headers=NDJSON)

    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == ["/1/engagement", "/2", "/3/nonsense"]
    assert [error["detail"].partition(":")[0] for error in answer.json["errors"]] == ["Line 2", "Line 3", "Line 4"]
    assert (await api.ask("GET", PATH)).json["total_count"] == 0


async def test_a_thousand_records_are_stored_at_once_and_read_page_by_page(api: ApiUnderTest) -> None:
    await api.ask("POST", PATH, data=lines(*map(snapshot, range(1000))), headers=NDJSON)

    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.ask("GET", f"{PATH}?limit=400{cursor and '&cursor='}{cursor}")).json
        ids += [record["snapshot_id"] for record in page["records"]]
        cursor = page["next_cursor"]

    assert ids == [f"s{number}" for number in reversed(range(1000))]


async def test_a_user_writes_and_reads_their_own_records_only(api: ApiUnderTest) -> None:
    own = await api.ask("POST", PATH, key=ADA_KEY, json=[snapshot(1, user_id=None)])
    foreign = await api.ask("POST", PATH, key=BOB_KEY, json=[snapshot(2)])
    stolen = await api.ask("POST", PATH, key=BOB_KEY, json=[snapshot(1, user_id="bob")])

    asked = await api.ask("GET", f"{PATH}?user_id=ada", key=BOB_KEY)

    assert (own.status, foreign.status, stolen.status, asked.status) == (200, 422, 409, 403)
    assert foreign.json["errors"][0]["pointer"] == "/0/user_id"
    counts = [(await api.ask("GET", PATH, key=key)).json["total_count"] for key in (ADA_KEY, BOB_KEY)]
    assert counts == [1, 0]


async def test_a_time_window_is_half_open(api: ApiUnderTest) -> None:
    await api.ask("POST", PATH, json=[snapshot(1), snapshot(2), snapshot(3)])

    page = (await api.ask("GET", f"{PATH}?since=2026-01-01T00:00:01Z&until=2026-01-01T00:00:03Z")).json

    assert [record["snapshot_id"] for record in page["records"]] == ["s2", "s1"]


async def test_records_take_a_larger_body_than_tasks_but_not_any(api: ApiUnderTest) -> None:
    async def body(megabytes: int) -> AsyncIterator[bytes]:
        for _ in range(megabytes):
            yield b" " * 1024 * 1024
        yield lines(snapshot(1))

    assert (await api.ask("POST", PATH, data=body(2), headers=NDJSON)).status == 200
    assert (await api.ask("POST", PATH, data=body(17), headers=NDJSON)).status == 413
