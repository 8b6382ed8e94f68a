"""Schedules: what runs by the clock, and which tick was the last."""

from datetime import UTC, datetime, timedelta

import pytest

from app.jobs.catalogue import load_catalogue
from app.jobs.schedules import SCHEDULES, Schedule
from app.jobs.validation import validate
from app.queue.ticks import latest_tick, next_ticks
from workers.cron import cron_jobs

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday

hourly = Schedule(name="hourly", kind="test.note", minute=0)


def at(hour: int, minute: int = 0, second: int = 0, *, day: int = 0) -> datetime:
    return MIDNIGHT + timedelta(days=day, hours=hour, minutes=minute, seconds=second)


def test_the_latest_tick_is_the_last_one_of_several() -> None:
    assert latest_tick(hourly, after=at(1), until=at(4, 30)) == at(4)


def test_a_tick_at_the_end_of_the_window_counts() -> None:
    assert latest_tick(hourly, after=at(1), until=at(2)) == at(2)


def test_a_tick_at_the_start_of_the_window_has_been() -> None:
    assert latest_tick(hourly, after=at(1), until=at(1, 59)) is None


def test_a_window_without_a_tick_has_none() -> None:
    assert latest_tick(hourly, after=at(1, 1), until=at(1, 2)) is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(name="s", kind="k", minute=frozenset({10, 40})), at(11, 40)),
        (Schedule(name="s", kind="k", hour=7, minute=30), at(7, 30)),
        (Schedule(name="s", kind="k", weekday=0, hour=3, minute=0), at(3)),
        (Schedule(name="s", kind="k", weekday=6, hour=3, minute=0), at(3, day=-1)),
        (Schedule(name="s", kind="k", minute=0, second=30), at(11, 0, 30)),
    ],
)
def test_every_field_of_a_schedule_counts(schedule: Schedule, expected: datetime) -> None:
    assert latest_tick(schedule, after=at(0, day=-3), until=at(12)) == expected


def test_a_tick_is_a_whole_second() -> None:
    tick = latest_tick(hourly, after=at(1) + timedelta(microseconds=5), until=at(3) + timedelta(microseconds=5))

    assert tick == at(3)


def test_names_are_unique_because_history_remembers_ticks_by_them() -> None:
    names = [schedule.name for schedule in SCHEDULES]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_schedule_names_a_known_kind_and_params_that_fit_it(schedule: Schedule) -> None:
    job_type = load_catalogue().find(schedule.kind)

    assert job_type.kind == schedule.kind
    assert validate(job_type.params, dict(schedule.params)) == job_type.params(**schedule.params)


def test_arq_gets_every_schedule_by_its_name() -> None:
    assert [definition.name for definition in cron_jobs(SCHEDULES)] == [schedule.name for schedule in SCHEDULES]


def test_arq_finds_the_same_next_tick() -> None:
    (definition,) = cron_jobs([hourly])

    definition.calculate_next(at(1, 30))

    assert definition.next_run == latest_tick(hourly, after=at(1, 30), until=at(2, 30))


def test_the_next_ticks_are_those_that_will_be_the_latest_ones() -> None:
    assert next_ticks(hourly, after=at(1, 30), count=3) == [at(2), at(3), at(4)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(name="s", kind="k"), "* * * * *"),
        (Schedule(name="s", kind="k", minute=0), "0 * * * *"),
        (Schedule(name="s", kind="k", minute=frozenset(range(0, 60, 5))), "*/5 * * * *"),
        (Schedule(name="s", kind="k", hour=frozenset(range(0, 24, 6)), minute=0), "0 */6 * * *"),
        (Schedule(name="s", kind="k", hour=3, minute=frozenset({7, 40})), "7,40 3 * * *"),
        (Schedule(name="s", kind="k", weekday=6, hour=3, minute=0), "0 3 * * 0"),
        (Schedule(name="s", kind="k", weekday=frozenset(range(6)), hour=3, minute=0), "0 3 * * 1-6"),
        (Schedule(name="s", kind="k", minute=0, second=30), "30 0 * * * *"),
    ],
)
def test_a_schedule_is_written_as_people_know_it(schedule: Schedule, expected: str) -> None:
    assert schedule.cron_text == expected


def test_the_database_is_looked_after_once_every_day_and_thoroughly_on_sundays() -> None:
    ticks = {
        schedule.name: [tick.weekday() for tick in next_ticks(schedule, after=at(12), count=6)]
        for schedule in SCHEDULES
        if schedule.kind == "maintenance.maintain_database"
    }

    assert ticks == {"database-light": [1, 2, 3, 4, 5, 0], "database-standard": [6] * 6}
