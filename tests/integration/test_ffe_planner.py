"""A model proposes a plan over the real protocol: what is sound is planned, anything else falls back to templates."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import JsonValue, SecretStr
from structlog.testing import capture_logs

from app.database import Database
from app.jobs.ffe import PlanGoalParams, PlanGoalResult
from app.jobs.ffe_planning import PlanSource, SearchVerdict
from app.log import get_log
from app.records.ffe_blocks import FFE_BLOCKS
from app.records.store import Records
from app.settings import Settings
from workers.context import Context
from workers.families.ffe import optimizer, plan_goal

SECRET = "sk-the-planners-secret"
MONDAY = datetime(2026, 6, 1, 8, tzinfo=UTC)
T = TypeVar("T")

pytestmark = pytest.mark.databases("sqlite")


class Service:
    """A service that speaks the protocol, and gives one prepared answer after the other; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], Awaitable[web.StreamResponse]]] = []
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.url = ""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.tokens.append(request.headers.get("Authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer()

    def says(self, *answers: Any) -> None:
        self.answers = [
            one if callable(one) else text(one if isinstance(one, str) else json.dumps(one)) for one in answers
        ]


@dataclass
class Run:
    """What a job is given, for one attempt without a worker around it; waiting takes no time."""

    records: Records
    installation: Any
    now: datetime = MONDAY
    restored: JsonValue = None
    checkpoints: list[JsonValue] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    log: Any = field(default_factory=get_log)

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Take it."""

    async def run_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)

    async def run_process(self, function: Callable[..., T], *args: Any) -> T:
        report = SimpleNamespace(progress=lambda *_, **__: None, time_left_s=inf)
        return await asyncio.to_thread(function, report, *args)

    async def checkpoint(self, state: JsonValue) -> None:
        self.checkpoints.append(state)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", service.complete)
    async with TestServer(application, host="127.0.0.1") as server:
        service.url = str(server.make_url("/v1"))
        yield service


@pytest.fixture
def run(database: Database, service: Service) -> Run:
    return run_with(
        database,
        planner_url=service.url,
        planner_model="a-model",
        planner_api_key=SecretStr(SECRET),
        planner_timeout_s=0.3,
        ffe_optimizer_s=0,
    )


def run_with(database: Database, **given: Any) -> Run:
    return Run(records=Records(database), installation=SimpleNamespace(settings=Settings(**given)))


def text(content: str | None) -> Callable[[], Awaitable[web.StreamResponse]]:
    """Answer with a message of this content."""
    return body(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))


def body(content: str, status: int = 200, **headers: str) -> Callable[[], Awaitable[web.StreamResponse]]:
    """Answer with these very bytes."""

    async def answer() -> web.StreamResponse:
        return web.Response(text=content, status=status, headers=headers or None, content_type="application/json")

    return answer


async def never() -> web.StreamResponse:
    """Do not answer."""
    await asyncio.Event().wait()
    raise AssertionError


def block(key: str, *needs: str, **changes: Any) -> dict[str, Any]:
    return {
        "key": key,
        "part": 1,
        "title": f"Do {key}",
        "description": "",
        "done_criterion": f"{key} is done.",
        "minutes": 60,
        "value": 50,
        "depends_on": list(needs),
    } | changes


GOOD = {
    "blocks": [block("sketch", value=90), block("saw", "sketch", minutes=45, part=2), block("paint", "saw", part=2)]
}


async def plan(run: Run) -> PlanGoalResult:
    params = PlanGoalParams(goal_id="g", user_id="u", goal_description="Build a shed")
    return await plan_goal(cast(Context, run), params)


async def test_a_sound_proposal_is_planned_and_stored(run: Run, service: Service) -> None:
    service.says(GOOD)

    result = await plan(run)

    assert (result.planner.source, result.planner.model, result.planner.requests) == (PlanSource.MODEL, "a-model", 1)
    assert result.planner.fallback_reason is None
    assert [one.title for one in result.atomic_blocks] == ["Do sketch", "Do saw", "Do paint"]
    assert [one.estimated_minutes for one in result.atomic_blocks] == [60, 45, 60]
    ids = [one.block_id for one in result.atomic_blocks]
    assert [one.depends_on for one in result.atomic_blocks] == [(), (ids[0],), (ids[1],)]
    assert (len(result.parts), result.passes, result.critical_path.minutes) == (2, (), 165)
    assert await run.records.count(FFE_BLOCKS) == 3


async def test_the_request_names_the_goal_the_schema_and_the_token(run: Run, service: Service) -> None:
    service.says(GOOD)

    await plan(run)

    (asked,) = service.asked
    assert asked["model"] == "a-model"
    assert "Build a shed" in asked["messages"][-1]["content"]
    schema = asked["response_format"]["json_schema"]
    assert (asked["response_format"]["type"], schema["strict"]) == ("json_schema", True)
    assert set(schema["schema"]["$defs"]["ProposedBlock"]["required"]) == set(GOOD["blocks"][0])
    assert service.tokens == [f"Bearer {SECRET}"]


async def test_planned_twice_a_like_answer_makes_no_double_row(run: Run, service: Service) -> None:
    service.says(GOOD)
    first = await plan(run)

    assert await plan(run) == first
    assert await run.records.count(FFE_BLOCKS) == 3


async def test_the_next_attempt_plans_what_the_last_one_was_told(run: Run, service: Service) -> None:
    service.says(GOOD)
    first = await plan(run)
    service.says({"blocks": [block("other")]})
    run.restored = run.checkpoints[-1]

    second = await plan(run)

    assert second.atomic_blocks == first.atomic_blocks
    assert len(service.asked) == 1


async def test_a_proposal_that_comes_after_429_500_and_its_waits_is_planned(run: Run, service: Service) -> None:
    service.says(body("{}", 429, **{"Retry-After": "7"}), body("oops", 500), GOOD)

    result = await plan(run)

    assert (result.planner.source, result.planner.requests) == (PlanSource.MODEL, 3)
    assert run.waits == [7, 4]


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        ("This is no JSON.", "shape", 1),
        ({"blocks": []}, "shape", 1),
        ({"blocks": [block("a") | {"rm": "-rf"}]}, "shape", 1),
        ({"blocks": [block("a", title="\x00")]}, "NUL", 1),
        ({"blocks": [block("a", "b"), block("b", "a")]}, "wait for each other", 1),
        ({"blocks": [block("a", "nobody")]}, "depend on", 1),
        ({"blocks": [block("a"), block("a")]}, "given twice", 1),
        ({"blocks": [block("a", minutes=14)]}, "15 to 90", 1),
        ({"blocks": [block("a", minutes=91)]}, "15 to 90", 1),
        ({"blocks": [block("a", minutes=10**400)]}, "", 1),
        (text(None), "no text", 1),
        (body("[]"), "protocol", 1),
        (body("<html>"), "protocol", 1),
        (body("x" * ((1 << 20) + 1)), "larger than", 1),
        (body("{}", 401), "answered 401", 1),
        (body("", 302, Location="http://127.0.0.1:1/"), "answered 302", 1),
        (body("oops", 500), "answered 500", 3),
        (body("{}", 429, **{"Retry-After": "86400"}), "answered 429", 3),
        (never, "no answer within 0.3 s", 3),
    ],
)
async def test_what_cannot_be_planned_falls_back_to_templates_and_says_why(
    run: Run, service: Service, answer: Any, reason: str, requests: int
) -> None:
    service.says(answer)

    with capture_logs() as logs:
        result = await plan(run)

    assert (result.planner.source, result.planner.requests) == (PlanSource.TEMPLATE, requests)
    assert reason in str(result.planner.fallback_reason)
    assert (result.total_estimated_minutes, len(result.parts)) == (16 * 60, 5)
    assert max(run.waits, default=0) <= 30
    assert SECRET not in f"{logs} {result} {run.checkpoints}"


async def test_a_service_that_is_not_there_costs_three_tries(database: Database) -> None:
    run = run_with(database, planner_url="http://127.0.0.1:1/v1", planner_model="m", ffe_optimizer_s=0)

    result = await plan(run)

    assert (result.planner.source, result.planner.requests) == (PlanSource.TEMPLATE, 3)
    assert "no connection" in str(result.planner.fallback_reason)


async def test_without_an_address_nobody_is_asked(database: Database) -> None:
    result = await plan(run_with(database, ffe_optimizer_s=0))

    assert result.planner.model_dump() == {
        "source": PlanSource.TEMPLATE,
        "model": None,
        "requests": 0,
        "fallback_reason": None,
    }


# --- a better order ----------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("ortools") is None, reason="the extra optimizer is not installed")
async def test_a_better_order_ends_earlier_and_names_the_bound(database: Database) -> None:
    plain = await plan(run_with(database, ffe_optimizer_s=0))

    result = await plan(run_with(database, ffe_optimizer_s=10))

    search = result.schedule.search
    assert (search.verdict, search.is_improved, search.gap_percent) == (SearchVerdict.OPTIMAL, True, 0)
    assert search.bound_at == result.schedule.last_end
    assert result.schedule.last_end is not None
    assert plain.schedule.last_end is not None
    assert result.schedule.last_end < plain.schedule.last_end
    assert result.schedule.p80_end is not None
    assert result.schedule.p80_end > result.schedule.last_end
    times = {one.block_id: one.scheduled_start for one in result.atomic_blocks}
    assert all(times[need] < times[one.block_id] for one in result.atomic_blocks for need in one.depends_on)  # type: ignore[operator]
    assert await plan(run_with(database, ffe_optimizer_s=10)) == result


async def test_without_the_extra_the_rule_of_thumb_stands_and_says_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await plan(run_with(database, ffe_optimizer_s=0))
    monkeypatch.setattr(optimizer, "find_spec", lambda _name: None)

    result = await plan(run_with(database, ffe_optimizer_s=10))

    assert (result.schedule.search.verdict, result.schedule.search.gap_percent) == (SearchVerdict.NOT_RUN, None)
    assert "not installed" in str(result.schedule.search.reason)
    assert [one.scheduled_start for one in result.atomic_blocks] == [one.scheduled_start for one in plain.atomic_blocks]
