"""Poison jobs among good ones, in real worker processes: each ends failed with its reason, the others complete."""

import statistics
import time
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from app.database import open_database
from app.embedded import EmbeddedRedis
from app.history.migrate import upgrade
from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs.status import Status
from app.orders import Order
from app.settings import Settings
from tests.chaos.figure import Figure
from tests.support.poison import CATALOGUE, DEAF, GOOD, POISON
from tests.support.service import process
from tests.support.waiting import eventually
from tests.support.workplace import Anything, TrialType

WORKER = "tests.support.poison"
REASONS = {
    "kill": "worker_lost",
    "hang": "worker_lost",
    "leave": "unknown",
    "memory": "memory_exceeded",
    "large": "result_invalid",
    "odd": "result_invalid",
    "deaf": "timeout",
}
LIMITS: dict[str, Any] = {
    "worker_hang_s": 3.0,
    "worker_grace_s": 2.0,
    "worker_child_memory_mb": 300,
    "worker_slots": 20,
}


async def poison(directory: Path, *, good: int, each: int, within_s: float = 900) -> list[Figure]:
    """Play on stores of its own, with the default lease and a limit for hanging loops that can be waited for."""
    with EmbeddedRedis(directory=directory / "redis") as redis:
        settings = Settings(_env_file=None, **LIMITS | {"redis_url": redis.url, "data_dir": directory})
        database = open_database(settings)
        await upgrade(database)
        await database.close()
        async with open_installation(settings, CATALOGUE) as house:
            return await poisoned(house, settings, good=good, each=each, within_s=within_s)


async def poisoned(
    house: Installation, settings: Settings, *, good: int, each: int, within_s: float, most: int = 3
) -> list[Figure]:
    """Submit ``each`` of every poison among good jobs to two worker processes; wait until all have ended.

    ``most`` is how many interruptions one job may have.
    """
    orders = _mixed([harm for harm in REASONS for _ in range(each)], good)
    accepted = await house.lifecycle.submit([order for _, order in orders])
    harms = {job.id: harm for job, (harm, _) in zip(accepted, orders, strict=True)}
    began = time.monotonic()
    with process(settings, WORKER, "--pool", "2"):
        await eventually(lambda: _all_ended(house), within=within_s)
    took_s = time.monotonic() - began
    rows = [await _row(house, job.id) for job in accepted]
    return _figures(rows, harms, most, took_s)


def _mixed(harms: list[str], good: int) -> list[tuple[str, Order]]:
    """Spread the poison evenly among the good jobs, whose harm is ''."""
    orders = [("", _order(GOOD, {"seconds": 0.2})) for _ in range(good)]
    gap = good // len(harms)
    for number, harm in enumerate(harms):
        order = _order(DEAF, 600) if harm == "deaf" else _order(POISON, harm)
        orders.insert(number * (gap + 1), (harm, order))
    return orders


def _order(job_type: TrialType, value: JsonValue) -> Order:
    return Order(job_type=job_type, params=Anything(value=value), owner="ann")


async def _all_ended(house: Installation) -> bool:
    return not await house.reader.live_page(before=None, limit=1)


async def _row(house: Installation, job_id: str) -> Job:
    row = await house.reader.get(job_id)
    assert row is not None
    return row


def _figures(rows: list[Job], harms: dict[str, str], most: int, took_s: float) -> list[Figure]:
    bad = [row for row in rows if harms[row.id]]
    good = [row for row in rows if not harms[row.id]]
    astray = [row for row in bad if _ending_of(row) != (Status.FAILED, REASONS[harms[row.id]])]
    unfinished = [row for row in good if row.status is not Status.COMPLETED]
    losses = [row.interruptions for row in bad]
    return [
        Figure(name=f"poison: {len(bad)} among {len(good)} good jobs, all ended", value=took_s, unit="s"),
        Figure(name="poison: not failed with its reason", value=len(astray), unit="jobs", target=0),
        Figure(name="poison: most interruptions of one", value=max(losses), unit="interruptions", target=most),
        Figure(name="poison: half of them at most", value=statistics.median(losses), unit="interruptions", target=3),
        Figure(name="poison: good jobs that did not complete", value=len(unfinished), unit="jobs", target=0),
        Figure(name="poison: good jobs that were interrupted", value=sum(map(_met_it, good)), unit="jobs"),
    ]


def _ending_of(row: Job) -> tuple[Status, str | None]:
    return row.status, row.error.code if row.error else None


def _met_it(row: Job) -> bool:
    return row.interruptions > 0
