"""Clients: they submit and cancel, and write down every answer before they go on.

``python -m tests.chaos.client LEDGER SEED JOBS WIDTH CANCELS URL…`` is a load of ``WIDTH`` at a time, in a
process of its own; every other part of the harness uses :class:`Client` in its own process.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson
import uvloop

from tests.chaos.ledger import write_entry
from tests.chaos.stage import HEADERS

_LIMIT_S = 20.0
_ALL_DOWN_S = 0.05
_WAITS_S = (0.0, 0.0, 0.05, 0.2, 0.5)  # long enough for a kill to meet jobs in the middle


class Client:
    """One client of several API processes in turn. Only a refused connection sends it to the next one."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], ledger: Path) -> None:
        self.refused = 0  # requests that no process took
        self._session = session
        self._urls = urls
        self._turns: Iterator[int] = cycle(range(len(urls)))
        self._ledger = ledger

    async def submit(self, mark: str, *, queue: str = "near", priority: int = 5, **params: Any) -> str | None:
        """Submit one step; return its id if it was accepted."""
        body = {"parameters": {"mark": mark, **params}, "priority": priority}
        asked_at = time.time()
        status, answer = await self._post(f"/api/tasks/chaos/{queue}", body)
        job_id = answer.get("task_id") if status == 202 else None
        write_entry(self._ledger, "ask", mark=mark, asked_at=asked_at, status=status, job_id=job_id, priority=priority)
        return job_id

    async def cancel(self, job_id: str) -> int:
        """Cancel one job; return the answer's status, 0 for none."""
        asked_at = time.time()
        status, answer = await self._post(f"/api/tasks/{job_id}/cancel", {})
        told = answer.get("status") if status == 200 else _status_in(str(answer.get("detail", "")))
        write_entry(self._ledger, "revoke", job_id=job_id, asked_at=asked_at, status=status, told=told)
        return status

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        first = next(self._turns)
        for url in [*self._urls[first:], *self._urls[:first]]:
            try:
                async with self._session.post(url + path, json=body) as answer:
                    text = await answer.read()
                    return answer.status, orjson.loads(text) if text else {}
            except aiohttp.ClientConnectorError:
                continue
            except (aiohttp.ClientError, TimeoutError):
                return 0, {}
        self.refused += 1
        await asyncio.sleep(_ALL_DOWN_S)
        return 0, {}


def open_session(width: int = 64) -> aiohttp.ClientSession:
    """Open what a client of this width needs."""
    connector = aiohttp.TCPConnector(limit=width, enable_cleanup_closed=False)
    return aiohttp.ClientSession(
        headers=HEADERS, connector=connector, timeout=aiohttp.ClientTimeout(total=_LIMIT_S), json_serialize=_dump
    )


class Submitting(Protocol):
    """Whatever a load can submit to and cancel at."""

    async def submit(self, mark: str, *, queue: str, priority: int, wait_s: float, fail_times: int) -> str | None:
        """Submit one step; return its id if it was accepted."""

    async def cancel(self, job_id: str) -> int:
        """Cancel one job."""


async def load(client: Submitting, *, seed: int, jobs: int, width: int, cancels: float) -> None:
    """Submit until ``jobs`` were accepted, and cancel a part of them soon after."""
    luck, marks, accepted = random.Random(seed), iter(range(sys.maxsize)), 0

    async def submit_all() -> None:
        nonlocal accepted
        while accepted < jobs:
            mark = f"{seed}-{next(marks)}"
            step: dict[str, Any] = {
                "queue": luck.choice(["near", "near", "far"]),
                "priority": luck.choice([1, 5, 5, 5, 10]),
            }
            wait_s, fail_times = luck.choice(_WAITS_S), int(luck.random() < 0.02)
            job_id = await client.submit(mark, **step, wait_s=wait_s, fail_times=fail_times)
            if job_id is None:
                continue
            accepted += 1
            if luck.random() < cancels:
                await client.cancel(job_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(submit_all())


def _status_in(detail: str) -> str | None:
    """Read how the job stands out of "The task is completed and can no longer be cancelled."."""
    words = detail.split()
    return words[3] if words[:3] == ["The", "task", "is"] else None


def _dump(value: object) -> str:
    return orjson.dumps(value).decode()


async def main(ledger: str, seed: str, jobs: str, width: str, cancels: str, *urls: str) -> None:
    """Be one load."""
    async with open_session(int(width)) as session:
        client = Client(session, urls, Path(ledger))
        await load(client, seed=int(seed), jobs=int(jobs), width=int(width), cancels=float(cancels))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
