"""The routes of schedules: what runs by the clock, when next, how it went, and its switch."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.schemas import AnsweredTask, answered_task_of, fresh_job, path_of
from app.clock import utc_now
from app.errors import NotFound
from app.history.rows import Job
from app.history.switches import Switch, read_latest_runs, read_switches, turn_switch
from app.jobs.fields import Model
from app.jobs.schedules import Schedule
from app.jobs.status import Status
from app.jobs.validation import validate
from app.orders import Order
from app.queue.ticks import next_ticks

_SHOWN_TICKS = 5


class ScheduleRun(Model):
    """One task that a schedule has submitted."""

    task_id: str
    """The task."""
    tick_at: datetime | None
    """The tick it stands for; null when somebody ran it by hand."""
    status: Status
    """Where it is in its life."""
    created_at: datetime
    """When it was submitted."""
    completed_at: datetime | None
    """When it ended."""
    error_code: str | None
    """Why it failed, as a stable word."""


class ScheduleState(Model):
    """One schedule as it stands."""

    name: str
    """Its name."""
    task_name: str
    """The kind of task it submits."""
    params: dict[str, JsonValue]
    """What it submits it with; the kind's defaults are left out."""
    cron: str
    """When, as the five fields of a crontab, in its time zone."""
    timezone: str
    """The IANA name of that time zone."""
    catches_up: bool
    """Whether a window that no worker saw is made good once."""
    enabled: bool
    """Whether it submits anything at present."""
    changed_at: datetime | None
    """When it was last enabled or disabled; null when it never was."""
    changed_by: str | None
    """Who did that."""
    next_runs: tuple[datetime, ...]
    """Its next five ticks; none while it is disabled."""
    last_tick: datetime | None
    """The last tick that submitted a task that is still in the history."""
    last_run: ScheduleRun | None
    """The last task it submitted, by a tick or by hand."""


class ScheduleStates(Model):
    """Every schedule."""

    schedules: tuple[ScheduleState, ...]
    """In the order of the table."""
    total: int
    """How many."""


def schedule_endpoints(schedules: Sequence[Schedule]) -> Iterator[Endpoint]:
    """Yield the routes of these schedules; reading is for everybody with a key, the rest for administrators."""
    known = {schedule.name: schedule for schedule in schedules}

    async def list_schedules(call: Call) -> ScheduleStates:
        """Show what runs by the clock: when next, and how it went last."""
        shown = await _show(call, schedules)
        return ScheduleStates(schedules=shown, total=len(shown))

    async def enable_schedule(call: Call) -> ScheduleState:
        """Let a schedule submit tasks again; what it missed while it was disabled stays missed."""
        return await _turn(call, _find(known, call), is_enabled=True)

    async def disable_schedule(call: Call) -> ScheduleState:
        """Keep a schedule from submitting tasks until it is enabled again."""
        return await _turn(call, _find(known, call), is_enabled=False)

    async def run_schedule(call: Call) -> AnsweredTask:
        """Submit a schedule's task now, whether it is enabled or not; its next tick comes all the same."""
        return await _run(call, _find(known, call))

    yield endpoint("GET", "/schedules", list_schedules)
    yield endpoint("POST", "/schedules/{name}/enable", enable_schedule, access=Access.ADMIN)
    yield endpoint("POST", "/schedules/{name}/disable", disable_schedule, access=Access.ADMIN)
    yield endpoint("POST", "/schedules/{name}/run", run_schedule, access=Access.ADMIN, status=202)


def _find(known: Mapping[str, Schedule], call: Call) -> Schedule:
    name = call.request.match_info["name"]
    if name not in known:
        raise NotFound(f"There is no schedule {name!r}: not found. Known are: {', '.join(known)}.")
    return known[name]


async def _turn(call: Call, schedule: Schedule, *, is_enabled: bool) -> ScheduleState:
    switch = Switch(name=schedule.name, is_enabled=is_enabled, changed_at=utc_now(), changed_by=call.caller.user_id)
    await turn_switch(call.installation.database, switch)
    (shown,) = await _show(call, [schedule])
    return shown


async def _run(call: Call, schedule: Schedule) -> AnsweredTask:
    job_type = call.installation.catalogue.find(schedule.kind)
    params = validate(job_type.params, dict(schedule.params))
    # It names its schedule and no tick: ticks are unique, and one that is yet to come must find its place free.
    order = Order(job_type=job_type, params=params, owner=call.caller.user_id, schedule=schedule.name)
    (job,) = await call.installation.lifecycle.submit([order])
    call.headers["Location"] = path_of(job.id)
    return answered_task_of(fresh_job(job), f"Schedule {schedule.name} submitted its task")


async def _show(call: Call, schedules: Sequence[Schedule]) -> tuple[ScheduleState, ...]:
    database, now = call.installation.database, utc_now()
    switches = await read_switches(database)
    runs = await read_latest_runs(database, [schedule.name for schedule in schedules])
    return tuple(_state(schedule, switches.get(schedule.name), runs[schedule.name], now) for schedule in schedules)


def _state(
    schedule: Schedule, switch: Switch | None, runs: tuple[Job | None, Job | None], now: datetime
) -> ScheduleState:
    is_enabled = switch is None or switch.is_enabled
    tick, _ = runs
    last = max((job for job in runs if job is not None), key=lambda job: job.created_at, default=None)
    return ScheduleState(
        name=schedule.name,
        task_name=schedule.kind,
        params=dict(schedule.params),
        cron=schedule.cron_text,
        timezone=schedule.timezone,
        catches_up=schedule.catches_up,
        enabled=is_enabled,
        changed_at=switch.changed_at if switch else None,
        changed_by=switch.changed_by if switch else None,
        next_runs=tuple(next_ticks(schedule, after=now, count=_SHOWN_TICKS)) if is_enabled else (),
        last_tick=tick.tick_at if tick else None,
        last_run=_run_of(last) if last else None,
    )


def _run_of(job: Job) -> ScheduleRun:
    return ScheduleRun(
        task_id=job.id,
        tick_at=job.tick_at,
        status=job.status,
        created_at=job.created_at,
        completed_at=job.completed_at,
        error_code=job.error.code if job.error else None,
    )
