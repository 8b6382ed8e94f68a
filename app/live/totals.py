"""Counters for ``/metrics`` that all processes share: one Redis hash, so that they outlive any worker."""

from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import cast

from app.queue import keys
from app.queue.connect import Redis

BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One settled attempt, as counted."""

    kind: str
    queue: str
    status: str
    duration_s: float | None  # None for what never ran


def fields_of(tallies: Iterable[Tally]) -> Counter[str]:
    """Return what to add to which field of the hash."""
    counts: Counter[str] = Counter()
    for tally in tallies:
        counts[f"tasks|{tally.kind}|{tally.queue}|{tally.status}"] += 1
        if tally.duration_s is not None:
            bucket = next((str(limit) for limit in BUCKETS_S if tally.duration_s <= limit), "+Inf")
            counts[f"bucket|{tally.kind}|{tally.queue}|{bucket}"] += 1
            counts[f"micros|{tally.kind}|{tally.queue}"] += int(tally.duration_s * 1e6)
    return counts


async def read_totals(redis: Redis) -> dict[tuple[str, ...], int]:
    """Return every counter by its label values, the first of which is its name."""
    found = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.TOTALS))
    return {
        tuple(field.decode(errors="replace").split("|")): int(value)
        for field, value in found.items()
        if value.isdigit()
    }
