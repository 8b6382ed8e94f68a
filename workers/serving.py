"""One worker process from its settings to its exit code."""

import asyncio
import os
from collections.abc import Callable

import uvloop

from app.errors import Misconfigured
from app.installation import Installation, check_stores, open_installation
from app.interpreter import tune_interpreter
from app.jobs.catalogue import Catalogue
from app.log import get_log
from app.settings import Settings
from workers.watchdog import watched_loop
from workers.worker import Worker

log = get_log()

REPLACE_ME = 75  # EX_TEMPFAIL: the worker ended in order because too much abandoned work ran in it


def serve(settings: Settings, catalogue: Catalogue, make: Callable[[Installation], Worker]) -> int:
    """Run the worker that ``make`` makes until it ends; return the exit code.

    With work in the process that would not end, it does not return: asyncio would wait for that for ever.
    Raises Misconfigured where a worker refuses to work.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            worker = runner.run(_serve(settings, catalogue, make))
        except ExceptionGroup as group:
            raise _cause_of(group) from group
        code = REPLACE_ME if worker.limits.has_too_many else 0
        if worker.limits.stubborn:
            log.warning("worker_left_work_behind", stubborn=worker.limits.stubborn, exit_code=code)
            os._exit(code)
        return code


async def _serve(settings: Settings, catalogue: Catalogue, make: Callable[[Installation], Worker]) -> Worker:
    async with open_installation(settings, catalogue) as installation, watched_loop(settings.worker_hang_s):
        await check_stores(installation)
        worker = make(installation)
        tune_interpreter()
        await worker.async_run()
        await worker.close()
        return worker


def _cause_of(group: ExceptionGroup[Exception]) -> Exception:
    """Return why a worker refused to work, if that is all that is the matter; else the whole group."""
    refusals, others = group.split(Misconfigured)
    if refusals is None or others is not None:
        return group
    cause: Exception = refusals
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    return cause
