"""One record over HTTP: shown, deleted, acted on; and everything of a user deleted. Each user their own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.records.record import load_record_types
from app.settings import Settings
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.sample_records import SAMPLES

pytestmark = pytest.mark.databases("sqlite", "postgresql")

DEBT, BLOCK = "/api/records/edm-debts/debt-1", "/api/records/ffe-blocks/block-1"
BY_CITATION = {"resolution_method": "citation_added"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def store(api: ApiUnderTest, kind: str, **changes: Any) -> None:
    """Store the sample record of a kind."""
    answer = await api.ask("POST", f"/api/records/{kind}", json=[SAMPLES[kind] | changes])
    assert answer.status == 200, answer.text


async def total(api: ApiUnderTest, kind: str) -> int:
    return int((await api.ask("GET", f"/api/records/{kind}")).json["total_count"])


# --- every kind --------------------------------------------------------------------------------


async def test_a_record_of_every_kind_is_shown_as_it_was_sent_and_gone_once_deleted(api: ApiUnderTest) -> None:
    for kind, record_type in load_record_types().items():
        await store(api, kind)
        path = f"/api/records/{kind}/{SAMPLES[kind][record_type.id_field].replace('/', '%2F')}"

        shown = await api.ask("GET", path)
        deleted = await api.ask("DELETE", path)

        assert shown.status == 200, shown.text
        assert SAMPLES[kind].items() <= shown.json.items()
        assert (deleted.status, deleted.json) == (200, {"kind": kind, "deleted": 1})
        assert [(await api.ask(method, path)).status for method in ("GET", "DELETE")] == [404, 404]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("record_id", ["nope", "%00", "x" * 256, "a%2Fb"])
async def test_an_id_that_nothing_has_is_not_found(api: ApiUnderTest, record_id: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.ask(method, f"/api/records/edm-debts/{record_id}")
        assert (answer.status, answer.json["code"]) == (404, "not_found")
        assert "edm-debts" in answer.json["detail"]


async def test_a_foreign_record_is_not_found_by_any_route(api: ApiUnderTest) -> None:
    await store(api, "edm-debts")

    asked = [
        await api.ask("GET", DEBT, key=BOB_KEY),
        await api.ask("DELETE", DEBT, key=BOB_KEY),
        await api.ask("POST", f"{DEBT}/resolve", key=BOB_KEY, json=BY_CITATION),
    ]

    assert [answer.status for answer in asked] == [404, 404, 404]
    assert (await api.ask("GET", DEBT, key=ADA_KEY)).json["resolved"] is False


async def test_what_belongs_to_nobody_is_read_by_all_and_deleted_by_administrators(api: ApiUnderTest) -> None:
    await store(api, "fact-checks")
    path = f"/api/records/fact-checks/{SAMPLES['fact-checks']['id']}"

    assert (await api.ask("GET", path, key=ADA_KEY)).status == 200
    assert (await api.ask("DELETE", path, key=ADA_KEY)).status == 403
    assert (await api.ask("DELETE", "/api/records/fact-checks?user_id=ada")).status == 405


async def test_alerts_are_for_administrators(api: ApiUnderTest) -> None:
    await store(api, "alerts")
    path = f"/api/records/alerts/{SAMPLES['alerts']['alert_id'].replace('/', '%2F')}"

    assert [(await api.ask("GET", where)).status for where in ("/api/records/alerts", path)] == [200, 200]
    assert [(await api.ask("GET", where, key=ADA_KEY)).status for where in ("/api/records/alerts", path)] == [403, 403]


# --- everything of a user ----------------------------------------------------------------------


async def test_a_user_deletes_their_records_of_a_kind_and_no_others(api: ApiUnderTest) -> None:
    await store(api, "interactions")
    await store(api, "interactions", interaction_id="of-bob", user_id="bob")
    path = "/api/records/interactions?user_id="

    refused = await api.ask("DELETE", f"{path}bob", key=ADA_KEY)
    unclear = await api.ask("DELETE", "/api/records/interactions", key=ADA_KEY)
    deleted = await api.ask("DELETE", f"{path}ada", key=ADA_KEY)
    again = await api.ask("DELETE", f"{path}ada")

    assert (refused.status, unclear.status) == (403, 422)
    assert unclear.json["errors"][0]["pointer"] == "/user_id"
    assert (deleted.json, again.json["deleted"]) == ({"kind": "interactions", "deleted": 1}, 0)
    assert await total(api, "interactions") == 1


async def test_everything_of_a_user_goes_at_once_and_is_counted_by_kind(api: ApiUnderTest) -> None:
    owned = [kind for kind, record_type in load_record_types().items() if record_type.user_field is not None]
    for kind in SAMPLES:
        await store(api, kind)
    await store(api, "interactions", interaction_id="of-bob", user_id="bob")

    refused = await api.ask("DELETE", "/api/records?user_id=ada", key=BOB_KEY)
    deleted = await api.ask("DELETE", "/api/records?user_id=ada", key=ADA_KEY)

    assert refused.status == 403
    assert deleted.json == {"user_id": "ada", "deleted": dict.fromkeys(owned, 1), "total": len(owned)}
    left = {kind: await total(api, kind) for kind in SAMPLES}
    of_others = {
        "interactions": 1,
        "fact-checks": 1,
        "alerts": 1,
        "audit-entries": 2,
    }  # the last: who stored the other two
    assert left == dict.fromkeys(SAMPLES, 0) | of_others


async def test_a_models_own_file_goes_with_its_record_and_another_ones_stays(api: ApiUnderTest) -> None:
    directory = api.house.settings.models_path
    directory.mkdir(parents=True)
    for name in ("model-1.npz", "of-bob.npz", "thief.npz"):
        (directory / name).write_bytes(b"weights")
    await store(api, "models")
    await store(api, "models", model_id="of-bob", user_id="bob", path="of-bob.npz")
    await store(api, "models", model_id="greedy", version=2, path="of-bob.npz")
    await store(api, "models", model_id="thief", version=3, path="../models/thief.npz")

    one = await api.ask("DELETE", "/api/records/models/model-1", key=ADA_KEY)
    rest = await api.ask("DELETE", "/api/records/models?user_id=ada", key=ADA_KEY)

    assert (one.json["deleted"], rest.json["deleted"]) == (1, 2)
    assert sorted(path.name for path in directory.iterdir()) == ["of-bob.npz", "thief.npz"]


# --- actions -----------------------------------------------------------------------------------


async def test_a_debt_is_resolved_once_and_the_same_again_changes_nothing(api: ApiUnderTest) -> None:
    await store(api, "edm-debts")

    first = await api.ask("POST", f"{DEBT}/resolve", key=ADA_KEY, json=BY_CITATION)
    again = await api.ask("POST", f"{DEBT}/resolve", key=ADA_KEY, json=BY_CITATION)
    other = await api.ask("POST", f"{DEBT}/resolve", key=ADA_KEY, json={"resolution_method": "withdrawn"})

    assert (first.status, first.json["resolved"], first.json["resolution_method"]) == (200, True, "citation_added")
    assert (again.status, again.json) == (200, first.json)
    assert (other.status, other.json["code"]) == (409, "conflict")
    assert "citation_added" in other.json["detail"]
    assert (await api.ask("GET", DEBT)).json == first.json


async def test_of_two_resolutions_at_once_one_is_told_of_the_other(api: ApiUnderTest) -> None:
    await store(api, "edm-debts")

    methods = [f"method-{number}" for number in range(8)]
    answers = await asyncio.gather(
        *(api.ask("POST", f"{DEBT}/resolve", json={"resolution_method": method}) for method in methods)
    )

    (winner,) = [method for method, answer in zip(methods, answers, strict=True) if answer.status == 200]
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    assert (await api.ask("GET", DEBT)).json["resolution_method"] == winner


async def test_a_block_is_completed_once_at_the_time_that_is_given(api: ApiUnderTest) -> None:
    await store(api, "ffe-blocks")
    done = {"actual_minutes": 40, "completed_at": "2026-01-02T10:00:00Z"}

    first = await api.ask("POST", f"{BLOCK}/complete", key=ADA_KEY, json=done)
    again = await api.ask("POST", f"{BLOCK}/complete", key=ADA_KEY, json={"actual_minutes": 40})
    other = await api.ask("POST", f"{BLOCK}/complete", key=ADA_KEY, json={"actual_minutes": 41})
    later = await api.ask("POST", f"{BLOCK}/complete", key=ADA_KEY, json=done | {"completed_at": "2026-01-03T10:00Z"})

    assert (first.status, first.json["actual_minutes"], first.json["completed_at"][:19]) == (
        200,
        40,
        "2026-01-02T10:00:00",
    )
    assert (again.status, again.json) == (200, first.json)
    assert (other.status, later.status) == (409, 409)
    assert (await api.ask("GET", BLOCK)).json == first.json


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (f"{DEBT}/resolve", {}, "/resolution_method"),
        (f"{DEBT}/resolve", BY_CITATION | {"resolved_at": "2999-01-01T00:00:00Z"}, "/resolved_at"),
        (f"{DEBT}/resolve", BY_CITATION | {"resolved_at": "2025-12-31T00:00:00Z"}, "/resolved_at"),
        (f"{DEBT}/resolve", BY_CITATION | {"nonsense": 1}, "/nonsense"),
        (f"{BLOCK}/complete", {"actual_minutes": -1}, "/actual_minutes"),
        (f"{BLOCK}/complete", {"actual_minutes": 1, "completed_at": "2999-01-01T00:00:00Z"}, "/completed_at"),
    ],
)
async def test_an_action_that_cannot_be_meant_is_refused_by_field(
    api: ApiUnderTest, path: str, body: dict[str, Any], pointer: str
) -> None:
    await store(api, "edm-debts")
    await store(api, "ffe-blocks")

    answer = await api.ask("POST", path, key=ADA_KEY, json=body)

    assert answer.status == 422, answer.text
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert (await api.ask("GET", DEBT)).json["resolved"] is False
    assert (await api.ask("GET", BLOCK)).json["completed_at"] is None


async def test_an_action_on_nothing_is_not_found(api: ApiUnderTest) -> None:
    assert (await api.ask("POST", f"{DEBT}/resolve", json=BY_CITATION)).status == 404
