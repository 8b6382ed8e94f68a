"""Keys and users from the command line, without the API."""

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.api.auth import open_keyring
from app.cli import cli
from app.database import open_database
from app.errors import BadRequest, Conflict, NotFound
from app.history.users import find_user
from app.settings import Settings
from tests.support.environment import environment_of


@pytest.fixture
def place(settings: Settings) -> dict[str, str]:
    return environment_of(settings)


def run(place: dict[str, str], *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner(env=place | {"COLUMNS": "200"}).invoke(cli, arguments, input=stdin)


def keys(place: dict[str, str], *arguments: str) -> Result:
    return run(place, "keys", *arguments)


def test_a_key_is_made_listed_rotated_and_revoked(settings: Settings, place: dict[str, str]) -> None:
    made = keys(place, "create", "--user", "ada", "--scope", "tasks:read", "--days", "3")
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    rotated = keys(place, "rotate", key_id, "--overlap-hours", "1")
    revoked = keys(place, "revoke", key_id)
    unknown = keys(place, "revoke", "nonsense")
    listed = keys(place, "list", "--user", "ada")

    assert [answer.exit_code for answer in (made, rotated, revoked, listed, unknown)] == [0, 0, 0, 0, 1]
    assert isinstance(unknown.exception, NotFound)
    assert re.search(rf"{key_id}.*revoked", listed.stdout)
    assert "live" in listed.stdout
    assert key not in listed.stdout

    async def holders() -> list[object]:
        database = open_database(settings)
        keyring = open_keyring(settings, database)
        try:
            return [await keyring.caller_of(text) for text in (key, rotated.stdout.strip())]
        finally:
            await database.close()

    old, new = asyncio.run(holders())
    assert old is None
    assert getattr(new, "user_id", None) == "ada"
    assert acts(settings) == ["make_key", "replace_key", "revoke_key", "revoke_key"]


@pytest.mark.parametrize("arguments", [("--user", ""), ("--user", "ada", "--scope", "nonsense")])
def test_a_key_that_makes_no_sense_is_not_made(place: dict[str, str], arguments: tuple[str, ...]) -> None:
    answer = keys(place, "create", *arguments)

    assert isinstance(answer.exception, BadRequest)
    assert "jk_" not in answer.output


def test_a_user_is_created_given_a_password_disabled_and_listed(settings: Settings, place: dict[str, str]) -> None:
    def users(*arguments: str, stdin: str = "") -> Result:
        return run(place, "users", *arguments, stdin=stdin)

    short = users("create", "eve", "--password-stdin", stdin="short\n")
    made = users("create", "eve", "--password-stdin", stdin="a long enough password\n")
    again = users("create", "eve", "--password-stdin", stdin="a long enough password\n")
    changed = users("password", "eve", "--password-stdin", stdin="another long password\n")
    disabled = users("disable", "eve")
    unknown = users("disable", "nobody")
    listed = users("list")

    errors = [type(answer.exception) for answer in (short, made, again, changed, disabled, unknown, listed)]
    nothing = type(None)
    assert errors == [BadRequest, nothing, Conflict, nothing, nothing, NotFound, nothing]
    assert re.search(r"eve.*disabled", listed.stdout)

    async def read() -> object:
        database = open_database(settings)
        try:
            return await find_user(database, "eve")
        finally:
            await database.close()

    user = asyncio.run(read())
    assert getattr(user, "generation", None) == 3
    assert str(getattr(user, "password_hash", "")).startswith("$argon2id$")


def acts(settings: Settings) -> list[str]:
    with sqlite3.connect(Path(settings.sql_url.partition(":///")[2])) as connection:
        rows = connection.execute("SELECT action FROM audit_entries WHERE component = 'cli' ORDER BY timestamp")
        return [row[0] for row in rows]
