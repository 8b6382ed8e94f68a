"""``python -m workers``: runs a worker process, or several."""

import asyncio
from typing import Annotated

import typer
import uvloop

from app.errors import ServiceError
from app.installation import check_stores, open_installation
from app.jobs.catalogue import load_catalogue
from app.jobs.schedules import SCHEDULES
from app.log import configure_logging
from app.settings import Settings, read_settings
from workers.collector import calm_collector
from workers.cron import Ticker
from workers.pool import Pool
from workers.settings import worker_settings
from workers.worker import Worker

_HELP = """Run jobs.

A worker claims due jobs of its queues from Redis, highest priority first, runs up to SLOTS of them at a
time, and writes how each ended into the database. SIGTERM lets running jobs finish (WORKER_GRACE_S), then
gives the rest back; a second signal leaves at once, and other workers take over after the lease.

Examples: one worker for everything: `python -m workers`. Four processes for two queues:
`python -m workers --queues ari_analysis,default --processes 4`. Empty the queues and leave:
`python -m workers --burst`.
"""


def main(
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
) -> None:
    """Parse the command line and serve."""
    try:
        settings = read_settings()
        configure_logging(settings.log_level, settings.log_format)
        if processes > 1:
            raise typer.Exit(Pool(_single(queues, slots, burst=burst, cron=cron), processes).run(is_burst=burst))
        ticks = settings.worker_cron if cron is None else cron
        names = [name.strip() for name in queues.split(",") if name.strip()]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, names, slots or settings.worker_slots, burst=burst, ticks=ticks))
    except ServiceError as error:
        typer.secho(f"error: {error.message}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from error


def _single(queues: str, slots: int | None, *, burst: bool, cron: bool | None) -> list[str]:
    arguments = ["--queues", queues] if queues else []
    arguments += ["--slots", str(slots)] if slots else []
    arguments += ["--burst"] if burst else []
    return arguments + ({True: ["--cron"], False: ["--no-cron"], None: []}[cron])


async def _serve(settings: Settings, names: list[str], slots: int, *, burst: bool, ticks: bool) -> None:
    catalogue = load_catalogue()
    served = worker_settings(catalogue, names, ticks=ticks)
    async with open_installation(settings, catalogue) as installation:
        await check_stores(installation)
        worker = Worker(
            installation,
            functions=served.functions,
            queues=served.queues,
            max_jobs=slots,
            cron_jobs=served.cron_jobs,
            ticker=Ticker(SCHEDULES, catalogue, installation.lifecycle),
            burst=burst,
        )
        calm_collector()
        await worker.async_run()
        await worker.close()


def run() -> None:
    """Start typer under the name that people type."""
    command = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    command.command(help=_HELP)(main)
    command(prog_name="python -m workers")


if __name__ == "__main__":
    run()
