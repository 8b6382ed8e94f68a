"""The command line: ``python -m app``, or ``jobs`` where the project is installed. The outermost layer.

One noun a module. Commands import what they work with when they run, so that ``--help`` is quick and the
API process loads nothing that only another command needs.
"""

import sys

import typer

from app.cli.catalogue import show_catalogue
from app.cli.config import show_config
from app.cli.db import db_app
from app.cli.demo import run_demo
from app.cli.keys import keys_app
from app.cli.serve import run_api
from app.cli.tasks import tasks_app
from app.cli.users import users_app
from app.errors import ServiceError

_HELP = """Background jobs: accepted over HTTP, kept in SQL, run by priority by workers on Redis.

This command runs the API and looks after an installation. Workers are started with `python -m workers`.
What can be set is listed in `.env.example`, and shown by `config` as it is in force.
"""
_EPILOG = "Start here: `python -m app demo` shows everything at work, on sample data and servers of its own."

_RUN, _LOOK, _STORE, _USE = "Run", "Look", "Look after what is stored", "Use a running service"

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=_HELP,
    epilog=_EPILOG,
)
cli.command("demo", rich_help_panel=_RUN)(run_demo)
cli.command("serve", rich_help_panel=_RUN)(run_api)
cli.command("catalogue", rich_help_panel=_LOOK)(show_catalogue)
cli.command("config", rich_help_panel=_LOOK)(show_config)
cli.add_typer(tasks_app, rich_help_panel=_USE)
cli.add_typer(db_app, rich_help_panel=_STORE)
cli.add_typer(keys_app, rich_help_panel=_STORE)
cli.add_typer(users_app, rich_help_panel=_STORE)


@cli.command(
    "records",
    help="Stored records: import, export, list and count them.",
    rich_help_panel=_STORE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def pass_on_to_records(context: typer.Context) -> None:
    """Hand the rest of the line to the commands in ``app.cli.records``."""
    from app.cli.records import records_app  # noqa: PLC0415  # a second of imports that no other command needs

    records_app(context.args, prog_name=context.command_path)


def main(program: str | None = None) -> None:
    """Run the command line; an error of ours is one line and exit code 2."""
    try:
        cli(prog_name=program)
    except ServiceError as error:
        typer.secho(f"error: {error.message}", err=True, fg=typer.colors.RED)
        sys.exit(2)
