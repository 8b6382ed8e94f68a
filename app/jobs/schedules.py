"""What runs by the clock, as one table of data. Times are UTC; the fields are those of arq's ``cron``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pydantic import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One periodic job. A field that is None matches every value; ``second`` is 0 by default."""

    name: str  # stable: history remembers its ticks by it
    kind: str
    params: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))
    weekday: int | None = None  # 0 is Monday
    hour: int | frozenset[int] | None = None
    minute: int | frozenset[int] | None = None
    second: int = 0
    catches_up: bool = True  # whether a missed window is made good once


SCHEDULES = (
    Schedule(name="hourly-ari-snapshots", kind="ari.aggregate_snapshots", minute=0),
    Schedule(name="health-check", kind="system.health_check", minute=frozenset(range(0, 60, 5)), catches_up=False),
)
