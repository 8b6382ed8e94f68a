"""Puts Redis right where something of the wrong type stands under a key of ours.

A script that meets such a key fails as a whole, and would fail for ever: every queue would stand still.
"""

from collections.abc import Iterable

from redis import exceptions as redis_errors

from app.log import get_log
from app.queue import keys
from app.queue.connect import Redis
from app.queue.scripts import script_text

log = get_log()

MAX_QUARANTINED = 1000  # entries kept to look at; all are counted
_ASIDE_S = 7 * 24 * 3600


def is_wrong_type(error: object) -> bool:
    """Whether Redis refused a command because its key holds something else."""
    return isinstance(error, redis_errors.ResponseError) and "WRONGTYPE" in str(error)


async def mend(redis: Redis, queues: Iterable[str]) -> list[str]:
    """Move keys of the wrong type aside, among our own and those of these queues; return which they were."""
    expected = dict(keys.FIXED)
    for name in queues:
        expected[keys.bell(name)] = "list"
        expected |= {keys.queue(name, priority): "zset" for priority in keys.PRIORITIES}
    args = [part for pair in expected.items() for part in pair]
    wrong = await redis.register_script(script_text("mend"))(args=[_ASIDE_S, MAX_QUARANTINED, *args])
    names = [name.decode() for name in wrong]
    if names:
        log.error("keys_of_wrong_type_moved_aside", keys=names, prefix=keys.ASIDE)
    return names
