"""Schedules as arq cron definitions. arq says when; each tick becomes one durable job, once for all workers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arq.cron import CronJob, cron

from app.history.reader import Reader
from app.jobs.catalogue import Catalogue
from app.jobs.schedules import Schedule
from app.jobs.validation import validate
from app.lifecycle import Lifecycle
from app.log import get_log
from app.orders import Order
from app.queue.ticks import cron_fields, latest_tick, next_tick

log = get_log()

OWNER = "cron"
_STEP = timedelta(seconds=1)


@dataclass(kw_only=True)
class ZonedCronJob(CronJob):
    """arq's definition, reckoned in the time zone of its schedule: arq itself has one for a whole worker."""

    schedule: Schedule

    def calculate_next(self, prev_run: datetime) -> None:
        """Set ``next_run`` to the first tick after a time."""
        self.next_run = next_tick(self.schedule, after=prev_run)


def cron_jobs(schedules: Iterable[Schedule]) -> list[CronJob]:
    """Return arq's definitions of these schedules, by name."""
    return [_definition(schedule) for schedule in schedules]


def _definition(schedule: Schedule) -> CronJob:
    plain = cron(_submit_as_job, name=schedule.name, **cron_fields(schedule))
    return ZonedCronJob(**vars(plain), schedule=schedule)


async def _submit_as_job(ctx: dict[Any, Any]) -> None:
    """Stand in for the coroutine that arq's ``cron`` wants; the job's work is found by its kind."""


class Ticker:
    """Submits what the schedules say. Every worker may have one: a tick is a unique row."""

    def __init__(self, schedules: Sequence[Schedule], catalogue: Catalogue, lifecycle: Lifecycle) -> None:
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._catalogue = catalogue
        self._lifecycle = lifecycle

    async def tick(self, name: str, at: datetime) -> bool:
        """Submit the job of one tick; return whether this worker was the first to."""
        schedule = self._schedules[name]
        job_type = self._catalogue.find(schedule.kind)
        order = Order(
            job_type=job_type,
            params=validate(job_type.params, dict(schedule.params)),
            owner=OWNER,
            schedule=name,
            tick_at=at,
        )
        job = await self._lifecycle.submit_tick(order)
        if job is not None:
            log.info("tick_submitted", schedule=name, tick=at.isoformat(), job_id=job.id)
        return job is not None

    async def run(self, definitions: Iterable[CronJob], now: datetime) -> None:
        """Submit every definition that is due by ``now``; of several missed ticks, only the latest."""
        for definition in definitions:
            if definition.next_run is None:
                definition.calculate_next(now - _STEP)  # arq looks from a second after what it is given
            due = definition.next_run
            if due is None or due > now:
                continue
            tick = latest_tick(self._schedules[definition.name], after=due - _STEP, until=now) or due
            await self.tick(definition.name, tick)
            definition.calculate_next(tick)

    async def catch_up(self, reader: Reader, now: datetime) -> None:
        """Submit, once each, the latest tick that every schedule has missed since its last one.

        What passed while a schedule was switched off was not missed.
        """
        switches = await reader.switches()
        for name, last in (await reader.last_ticks()).items():
            schedule, switch = self._schedules.get(name), switches.get(name)
            if schedule is None or not schedule.catches_up:
                continue
            since = last if switch is None else max(last, switch.changed_at)
            missed = latest_tick(schedule, after=since, until=now)
            if missed is not None:
                await self.tick(name, missed)
