"""What a worker serves: queues, functions and cron definitions, for one family, some queues, or all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arq.cron import CronJob

from app.errors import Misconfigured
from app.jobs.catalogue import QUEUE_ALIASES, Catalogue
from app.jobs.schedules import SCHEDULES
from workers.cron import cron_jobs
from workers.families import Work, load_work


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The options of one worker that follow from the catalogue."""

    queues: tuple[str, ...]
    functions: dict[str, Work]
    cron_jobs: Sequence[CronJob]


def worker_settings(catalogue: Catalogue, queues: Iterable[str] = (), *, ticks: bool = True) -> WorkerSettings:
    """Return the settings of a worker for these queues or families; for none named, of a worker for all.

    Raises Misconfigured for a name that is neither a queue nor a family.
    """
    served = tuple(sorted({queue for name in queues for queue in _queues_of(catalogue, name)})) or catalogue.queues
    return WorkerSettings(
        queues=served, functions=load_work(catalogue, served), cron_jobs=cron_jobs(SCHEDULES) if ticks else ()
    )


def _queues_of(catalogue: Catalogue, name: str) -> set[str]:
    name = QUEUE_ALIASES.get(name, name)
    if name in catalogue.queues:
        return {name}
    if name in catalogue.families:
        return {job_type.queue for job_type in catalogue.families[name].job_types}
    known = ", ".join([*catalogue.queues, *sorted(catalogue.families)])
    raise Misconfigured(f"There is no queue or family named {name!r}; known are: {known}.")
