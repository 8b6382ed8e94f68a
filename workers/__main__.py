"""``python -m workers``: runs a worker process, or several."""

import sys
from typing import Annotated

import typer

from app.errors import ServiceError
from app.installation import Installation
from app.jobs.catalogue import load_catalogue
from app.jobs.schedules import SCHEDULES
from app.log import configure_logging
from app.settings import read_settings
from workers.alone import LoneWorker, channel_on_stdin
from workers.cron import Ticker
from workers.pool import REFUSED, Pool
from workers.serving import serve
from workers.settings import WorkerSettings, worker_settings
from workers.worker import Worker

_COMMAND: tuple[str, ...] = (sys.executable, "-m", "workers")
_HELP = """Run jobs.

A worker claims due jobs of its queues from Redis, highest priority first, runs up to SLOTS of them at a
time, and writes how each ended into the database. SIGTERM lets running jobs finish (WORKER_GRACE_S), then
gives the rest back; a second signal leaves at once, and other workers take over after the lease. A worker
that ends with exit code 75 holds work that would not end, and asks to be started again.

Examples: one worker for everything: `python -m workers`. Four processes for two queues:
`python -m workers --queues ari_analysis,default --processes 4`. Empty the queues and leave:
`python -m workers --burst`.
"""


def main(  # noqa: PLR0917  # typer calls it, by name
    queues: Annotated[
        str, typer.Option(help="Comma-separated queues or families to serve; empty serves all.", show_default=False)
    ] = "",
    slots: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Jobs run at a time by one process (default: WORKER_SLOTS).")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Worker processes to keep running.")] = 1,
    burst: Annotated[bool, typer.Option("--burst", help="Leave once nothing is due or running.")] = False,
    cron: Annotated[
        bool | None, typer.Option("--cron/--no-cron", help="Submit what the schedule says (default: WORKER_CRON).")
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", hidden=True, help="Run what a worker hands over.")] = False,
) -> None:
    """Parse the command line and serve."""
    try:
        settings = read_settings()
        configure_logging(settings.log_level, settings.log_format)
        channel = channel_on_stdin() if alone else None
        if processes > 1:
            command = [*_COMMAND, *_single(queues, slots, burst=burst, cron=cron)]
            raise typer.Exit(Pool(command, processes).run(is_burst=burst))
        ticks = settings.worker_cron if cron is None else cron
        names = [name.strip() for name in queues.split(",") if name.strip()]
        catalogue = load_catalogue()
        served = worker_settings(catalogue, names, ticks=ticks)

        def make(installation: Installation) -> Worker:
            if channel is not None:
                return LoneWorker(installation, channel, functions=served.functions, queues=served.queues)
            return _worker(installation, served, slots or settings.worker_slots, burst=burst)

        raise typer.Exit(serve(settings, catalogue, make))
    except ServiceError as error:
        typer.secho(f"error: {error.message}", err=True, fg=typer.colors.RED)
        raise typer.Exit(REFUSED) from error


def _single(queues: str, slots: int | None, *, burst: bool, cron: bool | None) -> list[str]:
    arguments = ["--queues", queues] if queues else []
    arguments += ["--slots", str(slots)] if slots else []
    arguments += ["--burst"] if burst else []
    return arguments + ({True: ["--cron"], False: ["--no-cron"], None: []}[cron])


def _worker(installation: Installation, served: WorkerSettings, slots: int, *, burst: bool) -> Worker:
    return Worker(
        installation,
        functions=served.functions,
        queues=served.queues,
        max_jobs=slots,
        cron_jobs=served.cron_jobs,
        ticker=Ticker(SCHEDULES, installation.catalogue, installation.lifecycle),
        burst=burst,
        alone_command=[*_COMMAND, "--alone", "--queues", ",".join(served.queues)],
    )


def run() -> None:
    """Start typer under the name that people type."""
    command = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    command.command(help=_HELP)(main)
    command(prog_name="python -m workers")


if __name__ == "__main__":
    run()
