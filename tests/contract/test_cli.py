"""The command line teaches what it can do, is quick to say so, and fails in one clear line."""

import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.cli import cli
from app.cli.catalogue import _table
from app.jobs.catalogue import load_catalogue
from app.processes import free_port, start_child, stop_child
from app.settings import Settings
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

APP, WORKERS = "app", "workers"

COMMANDS = {
    "demo": ["--stay", "--no-stay", "--seed", "--data-dir", "--report"],
    "serve": ["--host", "--port"],
    "catalogue": [],
    "config": [],
    "db": ["upgrade", "current"],
    "keys": ["create", "list", "rotate", "revoke"],
    "keys create": ["--user", "--name", "--scope", "--days"],
    "keys list": ["--user"],
    "keys rotate": ["--overlap-hours"],
    "keys revoke": [],
    "tasks": ["submit", "show", "list", "follow", "cancel", "retry"],
    "tasks submit": ["--param", "--params", "--priority", "--countdown", "--follow", "--url", "--token"],
    "tasks show": ["--url", "--token"],
    "tasks list": ["--status", "--name", "--queue", "--limit"],
    "tasks follow": ["--url", "--token"],
    "tasks cancel": ["--terminate", "--no-terminate"],
    "tasks retry": ["--url", "--token"],
    "users": ["create", "password", "disable", "enable", "list"],
    "users create": ["--scope", "--password-stdin"],
    "users password": ["--password-stdin"],
    "users disable": [],
    "users enable": [],
    "users list": [],
    "db upgrade": [],
    "db current": [],
    "records": ["import", "export", "list", "count"],
    "records import": ["--kind", "--user"],
    "records export": ["--kind", "--user"],
    "records list": ["--user", "--limit"],
    "records count": ["--user"],
}
GROUPS = {"db", "keys", "records", "tasks", "users"}


def run(module: str, *arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module`` on a wide screen that knows no colours."""
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    surroundings = inherited | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=surroundings,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (APP, ["demo", "serve", "catalogue", "config", "db", "records", "python -m app demo"]),
        (WORKERS, ["--queues", "--slots", "--processes", "--burst", "--cron", "--no-cron", "Examples"]),
    ],
)
def test_help_teaches_what_the_program_can_do(module: str, named: list[str]) -> None:
    answer = run(module, "--help")

    assert answer.returncode == 0, answer.stderr
    assert [word for word in named if word not in answer.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_its_options_and_gives_an_example(command: str) -> None:
    answer = CliRunner(env={"COLUMNS": "200"}).invoke(cli, [*command.split(), "--help"])

    assert answer.exit_code == 0, answer.output
    assert [word for word in COMMANDS[command] if word not in answer.output] == []
    assert command in GROUPS or "Example" in answer.output


def test_every_command_is_looked_at() -> None:
    assert {command.name for command in cli.registered_commands} <= COMMANDS.keys()


def test_help_waits_for_no_library_that_only_a_command_needs() -> None:
    program = "import app.cli, sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert not {"aiohttp", "alembic", "numpy", "pydantic", "redis", "sqlalchemy"} & set(loaded.stdout.split())


def test_the_api_process_loads_no_numerical_library() -> None:
    program = "import app.__main__, app.api.server, sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert not {"numpy", "ruptures", "scipy", "workers"} & set(loaded.stdout.split())


def test_a_worker_process_loads_no_library_that_only_some_jobs_or_the_api_need() -> None:
    program = "import workers.__main__, sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    needless = {"aiohttp", "alembic", "cryptography.hazmat", "jwt", "numpy", "prometheus_client", "rich"}
    assert not needless & set(loaded.stdout.split())


def test_a_kind_stays_whole_on_a_narrow_screen() -> None:
    narrow = io.StringIO()

    Console(width=80, file=narrow).print(_table(load_catalogue()))

    shown = narrow.getvalue().split()
    assert [job_type.kind for job_type in load_catalogue() if job_type.kind not in shown] == []


def test_the_catalogue_shows_every_job_type_with_its_route() -> None:
    shown = run(APP, "catalogue").stdout

    for job_type in load_catalogue():
        (line,) = [line for line in shown.splitlines() if f"│ {job_type.kind} " in line]
        assert f"│ {job_type.route} " in line
        assert f"│ {job_type.queue} " in line


def test_config_shows_every_setting_in_force_and_no_secret() -> None:
    shown = run(
        APP,
        "config",
        PORT="8123",
        ADMIN_API_KEY="secret-1",
        API_KEYS="ada=secret-2,ben=secret-3",
        REDIS_URL="rediss://:secret-4@cache.example:6380/2",
        DATABASE_URL="postgresql+asyncpg://jobs:secret-5@db.example/jobs?password=secret-6",
    ).stdout

    assert [name for name in Settings.model_fields if not re.search(rf"^ {name.upper()} ", shown, re.MULTILINE)] == []
    assert "8123" in shown
    assert "ada=********,ben=********" in shown
    assert "rediss://:********@cache.example:6380/2" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("command", [["config"], ["serve"], ["db", "current"]])
def test_a_setting_that_will_not_do_is_named_in_one_line(command: list[str]) -> None:
    answer = run(APP, *command, PORT="eighty", API_KEYS="hush-hush")

    assert answer.returncode == 2
    assert answer.stderr.startswith("error: PORT: ")
    assert "API_KEYS" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "hush-hush" not in answer.stderr


def test_db_says_where_the_schema_stands_and_brings_it_up_to_date(tmp_path: Path) -> None:
    place = {"DATA_DIR": str(tmp_path / "new"), "DATABASE_URL": ""}

    before, upgraded, again, after = (
        run(APP, "db", command, **place) for command in ("current", "upgrade", "upgrade", "current")
    )

    assert (before.returncode, "database: empty" in before.stdout) == (1, True)
    assert (upgraded.returncode, "Upgraded: empty → " in upgraded.stdout) == (0, True)
    assert (again.returncode, "already" in again.stdout) == (0, True)
    assert after.returncode == 0


def test_a_database_that_does_not_answer_is_one_line() -> None:
    answer = run(APP, "db", "current", DATABASE_URL="postgresql+asyncpg://nobody@127.0.0.1:1/nothing")

    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1


def _alone(directory: Path) -> dict[str, str]:
    """Name a directory for the database, no Redis, and a port that nobody may take."""
    nowhere = f"redis://127.0.0.1:{free_port()}"
    return {"DATA_DIR": str(directory), "DATABASE_URL": "", "REDIS_URL": nowhere, "PORT": "1"}


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        answer = run(APP, "serve", "--port", port, **_alone(tmp_path), LOG_LEVEL="ERROR")

    assert answer.returncode == 2
    assert answer.stderr.strip().splitlines()[-1].startswith(f"error: The API cannot listen on 127.0.0.1:{port}: ")


async def test_serve_listens_where_its_options_say_and_ends_in_order(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | _alone(tmp_path) | {"HOST": "192.0.2.1"}

    def answer() -> bytes | None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                return bytes(response.read())
        except OSError:
            return None

    argv = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "api.log").open("wb") as log:
        api = start_child(argv, cwd=ROOT, env=environment, stderr=log)
    try:
        assert await eventually(answer, within=30)
    finally:
        assert stop_child(api) == 0
