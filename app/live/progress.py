"""The last progress of each running job, in Redis, for readers that did not follow from the start."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from app.queue import keys
from app.queue.connect import Redis

TTL_S = 24 * 3600


class Progress(NamedTuple):
    """How far an attempt is. ``percent`` is 0–100."""

    attempt: int
    percent: float
    message: str | None
    stage: str | None


def dump_progress(progress: Progress) -> bytes:
    """Write progress as it stands in Redis."""
    return orjson.dumps([progress.attempt, progress.percent, progress.message, progress.stage])


async def read_progress(redis: Redis, ids: Sequence[str]) -> dict[str, Progress]:
    """Return the progress of those of these jobs that reported any."""
    if not ids:
        return {}
    found = await redis.mget([keys.progress(job_id) for job_id in ids])
    read = {job_id: _load(raw) for job_id, raw in zip(ids, found, strict=True) if raw is not None}
    return {job_id: progress for job_id, progress in read.items() if progress is not None}


def _load(raw: bytes) -> Progress | None:
    """Read what :func:`dump_progress` wrote; anything else tells of no progress."""
    try:
        match orjson.loads(raw):
            case [int(attempt), float() | int() as percent, str() | None as message, str() | None as stage]:
                return Progress(attempt=attempt, percent=float(percent), message=message, stage=stage)
    except ValueError:
        pass
    return None
