"""When schedules tick, by arq's own reckoning. Pure; the API shows it, the workers act by it."""

from datetime import datetime
from typing import Any

from arq.cron import next_cron

from app.jobs.schedules import Schedule


def latest_tick(schedule: Schedule, *, after: datetime, until: datetime) -> datetime | None:
    """Return the last tick in ``(after, until]``, or None if there was none."""
    found, tick = None, next_cron(after, **cron_fields(schedule))
    while tick <= until:
        found, tick = tick, next_cron(tick, **cron_fields(schedule))
    return found


def next_ticks(schedule: Schedule, *, after: datetime, count: int) -> list[datetime]:
    """Return the next ``count`` ticks after a time."""
    ticks: list[datetime] = []
    while len(ticks) < count:
        ticks.append(next_cron(ticks[-1] if ticks else after, **cron_fields(schedule)))
    return ticks


def cron_fields(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as the keyword arguments of arq's ``cron`` and ``next_cron``."""
    fields = {"weekday": schedule.weekday, "hour": schedule.hour, "minute": schedule.minute, "second": schedule.second}
    plain = {name: set(value) if isinstance(value, frozenset) else value for name, value in fields.items()}
    return plain | {"microsecond": 0}
