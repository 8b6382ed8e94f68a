"""``db``: the schema of the database that the settings name."""

import asyncio
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from app.settings import Settings

db_app = typer.Typer(
    name="db", no_args_is_help=True, help="The database's schema: bring it up to date, or see where it stands."
)


@db_app.command("upgrade")
def upgrade_schema() -> None:
    """Apply every migration that is missing. Running it again changes nothing.

    Example: `db upgrade`
    """
    from app.settings import read_settings  # noqa: PLC0415  # `--help` need not wait for pydantic

    typer.echo(asyncio.run(_upgrade(read_settings())))


@db_app.command("current")
def show_revision() -> None:
    """Show the revision of the database, and the one that this version of the service needs.

    Leaves with 1 when they differ. Example: `db current`
    """
    from app.settings import read_settings  # noqa: PLC0415  # `--help` need not wait for pydantic

    current, head = asyncio.run(_revisions(read_settings()))
    typer.echo(f"database: {current or 'empty'}\nneeded:   {head}")
    raise typer.Exit(0 if current == head else 1)


async def _upgrade(settings: "Settings") -> str:
    from app.database import open_database  # noqa: PLC0415  # SQLAlchemy and alembic take a second
    from app.history.migrate import current_revision, upgrade  # noqa: PLC0415

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    try:
        before = await current_revision(database)
        await upgrade(database)
        after = await current_revision(database)
    finally:
        await database.close()
    return f"The database is at {after} already." if before == after else f"Upgraded: {before or 'empty'} → {after}."


async def _revisions(settings: "Settings") -> tuple[str | None, str]:
    from app.database import open_database  # noqa: PLC0415
    from app.history.migrate import current_revision, head_revision  # noqa: PLC0415

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    try:
        return await current_revision(database), head_revision()
    finally:
        await database.close()
