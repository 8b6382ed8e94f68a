"""What to type next: commands that work as they are printed. Inside the demo alone."""

import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from app.demo.stage import Stage
from app.settings import Settings


def print_next_steps(console: Console, stage: Stage, *, stays: bool, is_kept: bool) -> None:
    """Print where things are and three commands: for what is up now, or for when it is down again."""
    console.print()
    if stays:
        lines = [
            f"API        {stage.address}",
            f"Admin key  {stage.admin_key}",
            f"Data       {stage.directory} ({'kept' if is_kept else 'removed at the end'})",
        ]
        commands = _commands_while_up(stage)
    else:
        place = f"kept in {stage.directory}" if is_kept else "removed when the processes end; --data-dir keeps them"
        lines = [f"Data       {place}"]
        commands = _commands_afterwards(stage, is_kept=is_kept)
    for line in [*lines, "", "Next, for example:", *(f"  {command}" for command in commands)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if stays:
        console.print("\nCtrl-C stops everything.", highlight=False)


def _commands_while_up(stage: Stage) -> list[str]:
    key = f"-H 'Authorization: Bearer {stage.admin_key}'"
    body = """-H 'Content-Type: application/json' -d '{"parameters": {"wait_seconds": 3, "payload": "hello"}}'"""
    return [
        f"curl -s {key} {body} {stage.address}/api/tasks/system/echo",
        f"curl -s {key} '{stage.address}/api/tasks?limit=3'",
        f"{_with_data_in(stage.directory)} {_python()} -m app records list ari-snapshots --user sample-ben --limit 5",
    ]


def _commands_afterwards(stage: Stage, *, is_kept: bool) -> list[str]:
    look = f"{_with_data_in(stage.directory)} {_python()} -m app records count" if is_kept else None
    return [
        f"{_python()} -m app demo --stay",
        f"{_python()} -m app catalogue",
        look or f"{_python()} -m app --help",
    ]


def _with_data_in(directory: Path) -> str:
    """Return the variables that lead a command to the demo's database, past any that the settings name."""
    return f"{'DATABASE_URL= ' if Settings().database_url else ''}DATA_DIR={shlex.quote(str(directory))}"


def _python() -> str:
    """Return how to call this interpreter from here."""
    path = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if path.startswith("..") else path)
