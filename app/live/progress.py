"""The last progress of each running job, in Redis, for readers that did not follow from the start."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from app.queue import keys
from app.queue.connect import Redis

TTL_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
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
    parts = {job_id: orjson.loads(raw) for job_id, raw in zip(ids, found, strict=True) if raw is not None}
    return {
        job_id: Progress(attempt=attempt, percent=percent, message=message, stage=stage)
        for job_id, (attempt, percent, message, stage) in parts.items()
    }
