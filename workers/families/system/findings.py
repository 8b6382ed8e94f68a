"""What counts as wrong: the thresholds of the queue monitor, and what it finds beyond them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from app.history.figures import LongRunning
from app.jobs.status import Status
from app.jobs.system import AlertName, AlertSeverity, DiskCheck, MemoryCheck, MonitoredQueue
from app.records.alerts import Finding
from workers.families.system.health import HIGH_MEMORY_PERCENT, LOW_DISK_PERCENT

MAX_READY = 1000
MAX_RUNNING = timedelta(minutes=30)
MAX_FAILURE_RATE = 0.1
MIN_ENDED = 10  # of fewer tasks one failure is more than a tenth, and says nothing
FAILURE_WINDOW = timedelta(minutes=15)
EVERYWHERE = "all"  # the subject of what is wrong with the whole installation


def long_queues(queues: Mapping[str, MonitoredQueue]) -> Iterator[Finding]:
    """Find queues in which more than 1,000 jobs are ready."""
    for name, queue in queues.items():
        if queue.ready > MAX_READY:
            yield Finding(
                name=AlertName.QUEUE_TOO_LONG,
                subject=name,
                severity=AlertSeverity.WARNING,
                message=f"{queue.ready:,} tasks are ready in the queue {name}; more than {MAX_READY:,} is too many.",
                value=queue.ready,
                threshold=MAX_READY,
            )


def unserved_queues(queues: Mapping[str, MonitoredQueue], *, workers: int) -> Iterator[Finding]:
    """Find that there is no worker at all, or none for queues in which jobs are ready."""
    message = "No worker was heard of lately."
    if not workers:
        yield _unserved(EVERYWHERE, message)
        return
    for name, queue in queues.items():
        if queue.ready and not queue.consumers:
            yield _unserved(name, f"{queue.ready:,} tasks are ready in the queue {name}, which no live worker serves.")


def _unserved(subject: str, message: str) -> Finding:
    return Finding(
        name=AlertName.NO_WORKER,
        subject=subject,
        severity=AlertSeverity.CRITICAL,
        message=message,
        value=0,
        threshold=1,
    )


def long_jobs(running: Sequence[LongRunning], now: datetime) -> Iterator[Finding]:
    """Find kinds of which a job has run for more than 30 minutes."""
    limit = MAX_RUNNING.total_seconds() / 60
    for jobs in running:
        minutes = round((now - jobs.started_at).total_seconds() / 60, 1)
        yield Finding(
            name=AlertName.RUNNING_TOO_LONG,
            subject=jobs.kind,
            severity=AlertSeverity.WARNING,
            message=f"{jobs.count} {jobs.kind} have run for more than {limit:g} minutes, one for {minutes:g}.",
            value=minutes,
            threshold=limit,
        )


def failures(by_queue: Iterable[Mapping[Status, int]]) -> Iterator[Finding]:
    """Find that more than a tenth of what ended lately, as completed or failed, has failed; of ten tasks or more."""
    groups = list(by_queue)
    failed = sum(group.get(Status.FAILED, 0) for group in groups)
    ended = failed + sum(group.get(Status.COMPLETED, 0) for group in groups)
    if ended >= MIN_ENDED and failed / ended > MAX_FAILURE_RATE:
        minutes = FAILURE_WINDOW.total_seconds() / 60
        yield Finding(
            name=AlertName.FAILURE_RATE,
            subject=EVERYWHERE,
            severity=AlertSeverity.CRITICAL,
            message=f"{failed:,} of the {ended:,} tasks that ended in the last {minutes:g} minutes failed.",
            value=round(failed / ended, 4),
            threshold=MAX_FAILURE_RATE,
        )


def shortages(disk: DiskCheck, memory: MemoryCheck) -> Iterator[Finding]:
    """Find that disk or memory run out."""
    if disk.percent_free < LOW_DISK_PERCENT:
        yield Finding(
            name=AlertName.DISK_LOW,
            subject="data_dir",
            severity=AlertSeverity.CRITICAL,
            message=f"{disk.percent_free:g} % of the disk is free, {disk.free_gb:g} GB.",
            value=disk.percent_free,
            threshold=LOW_DISK_PERCENT,
        )
    if memory.percent_used > HIGH_MEMORY_PERCENT:
        yield Finding(
            name=AlertName.MEMORY_HIGH,
            subject="memory",
            severity=AlertSeverity.WARNING,
            message=f"{memory.percent_used:g} % of the memory is used, {memory.used_gb:g} GB.",
            value=memory.percent_used,
            threshold=HIGH_MEMORY_PERCENT,
        )
