"""Fifteen years of ticks in time zones whose clocks change, beside those of another implementation of cron."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from arq.cron import next_cron
from cronsim import CronSim

from app.jobs.schedules import Field, Schedule
from app.queue.ticks import cron_fields, next_tick

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)

# Half an hour, midnight, both halves of the globe, months of Ramadan, a day that there was not, and none at all.
ZONES = [
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Africa/Casablanca",
    "America/Santiago",
    "Asia/Kolkata",
    "UTC",
]

SCHEDULES = [
    Schedule(name="nightly", kind="k", hour=2, minute=30),
    Schedule(name="midnight", kind="k", hour=0, minute=0),
    Schedule(name="twice-in-the-gap", kind="k", hour=frozenset({1, 2, 3}), minute=frozenset({10, 40})),
    Schedule(name="quarters", kind="k", hour=frozenset({0, 6, 12, 18}), minute=15),
    Schedule(name="sundays", kind="k", weekday=6, hour=frozenset({1, 2, 3}), minute=0),
    Schedule(name="month-ends", kind="k", day=31, hour=2, minute=15),
    Schedule(name="leap-days", kind="k", month=2, day=29, hour=23, minute=59),
    # These tick by the time that passes.
    Schedule(name="hourly", kind="k", minute=0),
    Schedule(name="sunday-hours", kind="k", weekday=6, minute=30),
    Schedule(name="minutes-of-two", kind="k", hour=2, weekday=frozenset({5, 6})),
]


def crontab(schedule: Schedule) -> str:
    """Write out every value: ``*/6`` means something else than ``0,6,12,18`` where clocks change."""
    days = (
        schedule.weekday if schedule.weekday is None else frozenset((day + 1) % 7 for day in values(schedule.weekday))
    )
    fields = (schedule.minute, schedule.hour, schedule.day, schedule.month, days)
    return " ".join("*" if field is None else ",".join(map(str, sorted(values(field)))) for field in fields)


def values(field: Field) -> frozenset[int]:
    return frozenset({field}) if isinstance(field, int) else field or frozenset()


def ours(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    tick = after
    while (tick := next_tick(schedule, after=tick)) < until:
        yield tick


def oracle(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Return cronsim's ticks; every minute that fits, where cronsim looks an hour ahead and misses half of one."""
    zone = ZoneInfo(schedule.timezone)
    if zone.key == "Australia/Lord_Howe" and (schedule.hour is None or schedule.minute is None):
        return every_minute_that_fits(schedule, zone, after, until)
    ticks = CronSim(crontab(schedule), after.astimezone(zone))
    return takewhile(lambda tick: tick < until, (tick.astimezone(UTC) for tick in ticks))


def every_minute_that_fits(schedule: Schedule, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    moment = after + timedelta(minutes=1)
    while moment < until:
        wall = moment.astimezone(zone)
        pairs = (wall.weekday(), schedule.weekday), (wall.hour, schedule.hour), (wall.minute, schedule.minute)
        if all(field is None or value in values(field) for value, field in pairs):
            yield moment
        moment += timedelta(minutes=1)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_wherever_the_clock_changes_the_ticks_are_those_of_the_oracle(schedule: Schedule, zone: str) -> None:
    zoned = replace(schedule, timezone=zone)

    for change in changes(ZoneInfo(zone), years=range(2025, 2027)):
        after, until = change - timedelta(days=2), change + timedelta(days=2)
        assert list(ours(zoned, after, until)) == list(oracle(zoned, after, until))


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_fifteen_years_of_ticks_are_those_of_the_oracle(schedule: Schedule, zone: str) -> None:
    zoned = replace(schedule, timezone=zone)

    found = list(ours(zoned, BEGIN, END))

    assert found == list(oracle(zoned, BEGIN, END))
    assert len(found) == len(set(found)) >= 3


def changes(zone: ZoneInfo, years: range) -> list[datetime]:
    """Return the days on which the clock changes, and a plain one."""
    first = datetime(years[0], 1, 1, 12, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range(365 * len(years))]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    return [
        first,
        *(day for day, before, after in zip(days[1:], offsets, offsets[1:], strict=False) if before != after),
    ]


# --- in words ------------------------------------------------------------------------------------


def paris(day: datetime, *, hour: Field = None, minute: Field = None) -> list[str]:
    schedule = Schedule(name="s", kind="k", timezone="Europe/Paris", hour=hour, minute=minute)
    zone = ZoneInfo("Europe/Paris")
    found = islice(ours(schedule, day, day + timedelta(days=1)), 40)
    return [f"{tick.astimezone(zone):%H:%M%z}" for tick in found]


SPRING = datetime(2026, 3, 28, 23, tzinfo=UTC)  # midnight in Paris; 02:00 becomes 03:00
AUTUMN = datetime(2026, 10, 24, 22, tzinfo=UTC)  # 03:00 becomes 02:00


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_in_utc_ticks_are_those_of_arq(schedule: Schedule) -> None:
    after = datetime(2024, 2, 27, 22, 59, 59, 500_000, tzinfo=UTC)

    assert next_tick(schedule, after=after) == next_cron(after, **cron_fields(schedule))


def test_a_time_that_does_not_exist_is_made_good_at_the_first_moment_after_it_once() -> None:
    assert paris(SPRING, hour=2, minute=30) == ["03:00+0200"]
    assert paris(SPRING, hour=2, minute=frozenset({10, 40})) == ["03:00+0200"]


def test_a_time_that_comes_twice_ticks_once() -> None:
    assert paris(AUTUMN, hour=2, minute=30) == ["02:30+0200"]


def test_an_hourly_schedule_leaves_no_hour_out_and_doubles_none() -> None:
    assert len(paris(SPRING, minute=0)) == 23  # the first midnight is before the day, the last one after it
    assert paris(AUTUMN, minute=0)[1:4] == ["02:00+0200", "02:00+0100", "03:00+0100"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"timezone": "Europe/Atlantis"}, "no time zone"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"day": 1, "weekday": 0}, "not both"),
        ({"day": frozenset({30, 31}), "month": 2}, "29 days"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Schedule(name="s", kind="k", **fields)  # type: ignore[arg-type]
