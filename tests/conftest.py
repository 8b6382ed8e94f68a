"""Fixtures: real servers, and settings that know nothing of the developer's own environment."""

import asyncio
import gc
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr

from app.database import Database, open_database
from app.settings import Settings
from tests.support.postgres_server import NoPostgresError, PostgresUnderTest, running_postgres
from tests.support.redis_server import RedisUnderTest, running_redis
from workers.thread import ThreadStopped

DatabaseKind = Literal["sqlite", "postgresql"]

ADMIN_KEY = "the-admin-key-of-the-tests"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on both databases if it uses ``database``, or on those that its ``databases`` mark names."""
    mark = metafunc.definition.get_closest_marker("databases")
    if mark is None and "database" not in metafunc.fixturenames:
        return
    kinds = mark.args if mark else ("sqlite", "postgresql")
    marks = {"postgresql": [pytest.mark.postgresql]}
    metafunc.parametrize("database_kind", [pytest.param(kind, marks=marks.get(kind, [])) for kind in kinds])


def pytest_configure() -> None:
    """Let numpy count with one thread, as it does in a worker's child processes: more of them only wait in turns."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: a test often waits for a lease, a limit or another process."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Keep what importing and collecting made, some million objects, out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _stops_may_land_in_finalizers() -> Iterator[None]:
    """Take no stop of a thread for a defect that landed in a finalizer, where Python drops it: it is raised again."""
    tell = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if dropped.exc_type is ThreadStopped else tell(dropped)
    yield
    sys.unraisablehook = tell


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's environment and ``.env`` from every Settings that a test makes."""
    for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisUnderTest]:
    """A real Redis for the whole run; use ``redis_url``, which comes empty."""
    with running_redis(os.environ.get("REDIS_URL")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisUnderTest) -> str:
    """An empty database on a real Redis."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresUnderTest]:
    """A real PostgreSQL for the whole run, or a skip that says what is missing."""
    try:
        with running_postgres(os.environ.get("TEST_POSTGRES_URL")) as server:
            yield server
    except NoPostgresError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    from app.history.migrate import upgrade

    file = tmp_path_factory.mktemp("template") / "jobs.db"

    async def migrate() -> None:
        database = open_database(Settings(_env_file=None, database_url=f"sqlite+aiosqlite:///{file}"))
        await upgrade(database)
        await database.close()

    asyncio.run(migrate())
    return file


@pytest.fixture
def database_kind() -> DatabaseKind:
    """Which database ``settings`` name. SQLite, where the test does not say otherwise."""
    return "sqlite"


@pytest.fixture
def database_url(database_kind: DatabaseKind, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database that is this test's own."""
    if database_kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        yield f"sqlite+aiosqlite:///{shutil.copy(template, tmp_path / 'jobs.db')}"
        return
    postgres: PostgresUnderTest = request.getfixturevalue("postgres")
    url = postgres.create_database()
    yield url
    postgres.give_back(url)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, database_url: str) -> Settings:
    """Settings on servers of the test's own, with a known administrator."""
    return Settings(
        redis_url=redis_url,
        database_url=database_url,
        data_dir=tmp_path,
        port=0,
        admin_api_key=SecretStr(ADMIN_KEY),
        log_format="json",
        rate_limit_per_minute=0,  # tests ask faster than people do
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """An open, empty database with the whole schema."""
    from app.history.migrate import upgrade

    database = open_database(settings)
    try:
        await upgrade(database)
        yield database
    finally:
        await database.close()
