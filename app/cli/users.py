"""``users``: who logs in with a password, in the database that the settings name."""

import asyncio
import sys
from typing import Annotated

import typer

users_app = typer.Typer(
    name="users", no_args_is_help=True, help="Users with a password: create, disable and list them, without the API."
)

UserArgument = Annotated[str, typer.Argument(help="The user's name.", show_default=False)]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the standard input instead of asking for it.")
]


@users_app.command("create")
def create(
    user: UserArgument,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What they may do; may be repeated (default: tasks:read, tasks:write, records:write).",
            show_default=False,
        ),
    ] = None,
    password_stdin: FromStdin = False,
) -> None:
    """Create a user, and ask for the password.

    Example: `users create ada --scope tasks:read`
    """
    asyncio.run(_create(user, scope, _password(from_stdin=password_stdin)))
    typer.echo(f"User {user} is created.")


@users_app.command("password")
def change_password(user: UserArgument, password_stdin: FromStdin = False) -> None:
    """Set another password, which ends the user's tokens and sessions.

    Example: `users password ada`
    """
    asyncio.run(_change_password(user, _password(from_stdin=password_stdin)))
    typer.echo(f"User {user} has a new password.")


@users_app.command("disable")
def disable(user: UserArgument) -> None:
    """Shut a user out: their tokens, sessions and keys are refused within 5 seconds.

    Example: `users disable ada`
    """
    asyncio.run(_change_access(user, is_disabled=True))
    typer.echo(f"User {user} is disabled.")


@users_app.command("enable")
def enable(user: UserArgument) -> None:
    """Let a user in again; their keys hold as before, tokens and sessions stay ended.

    Example: `users enable ada`
    """
    asyncio.run(_change_access(user, is_disabled=False))
    typer.echo(f"User {user} is enabled.")


@users_app.command("list")
def list_all() -> None:
    """List users with a password.

    Example: `users list`
    """
    asyncio.run(_list())


def _password(*, from_stdin: bool) -> str:
    """Read a password; never from the command line, which every process of the machine can see."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked


async def _create(user: str, scope: list[str] | None, password: str) -> None:
    from app.cli.opened import opened  # noqa: PLC0415  # `--help` need not wait for SQLAlchemy
    from app.credentials.scopes import ORDINARY, parse_scopes  # noqa: PLC0415
    from app.credentials.users import create_user  # noqa: PLC0415

    scopes = parse_scopes(scope) if scope else ORDINARY
    async with opened("create_user", f"user {user}") as place:
        await create_user(place.database, user, password, scopes)


async def _change_password(user: str, password: str) -> None:
    from app.cli.opened import opened  # noqa: PLC0415
    from app.credentials.users import set_password  # noqa: PLC0415

    async with opened("set_password", f"user {user}") as place:
        await set_password(place.database, user, password)


async def _change_access(user: str, *, is_disabled: bool) -> None:
    from app.cli.opened import opened  # noqa: PLC0415
    from app.credentials.users import set_access  # noqa: PLC0415

    async with opened("disable_user" if is_disabled else "enable_user", f"user {user}") as place:
        await set_access(place.database, user, is_disabled=is_disabled)


async def _list() -> None:
    from rich.table import Table  # noqa: PLC0415

    from app.cli.opened import looked_at  # noqa: PLC0415
    from app.cli.tables import print_table, whole  # noqa: PLC0415
    from app.history.users import list_users  # noqa: PLC0415

    async with looked_at() as database:
        users = await list_users(database)
    table = Table(whole("User"), "Scopes", "Password set", "State", box=None)
    for user in users:
        state = "disabled" if user.disabled_at else "enabled"
        table.add_row(user.id, user.scopes, f"{user.password_at:%Y-%m-%d %H:%M}", state)
    print_table(table)
    typer.echo(f"{len(users)} users.")
