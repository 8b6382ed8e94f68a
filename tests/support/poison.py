"""Jobs that harm their worker, good ones beside them, and workers for both as real processes.

``python -m tests.support.poison`` runs one worker, ``--pool 2`` two under a parent; ``--alone`` is theirs.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app.installation import Installation
from app.jobs.contract import Limits, RetryPolicy
from app.log import configure_logging
from app.settings import read_settings
from tests.support import crunching
from tests.support.workplace import Anything, Something, catalogue_of, trial_type
from workers.alone import LoneWorker, channel_on_stdin
from workers.context import Context
from workers.pool import Pool
from workers.serving import serve
from workers.worker import Worker

ONCE = RetryPolicy(max_retries=0)
GOOD = trial_type("good", retry=ONCE)
POISON = trial_type("poison", retry=ONCE)
DEAF = trial_type("deaf", retry=ONCE, limits=Limits(hard_s=0.5, soft_s=0.5))
CATALOGUE = catalogue_of(GOOD, POISON, DEAF)

COMMAND = (sys.executable, "-m", "tests.support.poison")
_HUGE = 50 * 2**20


async def be_good(ctx: Context, params: Anything) -> Something:
    """Wait for as long as asked, and return who ran it."""
    value: Any = params.value or {}
    if "file" in value:
        Path(value["file"]).write_text(str(os.getpid()))  # noqa: ASYNC240  # a few bytes
    await ctx.sleep(value.get("seconds", 0))
    return Something(value={"pid": os.getpid(), "running": _others()})


async def harm(ctx: Context, params: Anything) -> Something:
    """Do what the params say."""
    match params.value:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            sys.exit(3)
        case "hang":
            while True:
                pass
        case "memory":
            await ctx.run_process(crunching.grow)
        case "large":
            return Something(value="x" * _HUGE)
        case "odd":
            return Something(value=object())
    return Something()


async def be_deaf(_ctx: Context, params: Anything) -> Something:
    """Ignore every cancellation, for as many seconds as asked."""
    until = time.monotonic() + float(params.value or 60)  # type: ignore[arg-type]  # a number, by whoever submits
    while time.monotonic() < until:
        try:
            await asyncio.sleep(until - time.monotonic())
        except asyncio.CancelledError:
            continue
    return Something(value="never stored")


WORKS: dict[str, Callable[[Context, Anything], Awaitable[Something]]] = {
    GOOD.kind: be_good,
    POISON.kind: harm,
    DEAF.kind: be_deaf,
}


def _others() -> int:
    """Count the other jobs of this process."""
    running = {task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task()}  # type: ignore[union-attr]
    return len([name for name in running if name == "Attempt.run"])


def main() -> int:
    """Be a worker, or the parent of some."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--pool", type=int)
    options = parser.parse_args()
    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)
    if options.pool:
        return Pool(COMMAND, options.pool).run(is_burst=False)
    channel = channel_on_stdin() if options.alone else None

    def make(house: Installation) -> Worker:
        if channel is not None:
            return LoneWorker(house, channel, functions=WORKS, queues=["north"])
        return Worker(
            house,
            functions=WORKS,
            queues=["north"],
            max_jobs=settings.worker_slots,
            alone_command=[*COMMAND, "--alone"],
        )

    return serve(settings, CATALOGUE, make)


if __name__ == "__main__":
    sys.exit(main())
