"""The whole service as its users run it: real processes, from outside."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from app.processes import start_child, stop_child
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support.environment import environment_of
from tests.support.waiting import eventually

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


@contextmanager
def process(settings: Settings, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m …`` with these settings; its log goes into the data directory. SIGTERM at the end."""
    log = settings.data_dir / f"{'-'.join(arguments).replace('/', '_')}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        child = start_child(
            [sys.executable, "-m", *arguments],
            env=environment_of(settings) | environment,
            cwd=Path(__file__).parents[2],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    finally:
        stop_child(child, grace_s=20)


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a process as a power cut would."""
    child.send_signal(signal.SIGKILL)
    child.wait(10)


class Service:
    """A client of one API process."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def submit(self, route: str, parameters: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Submit one task by its type's route; return the task."""
        async with self.session.post(f"/api/tasks/{route}", json={"parameters": parameters or {}, **options}) as answer:
            body: dict[str, Any] = await answer.json()
            assert answer.status == 202, body
            return body

    async def task(self, task_id: str) -> dict[str, Any]:
        """Read one task."""
        async with self.session.get(f"/api/tasks/{task_id}") as answer:
            body: dict[str, Any] = await answer.json()
            assert answer.status == 200, body
            return body

    async def becomes(self, task_id: str, status: str, within: float = 60.0) -> dict[str, Any]:
        """Wait until a task has a status; return it."""

        async def look() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return task if task["status"] == status else None

        return await eventually(look, within)

    async def is_ready(self) -> bool:
        """Tell whether the API answers and its database is there."""
        try:
            async with self.session.get("/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False
