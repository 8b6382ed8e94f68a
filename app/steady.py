"""The helpers of a process, an API's or a worker's: each runs for ever, and no outage ends it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from redis.exceptions import ResponseError

from app.errors import Unavailable
from app.log import get_log
from app.queue.connect import OUTAGES

log = get_log()

ANY_OUTAGE = (Unavailable, *OUTAGES)
OUTAGE_PAUSE_S = 0.5
_TOLD_EVERY_S = 10.0  # an outage, by each helper


async def steadily(name: str, helper: Callable[[], Awaitable[None]], *, mend: Callable[[], Awaitable[None]]) -> None:
    """Run a helper, again after every outage; mend Redis before, when that has answered with an error."""
    is_corrupt, told_at = False, -_TOLD_EVERY_S
    while True:
        try:
            if is_corrupt:  # something that is not ours stands under a key of ours, perhaps
                await mend()
            return await helper()
        except (*ANY_OUTAGE, ResponseError) as error:
            is_corrupt = isinstance(error, ResponseError)
            if monotonic() - told_at >= _TOLD_EVERY_S:
                log.warning("helper_interrupted", helper=name, reason=str(error))
                told_at = monotonic()
            await asyncio.sleep(OUTAGE_PAUSE_S)


async def dismiss(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel helpers until they are gone: redis-py loses a cancellation that comes just as a send completes."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
