"""The migrations lead to the schema that the code declares, whoever applies them and however often."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.database import Database, metadata, open_database
from app.history.credentials import api_keys, used_tickets, users
from app.history.migrate import _config, current_revision, head_revision, upgrade
from app.history.reader import JobFilter, Reader
from app.history.tables import (
    archive_locations,
    attempts,
    checkpoints,
    discards,
    epochs,
    jobs,
    pauses,
    receipts,
    schedules,
)
from app.history.webhooks import deliveries, webhooks
from app.history.writer import Writer
from app.records.record import load_record_types
from app.settings import Settings
from tests.conftest import DatabaseKind
from tests.support.house import new_job
from tests.support.postgres_server import PostgresUnderTest

pytestmark = pytest.mark.databases("sqlite", "postgresql")

TABLES = {
    *(table.name for table in (jobs, attempts, checkpoints, schedules, receipts, discards, epochs, pauses)),
    *(table.name for table in (archive_locations, api_keys, users, used_tickets, webhooks, deliveries)),
    *(kind.table.name for kind in load_record_types().values()),
}


@pytest.fixture
def database_url(database_kind: DatabaseKind, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database without any table."""
    if database_kind == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresUnderTest = request.getfixturevalue("postgres")
    url = server._create(template="template1").render_as_string(hide_password=False)
    yield url
    server.drop_database(url)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, data_dir=tmp_path)


@pytest.fixture
async def empty(settings: Settings) -> AsyncIterator[Database]:
    """An open database without any table."""
    database = open_database(settings)
    yield database
    await database.close()


async def ask(database: Database, question: Any) -> Any:
    async with database.read() as connection:
        return await connection.run_sync(question)


def differences(connection: sa.Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def constraints(connection: sa.Connection) -> dict[str, set[str | None]]:
    found = sa.inspect(connection)
    return {
        table: {
            found.get_pk_constraint(table)["name"],
            *(check["name"] for check in found.get_check_constraints(table)),
        }
        for table in TABLES
    }


async def downgrade(database: Database) -> None:
    def down(connection: sa.Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    async with database.write() as connection:
        await connection.run_sync(down)


async def test_the_migrated_schema_is_the_declared_one(empty: Database) -> None:
    await upgrade(empty)

    assert await ask(empty, differences) == []


async def test_constraints_bear_the_names_that_the_tables_declare(empty: Database) -> None:
    await upgrade(empty)

    declared = {
        name: {str(one.name) for one in metadata.tables[name].constraints if not isinstance(one, sa.UniqueConstraint)}
        for name in TABLES
    }
    assert await ask(empty, constraints) == declared


async def test_every_table_is_there_and_no_other(empty: Database) -> None:
    await upgrade(empty)

    names = await ask(empty, lambda connection: sa.inspect(connection).get_table_names())
    assert set(names) == TABLES | {"alembic_version"}


async def test_an_upgrade_arrives_at_the_head(empty: Database) -> None:
    assert await current_revision(empty) is None

    await upgrade(empty)

    assert await current_revision(empty) == head_revision()


async def test_an_upgrade_can_be_repeated_and_keeps_what_is_stored(empty: Database) -> None:
    await upgrade(empty)
    await Writer(empty).accept([new_job()])

    await upgrade(empty)

    assert await Reader(empty).count(JobFilter()) == 1


async def test_processes_that_start_together_upgrade_once(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        databases = [open_database(settings) for _ in range(4)]
        for database in databases:
            stack.push_async_callback(database.close)

        await asyncio.gather(*map(upgrade, databases))

        assert await current_revision(databases[0]) == head_revision()
        assert await ask(databases[0], differences) == []


async def test_a_downgrade_takes_everything_back(empty: Database) -> None:
    await upgrade(empty)

    await downgrade(empty)

    assert await current_revision(empty) is None
    names = await ask(empty, lambda connection: sa.inspect(connection).get_table_names())
    assert set(names) == {"alembic_version"}


async def test_after_a_downgrade_an_upgrade_works_again(empty: Database) -> None:
    await upgrade(empty)
    await downgrade(empty)

    await upgrade(empty)

    assert await ask(empty, differences) == []
