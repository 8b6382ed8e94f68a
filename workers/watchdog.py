"""The watchdog of an event loop: a C timer that the loop keeps winding up, and that ends a process whose loop hangs.

A coroutine that never yields keeps the leases of its neighbours renewed (that is another thread's business)
and would hold them for ever. The timer of :mod:`faulthandler` needs neither the loop nor the GIL.
"""

import asyncio
import faulthandler
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_TURNS = 10  # in how many parts the limit is waited for: a loop that merely lags rewinds in time


@asynccontextmanager
async def watched_loop(limit_s: float) -> AsyncIterator[None]:
    """End this process, with the stack of every thread on standard error, once its loop has hung for so long.

    The exit code is 1; the leases of its jobs run out, and others take them over.
    """
    async with asyncio.TaskGroup() as group:
        winding = group.create_task(_wind_up(limit_s))
        try:
            yield
        finally:
            winding.cancel()
            faulthandler.cancel_dump_traceback_later()


async def _wind_up(limit_s: float) -> None:
    while True:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=sys.stderr)
        await asyncio.sleep(limit_s / _TURNS)
