"""A worker dies between the commit that ends a task and the ring of its webhook: the delivery comes, and comes once."""

import aiohttp
import pytest

from app.settings import Settings
from tests.support.receiver import receiving
from tests.support.service import HEADERS, Service, kill, process
from tests.support.waiting import eventually


@pytest.mark.timeout(120)
async def test_a_worker_that_dies_before_the_ring_loses_no_delivery(settings: Settings) -> None:
    quick = settings.model_copy(update={"outbound_allow": ("127.0.0.1",), "outbound_http": True, "lease_s": 2})
    async with receiving() as receiver:
        with process(quick, "app", "serve"):
            log = next(quick.data_dir.glob("app-serve-*.log"))
            address = await eventually(lambda: _address_in(log.read_text()), within=40)
            async with aiohttp.ClientSession(address, headers=HEADERS) as session:
                service = Service(session)
                body = {"url": receiver.url, "events": ["task.completed"]}
                webhook = await (await session.post("/api/webhooks", json=body)).json()
                task = await service.submit("system/echo")
                with process(quick, "workers", FAILPOINT="told") as doomed:
                    await service.becomes(task["task_id"], "completed")
                    assert await eventually(lambda: doomed.poll() is not None, within=20)
                assert receiver.received == []
                with process(quick, "workers") as survivor:
                    await eventually(lambda: receiver.received, within=40)
                    kill(survivor)  # at once: perhaps before the delivery is settled
                with process(quick, "workers"):
                    again = await service.submit("system/echo")
                    await eventually(lambda: len({call.id for call in receiver.received}) == 2, within=40)

    told = [call.verified_by(webhook["secret"])["data"]["task_id"] for call in receiver.received]
    assert set(told) == {task["task_id"], again["task_id"]}
    assert len({(call.id, call.body) for call in receiver.received}) == 2


def _address_in(log: str) -> str | None:
    _, found, rest = log.partition('"addresses": ["')
    return rest.partition('"')[0] if found else None
