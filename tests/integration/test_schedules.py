"""Schedules as a resource: what they show, their switch, running one by hand, and what the ticks make of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.clock import parse_iso, utc_now
from app.history.reader import JobFilter
from app.history.switches import Switch, read_switches, turn_switch
from app.installation import Installation, open_installation
from app.jobs.catalogue import load_catalogue
from app.jobs.schedules import SCHEDULES, Schedule
from app.jobs.status import Status
from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.house import open_house
from tests.support.workplace import drain, make_worker
from workers.cron import Ticker
from workers.settings import worker_settings

pytestmark = pytest.mark.databases("sqlite", "postgresql")

HOURLY = Schedule(name="hourly", kind="test.note", minute=0)
NINE = datetime(2026, 11, 22, 9, tzinfo=UTC)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as installation:
        yield installation


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=load_catalogue()) as running:
        yield running


async def turn(house: Installation, *, is_enabled: bool, at: datetime, by: str = "admin") -> None:
    await turn_switch(house.database, Switch(name="hourly", is_enabled=is_enabled, changed_at=at, changed_by=by))


def ticker(house: Installation) -> Ticker:
    return Ticker([HOURLY], house.catalogue, house.lifecycle)


# --- what ticks make of a switch ---------------------------------------------------------------


async def test_a_schedule_that_is_off_submits_nothing_until_it_is_on_again(house: Installation) -> None:
    await turn(house, is_enabled=False, at=NINE)
    was_off = await ticker(house).tick("hourly", NINE)
    await turn(house, is_enabled=True, at=NINE + timedelta(hours=1))

    is_on = await ticker(house).tick("hourly", NINE + timedelta(hours=1))

    assert (was_off, is_on) == (False, True)
    assert await house.reader.last_ticks() == {"hourly": NINE + timedelta(hours=1)}


async def test_what_passed_while_it_was_off_is_not_caught_up(house: Installation) -> None:
    await ticker(house).tick("hourly", NINE)
    await turn(house, is_enabled=False, at=NINE + timedelta(minutes=1))
    await turn(house, is_enabled=True, at=NINE + timedelta(hours=5, minutes=10))

    await ticker(house).catch_up(house.reader, NINE + timedelta(hours=5, minutes=30))
    before = await house.reader.last_ticks()
    await ticker(house).catch_up(house.reader, NINE + timedelta(hours=6, minutes=30))

    assert before == {"hourly": NINE}
    assert await house.reader.last_ticks() == {"hourly": NINE + timedelta(hours=6)}


async def test_a_switch_that_stands_so_already_keeps_who_turned_it(house: Installation) -> None:
    await turn(house, is_enabled=False, at=NINE, by="ann")
    await turn(house, is_enabled=False, at=NINE + timedelta(hours=1), by="bob")

    switches = await read_switches(house.database)

    assert switches == {"hourly": Switch(name="hourly", is_enabled=False, changed_at=NINE, changed_by="ann")}


# --- over HTTP ---------------------------------------------------------------------------------


async def test_every_schedule_is_shown_with_its_next_five_ticks(api: ApiUnderTest) -> None:
    answer = await api.ask("GET", "/api/schedules", key=ADA_KEY)

    shown = answer.json["schedules"]
    sunday = next(schedule for schedule in shown if schedule["name"] == "database-standard")
    ticks = [parse_iso(text) for text in sunday["next_runs"]]
    assert [schedule["name"] for schedule in shown] == [schedule.name for schedule in SCHEDULES]
    assert (sunday["cron"], sunday["task_name"]) == ("0 3 * * 0", "maintenance.maintain_database")
    assert sunday["params"] == {"maintenance_level": "standard"}
    assert (len(ticks), {(tick.weekday(), tick.hour, tick.minute) for tick in ticks}) == (5, {(6, 3, 0)})
    assert utc_now() < ticks[0] <= utc_now() + timedelta(days=7)
    assert (sunday["enabled"], sunday["last_tick"], sunday["last_run"]) == (True, None, None)


async def test_disabling_and_enabling_is_durable_and_tells_who_did_it(api: ApiUnderTest) -> None:
    off = await api.ask("POST", "/api/schedules/retention/disable")
    listed = (await api.ask("GET", "/api/schedules")).json["schedules"]
    on = await api.ask("POST", "/api/schedules/retention/enable")

    seen = next(schedule for schedule in listed if schedule["name"] == "retention")
    assert (off.status, off.json) == (200, seen)
    assert (seen["enabled"], seen["next_runs"], seen["changed_by"]) == (False, [], "admin")
    assert (on.json["enabled"], len(on.json["next_runs"])) == (True, 5)


async def test_running_one_by_hand_leaves_its_next_tick_free(api: ApiUnderTest) -> None:
    ran = await api.ask("POST", "/api/schedules/retention/run")
    at = utc_now().replace(microsecond=0)
    ticked = await Ticker(SCHEDULES, api.house.catalogue, api.house.lifecycle).tick("retention", at)

    shown = (await api.ask("GET", "/api/schedules")).json["schedules"]
    retention = next(schedule for schedule in shown if schedule["name"] == "retention")
    people = await api.house.reader.page(JobFilter(origin="people"))
    assert (ran.status, ran.headers["Location"]) == (202, f"/api/tasks/{ran.json['task_id']}")
    assert ticked
    assert parse_iso(retention["last_tick"]) == at
    assert retention["last_run"]["tick_at"] is not None
    assert [job.id for job in people.jobs] == [ran.json["task_id"]]
    assert people.jobs[0].submitted_by == "admin"


async def test_the_last_outcome_is_shown_once_a_run_has_ended(api: ApiUnderTest) -> None:
    task = (await api.ask("POST", "/api/schedules/cache-cleanup/run")).json
    served = worker_settings(api.house.catalogue, ["maintenance"], ticks=False)

    await drain(make_worker(api.house, served.functions, queues=served.queues, burst=True))

    shown = (await api.ask("GET", "/api/schedules")).json["schedules"]
    last = next(schedule["last_run"] for schedule in shown if schedule["name"] == "cache-cleanup")
    assert (last["task_id"], last["status"], last["tick_at"]) == (task["task_id"], Status.COMPLETED, None)
    assert (last["error_code"], last["completed_at"] is None) == (None, False)


@pytest.mark.parametrize("verb", ["enable", "disable", "run"])
async def test_only_administrators_turn_and_run_schedules(api: ApiUnderTest, verb: str) -> None:
    answer = await api.ask("POST", f"/api/schedules/retention/{verb}", key=ADA_KEY)

    assert (answer.status, answer.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize("verb", ["enable", "disable", "run"])
async def test_an_unknown_schedule_is_not_found(api: ApiUnderTest, verb: str) -> None:
    answer = await api.ask("POST", f"/api/schedules/nightly/{verb}")

    assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_an_archive_to_another_scheme_is_refused_when_it_is_submitted(api: ApiUnderTest) -> None:
    parameters = {"archive_location": "gs://bucket/audit"}

    answer = await api.ask("POST", "/api/tasks/maintenance/archive-audit-logs", json={"parameters": parameters})

    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == "/parameters/archive_location"
    assert "ARCHIVE_ROOT" in answer.json["errors"][0]["detail"]


async def test_audit_entries_and_alerts_are_record_kinds(settings: Settings) -> None:
    async with open_installation(settings), running_api(settings) as api:
        entry = {"entry_id": "e1", "timestamp": "2026-01-01T00:00:00Z", "event_type": "login", "action": "signed in"}
        stored = await api.ask("POST", "/api/records/audit-entries", json=[entry])
        listed = await api.ask("GET", "/api/records/audit-entries")
        alerts = await api.ask("GET", "/api/records/alerts")

    assert (stored.status, listed.json["records"][0]["severity"], alerts.status) == (200, "info", 200)
