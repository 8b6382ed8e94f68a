"""Batch analysis by a worker of its own that is killed in the middle, against a run that nothing disturbs."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.installation import Installation, open_installation
from app.jobs import edm
from app.jobs.catalogue import Catalogue
from app.jobs.edm import BatchAnalysisParams, DebtSeverity
from app.jobs.status import Status
from app.orders import Order
from app.records.edm_debts import EDM_DEBTS, EdmDebt
from app.records.fact_checks import FACT_CHECKS, FactCheck
from app.records.interactions import INTERACTIONS, Interaction, InteractionWindow, count_unscanned
from app.settings import Settings
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.workplace import at_work, becomes
from workers.families import load_work
from workers.worker import Worker

COUNT = int(os.environ.get("EDM_BATCH_INTERACTIONS", "600"))  # 10,000 for the full size
USERS = 3
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
CATALOGUE = Catalogue([edm.FAMILY])

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(600)]


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    quick = settings.model_copy(update={"lease_s": 1.0, "worker_cron": False, "edm_matcher": "lexical"})
    async with open_installation(quick, CATALOGUE) as house:
        await store(house)
        yield house


async def test_a_worker_that_is_killed_in_the_middle_leaves_the_rows_of_an_undisturbed_run(house: Installation) -> None:
    job_id = await submit(house)
    first = await start_worker(house.settings)
    try:
        await eventually(lambda: is_in_the_middle(house), within=120)
    finally:
        first.kill()
        await first.wait()
    left = await count_unscanned(house.database, everything())
    second = await start_worker(house.settings)
    try:
        job = await becomes(house, job_id, Status.COMPLETED, within=400)
    finally:
        second.terminate()
        await second.wait()
    disturbed = await debts_of(house)

    await run_undisturbed(house)

    assert 0 < left < COUNT
    assert job.interruptions == 1
    assert job.result["interactions_scanned"] == left
    assert await count_unscanned(house.database, everything()) == 0
    assert len(disturbed) == job.result["debts_analyzed"] > 0
    assert disturbed == await debts_of(house)


async def test_a_cancel_in_the_middle_frees_the_slot_within_two_seconds(house: Installation) -> None:
    works = load_work(CATALOGUE, CATALOGUE.queues)
    worker = Worker(house, functions=works, queues=CATALOGUE.queues, max_jobs=1, handle_signals=False)
    async with at_work(worker):
        job_id = await submit(house)
        await eventually(lambda: is_in_the_middle(house), within=120)
        began = asyncio.get_running_loop().time()

        await house.lifecycle.cancel(job_id)

        await becomes(house, job_id, Status.CANCELLED)
        after = await submit(house, user_id="nobody")
        await becomes(house, after, Status.COMPLETED, within=10)
        took = asyncio.get_running_loop().time() - began

    assert took < 6  # 2 s on an idle machine, index of the second job included
    assert await count_unscanned(house.database, everything()) > 0


# --- arranging ---------------------------------------------------------------------------------


def everything() -> InteractionWindow:
    now = datetime.now(UTC)
    return InteractionWindow(user_id=None, since=now - timedelta(days=7), until=now)


async def is_in_the_middle(house: Installation) -> bool:
    return await count_unscanned(house.database, everything()) < 0.8 * COUNT


async def store(house: Installation) -> None:
    """Store interactions that repeat themselves across pages, contradict each other and match fact checks."""
    many = [
        Interaction(
            interaction_id=f"i-{at:05}",
            user_id=f"u{at % USERS}",
            timestamp=START + timedelta(seconds=at),
            prompt="Tell me?",
            response=f"Everyone knows that item {at % 400} is harmful. Studies show a {at % 90}% drop in focus. "
            f"Shop {at % 70} employs {at % 11} people. Many people agree with minister {at % 50}.",
        )
        for at in range(COUNT)
    ]
    for begin in range(0, COUNT, 1000):
        await house.records.upsert(INTERACTIONS, many[begin : begin + 1000])
    checks = [
        {"id": f"c-{at}", "claim": f"Item {at} is harmful.", "date": "2026-01-01T00:00:00Z", "rating": "False"}
        for at in range(200)
    ]
    await house.records.upsert(FACT_CHECKS, [FactCheck.model_validate(one) for one in checks])


async def submit(house: Installation, user_id: str | None = None) -> str:
    order = Order(
        job_type=edm.batch_analysis,
        params=BatchAnalysisParams(user_id=user_id, min_severity=DebtSeverity.LOW),
        owner="admin",
    )
    return (await house.lifecycle.submit([order]))[0].id


async def start_worker(settings: Settings) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers", "--queues", "edm_analysis"),
        env=os.environ | environment_of(settings),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def debts_of(house: Installation) -> list[EdmDebt]:
    found: list[EdmDebt] = []
    async for page in read_all(house):
        found += page
    return sorted(found, key=lambda debt: debt.debt_id)


async def read_all(house: Installation) -> AsyncIterator[list[EdmDebt]]:
    cursor = None
    while True:
        page = await house.records.page(EDM_DEBTS, limit=1000, after=cursor)
        yield list(page.records)
        cursor = page.next_cursor
        if cursor is None:
            return


async def run_undisturbed(house: Installation) -> None:
    """Forget every debt, store the interactions anew, and have one worker look through them in one go."""
    async with house.database.write() as connection:
        await connection.execute(sa.delete(EDM_DEBTS.table))
    await store(house)
    job_id = await submit(house)
    worker = await start_worker(house.settings)
    try:
        await becomes(house, job_id, Status.COMPLETED, within=400)
    finally:
        worker.terminate()
        await worker.wait()
