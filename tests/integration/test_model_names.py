"""A model that does not exist is refused before anything is accepted, whichever way a job comes in."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.errors import UnknownName
from app.jobs.catalogue import load_catalogue
from app.jobs.model import LLM, FinetuneParams, finetune
from app.jobs.status import Status
from app.orders import Order
from app.queue import keys
from app.records.models import MODELS, RegisteredModel
from app.references import is_installed
from app.settings import Settings
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.workplace import becomes, make_worker
from workers.families.model import finetune as work

QUEUE = keys.queue(finetune.queue, 5)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=load_catalogue()) as api:
        yield api


@pytest.fixture(params=[True, False], ids=["with-llm", "without-llm"])
def has_llm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether the extra's libraries can be found; they are never imported by the API."""
    is_there: bool = request.param
    monkeypatch.setattr("app.references.find_spec", lambda module: is_there or None)
    is_installed.cache_clear()
    yield is_there
    is_installed.cache_clear()


def version(**changes: Any) -> RegisteredModel:
    facts: dict[str, Any] = {
        "model_id": "m1",
        "user_id": "ada",
        "timestamp": datetime(2026, 6, 1, tzinfo=UTC),
        "name": "mine",
        "version": 1,
        "kind": "kneser-ney",
        "path": "m1.npz",
        "sha256": "0" * 64,
        "metrics": {},
    }
    return RegisteredModel(**facts | changes)


async def ask(api: ApiUnderTest, name: str, *, route: str = "model/finetune", key: str = ADA_KEY) -> Any:
    parameters = {"model_name": name} | ({} if route == "model/benchmark" else {"user_id": None})
    answer = await api.ask("POST", f"/api/tasks/{route}", key=key, json={"parameters": parameters})
    return answer.status, answer.json


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("route", ["model/finetune", "model/evaluate", "model/benchmark"])
async def test_an_unknown_model_is_refused_with_the_field_and_the_known_names(api: ApiUnderTest, route: str) -> None:
    await api.house.records.upsert(MODELS, [version(), version(model_id="b1", user_id="bob", name="his")])

    status, problem = await ask(api, "gpt-9", route=route)

    assert (status, problem["code"]) == (400, "unknown_name")
    (error,) = problem["errors"]
    assert (error["pointer"], error["code"]) == ("/parameters/model_name", "unknown_name")
    known = "kneser-ney, sgd-classifier, gpt2-tiny, lora:<directory>, mine"
    assert error["detail"] == f"There is no model 'gpt-9' of 'ada'; known are: {known}."
    assert (await api.ask("GET", "/api/tasks")).json["total_count"] == 0


@pytest.mark.parametrize("name", ["kneser-ney", "sgd-classifier", "mine", "m1"])
@pytest.mark.parametrize("route", ["model/finetune", "model/evaluate", "model/benchmark"])
async def test_a_backend_and_a_model_of_the_user_by_id_or_name_are_taken(
    api: ApiUnderTest, name: str, route: str
) -> None:
    await api.house.records.upsert(MODELS, [version()])

    status, task = await ask(api, name, route=route)

    assert (status, task["params"]["model_name"]) == (202, name)


async def test_another_users_model_is_as_unknown_as_one_that_is_not_there(api: ApiUnderTest) -> None:
    await api.house.records.upsert(MODELS, [version()])

    status, problem = await ask(api, "m1", key=BOB_KEY)

    assert status == 400
    assert "mine" not in problem["detail"]


async def test_the_route_for_every_kind_names_its_own_field(api: ApiUnderTest) -> None:
    body = {"task_name": "finetune_model", "params": {"user_id": "ada", "model_name": "gpt-9"}}

    answer = await api.ask("POST", "/api/tasks/enqueue", json=body)

    assert answer.status == 400
    assert answer.json["errors"][0]["pointer"] == "/params/model_name"


async def test_of_many_jobs_one_unknown_model_refuses_all(api: ApiUnderTest) -> None:
    orders = [order(name) for name in ("kneser-ney", "gpt-9", "gpt-8")]

    with pytest.raises(UnknownName, match=r"'gpt-9' of 'ada'.*'gpt-8' of 'ada'"):
        await api.house.lifecycle.submit(orders)

    assert (await api.ask("GET", "/api/tasks")).json["total_count"] == 0


async def test_a_job_of_a_stock_client_ends_failed_with_the_reason(api: ApiUnderTest) -> None:
    house = api.house
    facts: dict[str, Any] = {"user_id": "ada", "model_name": "gpt-9"}
    await house.redis.enqueue_job("finetune_model", _job_id="stock", _queue_name=QUEUE, **facts)
    worker = make_worker(house, cast(Any, {finetune.kind: work}), queues=(finetune.queue,), burst=True)

    await worker.async_run()

    job = await becomes(house, "stock", Status.FAILED)
    assert job.error is not None
    assert (job.error.code, job.attempts) == ("unknown_name", 0)
    assert "'gpt-9' of 'ada'" in job.error.message


async def test_a_backend_of_an_extra_is_taken_where_its_libraries_are_and_else_names_the_extra(
    api: ApiUnderTest, has_llm: bool
) -> None:
    base = api.house.settings.base_models_path / "small"
    base.mkdir(parents=True)

    answers = [await ask(api, name) for name in ("gpt2-tiny", "lora:small")]

    if has_llm:
        assert [status for status, _ in answers] == [202, 202]
        return
    assert LLM.name == "llm"
    for status, problem in answers:
        assert (status, problem["errors"][0]["pointer"]) == (400, "/parameters/model_name")
        assert "install asyncjobs-service[llm]" in problem["detail"]


@pytest.mark.parametrize("has_llm", [True], indirect=True)
@pytest.mark.parametrize(
    "name", ["lora", "lora:", "lora:none", "lora:../out", "lora:..", "lora:small/../small", "lora:link"]
)
async def test_a_base_model_is_a_directory_below_the_one_that_is_set_and_nothing_else(
    api: ApiUnderTest, has_llm: bool, name: str
) -> None:
    root = api.house.settings.base_models_path
    (root / "small").mkdir(parents=True)
    (root.parent / "out").mkdir()
    (root / "link").symlink_to(root.parent / "out")

    status, problem = await ask(api, name)

    assert (status, problem["code"]) == (400, "unknown_name")
    assert "lora:small" in problem["detail"]


async def test_an_unknown_scenario_is_refused_at_submit(api: ApiUnderTest) -> None:
    body = {"parameters": {"model_name": "kneser-ney", "scenarios": ["juggling"]}}

    answer = await api.ask("POST", "/api/tasks/model/benchmark", json=body)

    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == "/parameters/scenarios/0"
    assert "reasoning" in answer.json["errors"][0]["detail"]


def order(name: str) -> Order:
    params = FinetuneParams(user_id="ada", model_name=name)
    return Order(job_type=finetune, params=params, owner="ada", user_id="ada")
