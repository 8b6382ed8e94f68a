"""Every job type, killed in its middle with its worker: the next attempt leaves what an undisturbed one leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.processes import free_port
from app.settings import Settings
from tests.acceptance.test_every_job import CASES, ORDER, ended, imported, totals
from tests.support.redis_server import RedisUnderTest
from tests.support.service import HEADERS, Service, process
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[tuple[Service, Settings]]:
    """An API alone, on a database of its own that holds records of every kind."""
    real = settings.model_copy(update={"port": free_port(), "worker_cron": False, "lease_s": 1.0})
    with ExitStack() as processes:
        processes.enter_context(process(real, "app", "serve"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{real.port}", headers=HEADERS) as session:
            service = Service(session)
            await eventually(service.is_ready, within=60)
            for kind, records in imported().items():
                async with session.post(f"/api/records/{kind}", json=records) as answer:
                    assert answer.status == 200, await answer.text()
            yield service, real


async def submit(service: Service, kind: str) -> str:
    case = CASES[kind]
    task = await service.submit(kind.replace(".", "/").replace("_", "-"), case.parameters, **case.options)
    return str(task["task_id"])


async def killed_and_ended(service: Service, settings: Settings, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run jobs in a worker that claims them all and dies before it writes the first end, then in another one."""
    ids = {kind: await submit(service, kind) for kind in kinds}
    with process(settings, "workers", FAILPOINT="settling") as doomed:
        await asyncio.to_thread(doomed.wait, 300)
    with process(settings, "workers"):
        return {kind: await ended(service, task_id) for kind, task_id in ids.items()}


async def test_jobs_that_are_killed_and_done_again_leave_what_undisturbed_ones_leave(
    settings: Settings, redis_server: RedisUnderTest, tmp_path: Path
) -> None:
    async with api(at(tmp_path / "disturbed", settings)) as (service, real):
        tasks: dict[str, dict[str, Any]] = {}
        for kinds in ORDER:
            tasks |= await killed_and_ended(service, real, kinds)
        disturbed = await totals(service)

    redis_server.flush()
    async with api(at(tmp_path / "calm", settings)) as (service, real):
        with process(real, "workers"):
            for kind in (kind for kinds in ORDER for kind in kinds):
                await ended(service, await submit(service, kind))
        assert await totals(service) == disturbed

    assert {kind for kind, task in tasks.items() if task["interruptions"] != 1} == set()
    assert archives(tmp_path / "disturbed") == archives(tmp_path / "calm") == 1


def at(directory: Path, settings: Settings) -> Settings:
    """Return the settings of an installation of its own."""
    directory.mkdir()
    return settings.model_copy(update={"data_dir": directory, "database_url": ""})


def archives(directory: Path) -> int:
    return len(list(directory.rglob("*.jsonl.gz")))
