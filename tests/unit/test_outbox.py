"""The outbox lets go first what it tells of."""

import asyncio

import pytest

from app.live.events import worker_event
from app.live.outbox import Outbox
from app.queue.connect import open_redis


async def test_what_is_told_of_goes_before_its_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    outbox = Outbox(open_redis("redis://127.0.0.1:1"))  # never reached

    async def write(_batch: object) -> None:
        order.append("told")

    monkeypatch.setattr(outbox, "_write", write)
    outbox.post(worker_event("worker.started", "w"))
    asyncio.get_running_loop().call_soon(order.append, "done")
    await outbox.close()

    assert order == ["done", "told"]
