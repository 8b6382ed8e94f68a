"""How a search for a better plan may end in a real worker: cancelled, out of time, out of memory, or dead."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs import ffe
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Limits, RetryPolicy
from app.jobs.ffe import PlanGoalParams, PlanGoalResult
from app.jobs.ffe_planning import SearchVerdict
from app.jobs.status import Status
from app.orders import Order
from app.records.ffe_blocks import FFE_BLOCKS
from app.settings import Settings
from tests.support import searching
from tests.support.processes import is_alive
from tests.support.waiting import eventually
from tests.support.workplace import (
    Anything,
    Something,
    at_work,
    catalogue_of,
    drain,
    make_worker,
    row,
    submit,
    trial_type,
)
from workers.context import Context
from workers.families.ffe import plan_goal, scheduling

ONCE = RetryPolicy(max_retries=0)
SEARCH = trial_type(retry=ONCE)
QUEUE = ffe.plan_goal.queue
WORKS: dict[str, Any] = {ffe.plan_goal.kind: plan_goal}

pytestmark = [
    pytest.mark.databases("sqlite"),
    pytest.mark.skipif(importlib.util.find_spec("ortools") is None, reason="the extra optimizer is not installed"),
]


# --- the search itself -------------------------------------------------------------------------


@pytest.fixture
async def lab(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings, catalogue_of(SEARCH)) as house:
        yield house


def searching_for(pids: Path, limit_s: float) -> Callable[[Context, Anything], Any]:
    async def work(ctx: Context, _params: Anything) -> Something:
        return Something(value=await ctx.run_process(searching.search_hard, pids, limit_s))

    return work


async def pid_in(file: Path) -> int:
    return int(await eventually(lambda: file.exists() and file.read_text(), within=30))


async def test_a_cancel_ends_the_process_of_a_search_within_two_seconds(lab: Installation, tmp_path: Path) -> None:
    job_id = await submit(lab, SEARCH)
    async with at_work(make_worker(lab, {SEARCH.kind: searching_for(tmp_path / "pid", 300)})):
        pid = await pid_in(tmp_path / "pid")

        await lab.lifecycle.cancel(job_id)

        await eventually(lambda: not is_alive(pid), within=2)
    assert (await row(lab, job_id)).status is Status.CANCELLED


# --- a plan whose search ends badly ------------------------------------------------------------


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with planning(settings, soft_s=50) as house:
        yield house


@asynccontextmanager
async def planning(settings: Settings, *, soft_s: float) -> AsyncIterator[Installation]:
    once = replace(ffe.plan_goal, limits=Limits(hard_s=60, soft_s=soft_s), retry=ONCE)
    small = settings.model_copy(update={"worker_child_memory_mb": 300, "ffe_optimizer_s": 5.0})
    async with open_installation(small, Catalogue([replace(ffe.FAMILY, job_types=(once,))])) as house:
        yield house


async def ask_for_plan(house: Installation) -> str:
    params = PlanGoalParams(goal_id="g", user_id="u", goal_description="Build a shed")
    order = Order(job_type=house.catalogue.find(ffe.plan_goal.kind), params=params, owner="u")
    return (await house.lifecycle.submit([order]))[0].id


async def planned(house: Installation) -> Job:
    job_id = await ask_for_plan(house)
    await drain(make_worker(house, WORKS, queues=(QUEUE,), burst=True))
    return await row(house, job_id)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (searching.die_searching, "killed by SIGKILL"),
        pytest.param(searching.swell_searching, "more than its 300 MB", marks=pytest.mark.chaos),
    ],
)
async def test_a_plan_stands_by_the_rule_of_thumb_whatever_becomes_of_its_search(
    house: Installation, monkeypatch: pytest.MonkeyPatch, ending: Callable[..., Any], reason: str
) -> None:
    monkeypatch.setattr(scheduling, "solve", ending)

    await expect_the_rule_of_thumb(house, reason)


@pytest.mark.chaos
async def test_a_plan_stands_by_the_rule_of_thumb_when_the_soft_limit_ends_its_search(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "solve", searching.overrun_searching)

    async with planning(settings, soft_s=8) as house:
        await expect_the_rule_of_thumb(house, "time was up")


async def expect_the_rule_of_thumb(house: Installation, reason: str) -> None:
    job = await planned(house)

    assert (job.status, job.attempts) == (Status.COMPLETED, 1)
    result = PlanGoalResult.model_validate(job.result)
    assert result.schedule.search.verdict is SearchVerdict.NOT_RUN
    assert reason in str(result.schedule.search.reason)
    assert result.schedule.unscheduled_blocks == 0
    assert await house.records.count(FFE_BLOCKS) == result.atomic_blocks_count > 0


async def test_a_plan_that_is_cancelled_in_its_search_stores_no_block_and_leaves_no_process(
    house: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduling, "solve", partial(searching.search_for_ever, tmp_path / "pid"))
    job_id = await ask_for_plan(house)
    async with at_work(make_worker(house, WORKS, queues=(QUEUE,))):
        pid = await pid_in(tmp_path / "pid")

        await house.lifecycle.cancel(job_id)

        await eventually(lambda: not is_alive(pid), within=2)
    assert (await row(house, job_id)).status is Status.CANCELLED
    assert await house.records.count(FFE_BLOCKS) == 0
