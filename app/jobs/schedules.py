"""What runs by the clock, as one table of data. The fields are those of arq's ``cron``, in the schedule's time zone.

What happens where clocks change is said in :mod:`app.queue.ticks`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from zoneinfo import ZoneInfo

from pydantic import JsonValue

Field = int | frozenset[int] | None  # None matches every value

_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # the months, in leap years
_DAYS_BUT_SUNDAY = frozenset(range(6))
_EVERY_SIX_HOURS = frozenset(range(0, 24, 6))
_EVERY_FIVE_MINUTES = frozenset(range(0, 60, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One periodic job. A field that is None matches every value; ``second`` is 0 by default.

    Raises ValueError for a time zone that is not known, a day that never comes, and for day and weekday together, of
    which a crontab takes either and arq takes both.
    """

    name: str  # stable: history remembers its ticks by it
    kind: str
    params: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))
    month: Field = None
    day: Field = None  # of the month; one that a month does not have is left out there
    weekday: Field = None  # 0 is Monday
    hour: Field = None
    minute: Field = None
    second: int = 0
    timezone: str = "UTC"  # an IANA name
    catches_up: bool = True  # whether a missed window is made good once

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{self.name}: {self.timezone!r} is no time zone: give an IANA name.") from error
        if self.day is not None and self.weekday is not None:
            raise ValueError(f"{self.name}: give the day of the month or the weekday, not both.")
        longest = max(_LONGEST[month - 1] for month in _values(self.month, range(1, 13)))
        if min(_values(self.day, range(1, 32))) > longest:
            raise ValueError(f"{self.name}: no such month has more than {longest} days.")

    @property
    def cron_text(self) -> str:
        """The five fields that people know, minute first and Sunday as 0; before them the second, if it is not 0."""
        weekday = frozenset({self.weekday}) if isinstance(self.weekday, int) else self.weekday
        days = None if weekday is None else frozenset((day + 1) % 7 for day in weekday)
        date = f"{_text(self.day, 31)} {_text(self.month, 12)}"
        five = f"{_text(self.minute, 60)} {_text(self.hour, 24)} {date} {_text(days, 7)}"
        return f"{self.second} {five}" if self.second else five


def _values(values: Field, every: range) -> Iterable[int]:
    return every if values is None else (values,) if isinstance(values, int) else values


def _text(values: Field, size: int) -> str:
    """Write one field: ``*``, ``*/5``, ``1-6``, or the values."""
    if values is None:
        return "*"
    ordered = [values] if isinstance(values, int) else sorted(values)
    first, last = ordered[0], ordered[-1]
    if len(ordered) > 2 and ordered == list(range(first, last + 1)):
        return f"{first}-{last}"
    step = ordered[1] - first if len(ordered) > 1 else size
    if first == 0 and len(ordered) > 1 and ordered == list(range(0, size, step)):
        return f"*/{step}"
    return ",".join(map(str, ordered))


SCHEDULES = (
    Schedule(name="hourly-ari-snapshots", kind="ari.aggregate_snapshots", minute=0),
    Schedule(name="health-check", kind="system.health_check", minute=_EVERY_FIVE_MINUTES, catches_up=False),
    Schedule(name="queue-monitor", kind="system.monitor_queues", catches_up=False),
    Schedule(name="daily-metrics", kind="system.daily_metrics", hour=0, minute=0),
    Schedule(name="audit-archive", kind="maintenance.archive_audit_logs", hour=2, minute=0),
    Schedule(name="retention", kind="maintenance.enforce_retention_policy", hour=2, minute=30),
    Schedule(
        name="database-light",
        kind="maintenance.maintain_database",
        params=MappingProxyType({"maintenance_level": "light"}),
        weekday=_DAYS_BUT_SUNDAY,
        hour=3,
        minute=0,
    ),
    Schedule(
        name="database-standard",
        kind="maintenance.maintain_database",
        params=MappingProxyType({"maintenance_level": "standard"}),
        weekday=6,
        hour=3,
        minute=0,
    ),
    Schedule(name="epistemic-debt", kind="edm.batch_analysis", hour=3, minute=30),
    Schedule(name="active-user-trends", kind="ari.analyze_active_users", hour=4, minute=0),
    Schedule(name="cache-cleanup", kind="maintenance.cleanup_cache", hour=_EVERY_SIX_HOURS, minute=0, catches_up=False),
)
