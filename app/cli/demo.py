"""``demo``: the whole service on sample data."""

from pathlib import Path
from typing import Annotated

import typer

_SEED = 7


def run_demo(
    stay: Annotated[
        bool | None,
        typer.Option(
            "--stay/--no-stay",
            help="Keep everything up until Ctrl-C, or leave with the jobs' exit code (default: stay on a terminal).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample data.")] = _SEED,
    data_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Keep database and logs here (default: a temporary directory)."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write all findings to this file, as JSON.")
    ] = None,
) -> None:
    """Show the whole service at work: Redis, API and worker are started, and jobs analyze sample data over HTTP.

    Uses the Redis of REDIS_URL if its database is empty, else a server of its own. Leaves no process behind.

    Example: `demo --seed 3 --report findings.json`
    """
    from app.cli.tables import open_console  # noqa: PLC0415
    from app.demo.play import Options, Play  # noqa: PLC0415  # an HTTP client and more that only this needs
    from app.log import configure_logging  # noqa: PLC0415

    configure_logging("ERROR", "console")  # what its processes log is in their files
    console = open_console()
    stays = console.is_terminal if stay is None else stay
    options = Options(seed=seed, stays=stays, data_dir=data_dir, report_file=report)
    raise typer.Exit(Play(options, console).run())
