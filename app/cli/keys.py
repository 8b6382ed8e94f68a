"""``keys``: the API keys in the database that the settings name."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.history.api_keys import ApiKey

keys_app = typer.Typer(
    name="keys", no_args_is_help=True, help="API keys: make, list, rotate and revoke them, without the API."
)

KeyArgument = Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.", show_default=False)]


@keys_app.command("create")
def create(
    user: Annotated[str, typer.Option(help="Whose key it is.", show_default=False)],
    name: Annotated[str, typer.Option(help="What people call it.")] = "command line",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it allows; may be repeated (default: tasks:read, tasks:write, records:write).",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days until it ends (default: never).", show_default=False)
    ] = None,
) -> None:
    """Make a key and show it, this once.

    Example: `keys create --user ada --scope tasks:read --scope tasks:write --days 90`
    """
    typer.echo(asyncio.run(_create(user, name, scope, days)))


@keys_app.command("list")
def list_all(
    user: Annotated[str | None, typer.Option(help="Only the keys of this user.", show_default=False)] = None,
) -> None:
    """List keys, the newest first, without their secrets.

    Example: `keys list --user ada`
    """
    asyncio.run(_list(user))


@keys_app.command("rotate")
def rotate(
    key_id: KeyArgument,
    overlap_hours: Annotated[float, typer.Option(min=0, max=720, help="How long the old key goes on.")] = 24,
) -> None:
    """Make a key that takes the place of another and show it, this once; the old one goes on for a while.

    Example: `keys rotate abcdefghijklmnop --overlap-hours 1`
    """
    typer.echo(asyncio.run(_rotate(key_id, overlap_hours)))


@keys_app.command("revoke")
def revoke(key_id: KeyArgument) -> None:
    """End a key and the sessions it has opened; running API processes refuse it within 5 seconds.

    Example: `keys revoke abcdefghijklmnop`
    """
    asyncio.run(_revoke(key_id))
    typer.echo(f"Key {key_id} is revoked.")


async def _create(user: str, name: str, scope: list[str] | None, days: int | None) -> str:
    from datetime import timedelta  # noqa: PLC0415

    from app.cli.opened import BY, opened  # noqa: PLC0415  # `--help` need not wait for SQLAlchemy
    from app.clock import utc_now  # noqa: PLC0415
    from app.credentials.keys import KeyMint, create_key  # noqa: PLC0415
    from app.credentials.scopes import ORDINARY, parse_scopes  # noqa: PLC0415

    scopes = parse_scopes(scope) if scope else ORDINARY
    expires_at = utc_now() + timedelta(days=days) if days is not None else None
    async with opened("make_key", f"user {user}") as place:
        mint = KeyMint(place.secret)
        _, key = await create_key(
            place.database, mint, user_id=user, name=name, scopes=scopes, created_by=BY, expires_at=expires_at
        )
    return key


async def _list(user: str | None) -> None:
    from app.cli.opened import looked_at  # noqa: PLC0415
    from app.history.api_keys import list_keys  # noqa: PLC0415

    async with looked_at() as database:
        keys, total = await list_keys(database, user_id=user, limit=1000)
    _show(keys, total)


async def _rotate(key_id: str, overlap_hours: float) -> str:
    from datetime import timedelta  # noqa: PLC0415

    from app.cli.opened import BY, opened  # noqa: PLC0415
    from app.credentials.keys import KeyMint, rotate_key  # noqa: PLC0415
    from app.errors import NotFound  # noqa: PLC0415
    from app.history.api_keys import find_key  # noqa: PLC0415

    async with opened("replace_key", f"key {key_id}") as place:
        held = await find_key(place.database, key_id)
        if held is None or held.key.kind != "key":
            raise NotFound(f"There is no key {key_id!r}; `keys list` shows those there are.")
        overlap = timedelta(hours=overlap_hours)
        _, key = await rotate_key(place.database, KeyMint(place.secret), held.key, by=BY, overlap=overlap)
    return key


async def _revoke(key_id: str) -> None:
    from app.cli.opened import opened  # noqa: PLC0415
    from app.credentials.keys import end_key  # noqa: PLC0415

    async with opened("revoke_key", f"key {key_id}") as place:
        await end_key(place.database, key_id)


def _show(keys: "Iterable[ApiKey]", total: int) -> None:
    from rich.table import Table  # noqa: PLC0415

    from app.cli.tables import print_table, whole  # noqa: PLC0415
    from app.clock import utc_now  # noqa: PLC0415

    table = Table(whole("Key"), whole("User"), "Name", "Scopes", "Ends", "Used last", "State", box=None)
    now = utc_now()
    for key in keys:
        times = [f"{at:%Y-%m-%d %H:%M}" if at else "never" for at in (key.expires_at, key.last_used_at)]
        state = "live" if key.is_live(now) else "revoked" if key.revoked_at else "expired"
        table.add_row(key.id, key.user_id, key.name, key.scopes, *times, state)
    print_table(table)
    typer.echo(f"{total} keys.")
