"""The PostgreSQL under test: the machine's binaries, or the server that TEST_POSTGRES_URL names.

Each test gets a database of its own, copied from a template that was migrated once.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import asyncpg
import sqlalchemy as sa

from app.database import open_database
from app.processes import ChildOptions, free_port, start_child, stop_child
from app.settings import Settings

_OWNER = "postgres"  # PostgreSQL refuses to run as root
_START_S = 20
_EMPTY = """
DO $$ DECLARE name text; BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""


class NoPostgresError(Exception):
    """There is no PostgreSQL to test on; the message says what is missing."""


class PostgresUnderTest:
    """A server on which tests may create databases. Synchronous, so that any fixture can use it."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url).set(drivername="postgresql+asyncpg")
        self._spare: list[str] = []
        self._template = self._create(template="template1")
        asyncio.run(_migrate(self._template))

    def create_database(self) -> str:
        """Return the SQLAlchemy URL of a migrated, empty database: one that was given back, or a new one."""
        if self._spare:
            return self._spare.pop()
        return _text(self._create(template=str(self._template.database)))

    def give_back(self, url: str) -> None:
        """Empty a database that :meth:`create_database` returned, for the next test, whoever is still connected.

        Ten times faster than a new one. For tests that change rows; one that changes tables drops its database.
        """
        empty_database(url)
        self._spare.append(url)

    def drop_database(self, url: str) -> None:
        """Drop a database that :meth:`create_database` made, whoever is still connected to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{sa.make_url(url).database}" WITH (FORCE)')

    def close(self) -> None:
        """Drop the template and the databases that were given back."""
        for url in (*self._spare, _text(self._template)):
            self.drop_database(url)

    def _create(self, *, template: str) -> sa.URL:
        name = f"jobs_test_{uuid.uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self._url.set(database=name)

    def _execute(self, statement: str) -> None:
        asyncio.run(_execute(_text(self._url.set(drivername="postgresql")), statement))


def empty_database(url: str) -> None:
    """Delete every row of a database, whoever is connected to it."""
    asyncio.run(_execute(_text(sa.make_url(url).set(drivername="postgresql")), _EMPTY))


@contextmanager
def running_postgres(url: str | None, *, is_durable: bool = False) -> Iterator[PostgresUnderTest]:
    """Offer the server at ``url``, or one of our own that ends with the block; raises NoPostgresError.

    ``is_durable`` has our own sync its commits to disk, as a real one does; tests are faster without.
    """
    with nullcontext(url) if url else _own_server(is_durable=is_durable) as address:
        server = PostgresUnderTest(address)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def _own_server(*, is_durable: bool) -> Iterator[str]:
    binaries, owner = _find_binaries(), _find_owner()
    with tempfile.TemporaryDirectory(prefix="postgres-under-test-") as name:
        directory, port = Path(name), free_port()
        if owner:
            shutil.chown(directory, _OWNER, _OWNER)
        _make_cluster(binaries, directory, owner)
        server = _launch(binaries, directory, port, owner, fsync="on" if is_durable else "off")
        try:
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            _wait_for(server, url, directory)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # "fast": does not wait for connections that a test forgot
            stop_child(server, grace_s=5)


def _find_binaries() -> Path:
    """Find the directory that holds both ``initdb`` and ``postgres``: on PATH, else the newest installed."""
    on_path = [Path(found).parent for found in [shutil.which("initdb")] if found]
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name))
    for directory in [*on_path, *reversed(installed)]:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise NoPostgresError("no PostgreSQL: install one (apt-get install postgresql) or set TEST_POSTGRES_URL")


def _find_owner() -> ChildOptions:
    if os.geteuid() != 0:
        return {}
    try:
        pwd.getpwnam(_OWNER)
    except KeyError:
        raise NoPostgresError(f"PostgreSQL refuses to run as root, and there is no user {_OWNER}") from None
    return {"user": _OWNER, "group": _OWNER}


def _make_cluster(binaries: Path, directory: Path, owner: ChildOptions) -> None:
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"]
    log = directory / "initdb.log"
    with log.open("wb") as output:
        how: ChildOptions = {"cwd": directory, "stdout": output, "stderr": subprocess.STDOUT, **owner}
        maker = start_child([binaries / "initdb", "-D", directory / "cluster", *options], **how)
    if maker.wait(60) != 0:
        raise NoPostgresError(f"initdb failed: {log.read_text()}")


def _launch(binaries: Path, directory: Path, port: int, owner: ChildOptions, *, fsync: str) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(directory),
        "fsync": fsync,
        "full_page_writes": fsync,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (directory / "server.log").open("wb") as output:
        how: ChildOptions = {"cwd": directory, "stdout": output, "stderr": subprocess.STDOUT, **owner}
        return start_child([binaries / "postgres", "-D", directory / "cluster", *options], **how)


def _wait_for(server: subprocess.Popen[bytes], url: str, directory: Path) -> None:
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            asyncio.run(_execute(url, "SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not come up: {(directory / 'server.log').read_text()}")


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: sa.URL) -> None:
    from app.history.migrate import upgrade

    database = open_database(Settings(_env_file=None, database_url=_text(url)))
    try:
        await upgrade(database)
    finally:
        await database.close()
