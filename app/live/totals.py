"""Counters for ``/metrics`` that all processes share: one Redis hash, so that they outlive any worker."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, cast

from app.queue import keys
from app.queue.connect import Redis

BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)


_BUCKETS = (*map(str, BUCKETS_S), "+Inf")


class Tally(NamedTuple):
    """One settled attempt, as counted."""

    kind: str
    queue: str
    status: str
    duration_s: float | None  # None for what never ran


def fields_of(tallies: Iterable[Tally]) -> Counter[str]:
    """Return what to add to which field of the hash."""
    durations: dict[tuple[str, str, str], list[float | None]] = {}
    for kind, queue, status, duration_s in tallies:
        durations.setdefault((kind, queue, status), []).append(duration_s)
    counts: Counter[str] = Counter()
    for (kind, queue, status), found in durations.items():
        counts[f"tasks|{kind}|{queue}|{status}"] += len(found)
        ran = [seconds for seconds in found if seconds is not None]
        if ran:
            counts[f"micros|{kind}|{queue}"] += int(sum(ran) * 1e6)
        for bucket, count in Counter(bisect_left(BUCKETS_S, seconds) for seconds in ran).items():
            counts[f"bucket|{kind}|{queue}|{_BUCKETS[bucket]}"] += count
    return counts


async def read_totals(redis: Redis) -> dict[tuple[str, ...], int]:
    """Return every counter by its label values, the first of which is its name."""
    found = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.TOTALS))
    return {
        tuple(field.decode(errors="replace").split("|")): int(value)
        for field, value in found.items()
        if value.isdigit()
    }
