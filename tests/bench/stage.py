"""Where a trial runs: a process of its own, on a Redis, a database and a directory that it has to itself."""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from app.embedded import EmbeddedRedis
from tests.support.postgres_server import PostgresUnderTest

PEERS = Path(__file__).parent / "peers"
_LIMIT_S, _TRIES = 300, 2  # of a peer that may hang

Kind = Literal["sqlite", "postgresql"]
Outcome = dict[str, float]


class Stage:
    """Runs trials, one at a time. ``environments`` is where the peers' virtual environments are kept."""

    def __init__(self, postgres: PostgresUnderTest | None, environments: Path) -> None:
        self._postgres = postgres
        self._environments = environments

    def run(self, trial: str, *, database: Kind = "sqlite", **options: float | str) -> Outcome:
        """Run one of our own trials; return what it measured."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name, EmbeddedRedis() as redis, self._url(database) as url:
            given = {"redis_url": redis.url, "database_url": url, "directory": name, **options}
            return _measured([sys.executable, "-m", "tests.bench.trials", trial, json.dumps(given)])

    def run_peer(self, peer: str, what: str, jobs: int) -> Outcome:
        """Run a peer's program in its own environment; return what it measured. One that hangs has a second try."""
        python = self.prepare(peer)
        durable: Kind = "postgresql" if peer == "procrastinate" else "sqlite"
        for _ in range(_TRIES):
            with suppress(subprocess.TimeoutExpired), EmbeddedRedis() as redis, self._url(durable) as url:
                address = url.replace("+asyncpg", "") or redis.url
                return _measured([str(python), str(PEERS / f"{peer}.py"), what, str(jobs), address], limit_s=_LIMIT_S)
        raise RuntimeError(f"{peer} hung {_TRIES} times, each for {_LIMIT_S} s.")

    def prepare(self, peer: str) -> Path:
        """Make a peer's environment if it is not there; return its Python. Needs the network the first time."""
        home = self._environments / peer
        python = home / "bin" / "python"
        ready = home / ".ready"
        wanted = "\n".join(_dependencies(PEERS / f"{peer}.py"))
        if not ready.exists() or ready.read_text() != wanted:
            venv.create(home, with_pip=True, clear=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *wanted.split("\n")], check=True)
            ready.write_text(wanted)
        return python

    @contextmanager
    def _url(self, database: Kind) -> Iterator[str]:
        if database == "sqlite":
            yield ""
            return
        if self._postgres is None:
            raise RuntimeError("This trial needs PostgreSQL.")
        url = self._postgres.create_database()
        try:
            yield url
        finally:
            self._postgres.drop_database(url)


def _measured(command: list[str], limit_s: float | None = None) -> Outcome:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=_environment(), timeout=limit_s)
    if ended.returncode not in {0, -9} or not ended.stdout:  # one peer can only be killed
        raise RuntimeError(f"{' '.join(command[:4])} … left with {ended.returncode}:\n{ended.stderr[-3000:]}")
    outcome: Outcome = json.loads(ended.stdout.strip().splitlines()[-1])
    return outcome


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}


def _dependencies(program: Path) -> list[str]:
    """Read the inline script metadata (the format of PEP 723)."""
    lines = program.read_text().split("# /// script\n", 1)[1].split("# ///\n", 1)[0].splitlines()
    found: list[str] = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))["dependencies"]
    return found
