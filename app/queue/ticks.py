"""When schedules tick, each in its time zone. Pure; the API shows it, the workers act by it.

The reckoning is that of arq's ``next_cron``, a hundred times as fast: that one goes from second to second.
Where clocks change, as Debian's cron has it. A schedule that names its hours and minutes ticks by the wall: a time that
does not exist is made good at the first moment after it, several of them once; a time that comes twice ticks the
first time. One that runs in every hour or every minute ticks by the time that passes, so no hour is left out.
"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from app.jobs.schedules import Field, Schedule

_STEP = timedelta(seconds=1)
_LONGEST_GAP = timedelta(days=2)  # of local time: islands have changed sides of the date line


def next_tick(schedule: Schedule, *, after: datetime) -> datetime:
    """Return the first tick after a time, in UTC."""
    if schedule.timezone == "UTC":
        return _next(schedule, after)
    zone = ZoneInfo(schedule.timezone)
    if schedule.hour is None or schedule.minute is None:
        return _by_time_passing(schedule, zone, after)
    return _by_the_wall(schedule, zone, after)


def latest_tick(schedule: Schedule, *, after: datetime, until: datetime) -> datetime | None:
    """Return the last tick in ``(after, until]``, or None if there was none."""
    found, tick = None, next_tick(schedule, after=after)
    while tick <= until:
        found, tick = tick, next_tick(schedule, after=tick)
    return found


def next_ticks(schedule: Schedule, *, after: datetime, count: int) -> list[datetime]:
    """Return the next ``count`` ticks after a time."""
    ticks: list[datetime] = []
    while len(ticks) < count:
        ticks.append(next_tick(schedule, after=ticks[-1] if ticks else after))
    return ticks


def cron_fields(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as the keyword arguments of arq's ``cron`` and ``next_cron``."""
    names = ("month", "day", "weekday", "hour", "minute", "second")
    fields = {name: getattr(schedule, name) for name in names}
    plain = {name: set(value) if isinstance(value, frozenset) else value for name, value in fields.items()}
    return plain | {"microsecond": 0}


def _next(schedule: Schedule, after: datetime) -> datetime:
    """Return the first time after another that fits, by a clock that is never changed."""
    hour, minute = (0 if field is None else min(_values(field)) for field in (schedule.hour, schedule.minute))
    moment = after.replace(microsecond=0) + _STEP
    moment += timedelta(seconds=(schedule.second - moment.second) % 60)
    while True:
        if not _is_day(schedule, moment):
            moment = (moment + timedelta(days=1)).replace(hour=hour, minute=minute)
        elif not _fits(moment.hour, schedule.hour):
            moment = (moment + timedelta(hours=1)).replace(minute=minute)
        elif not _fits(moment.minute, schedule.minute):
            moment += timedelta(minutes=1)
        else:
            return moment


def _is_day(schedule: Schedule, moment: datetime) -> bool:
    found = (moment.month, schedule.month), (moment.day, schedule.day), (moment.weekday(), schedule.weekday)
    return all(_fits(value, field) for value, field in found)


def _fits(value: int, field: Field) -> bool:
    return field is None or value in _values(field)


def _values(field: int | frozenset[int]) -> frozenset[int]:
    return frozenset({field}) if isinstance(field, int) else field


def _by_the_wall(schedule: Schedule, zone: ZoneInfo, after: datetime) -> datetime:
    wall = after.astimezone(zone).replace(tzinfo=None)
    while True:
        wall = _next(schedule, wall)
        tick = wall.replace(tzinfo=zone).astimezone(UTC)  # of two such times, the first
        if tick.astimezone(zone).replace(tzinfo=None) != wall:  # there is none
            tick = _change(zone, tick - _LONGEST_GAP, tick)
        if tick > after:
            return tick


def _by_time_passing(schedule: Schedule, zone: ZoneInfo, after: datetime) -> datetime:
    while True:
        offset = _offset(zone, after + _STEP)
        tick = _next(schedule, after.astimezone(timezone(offset))).astimezone(UTC)
        if _offset(zone, tick) == offset:
            return tick
        after = _change(zone, after + _STEP, tick) - _STEP


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return when the clock was changed between two times, the second of which has the new offset."""
    changed = _offset(zone, after)
    while after - before > _STEP:
        middle = before + (after - before) // 2
        middle -= timedelta(microseconds=middle.microsecond)
        before, after = (before, middle) if _offset(zone, middle) == changed else (middle, after)
    return after


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
