"""Removing guards: a copy of the tree with one line changed, and the named test that must then be red.

``python -m tests.model [NAME…]`` goes over all of them and prints who survived.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MODEL = "tests/integration/test_status_model.py"

_TREES = ("app", "workers", "tests", "deploy")
_FILES = ("pyproject.toml", ".env.example", "README.md", "Makefile")
_LIMIT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One guard taken out. ``guard`` says what it guards; ``old`` must stand in ``file`` exactly once."""

    guard: str
    file: str
    old: str
    new: str
    test: str = MODEL  # pytest's name of what must be red without the guard
    needs_postgres: bool = False  # SQLite has nothing of the kind


def guarded(file: str, guard: str, old: str, new: str, test: str, *, needs_postgres: bool = False) -> Mutant:
    """Return the mutant of a guard; a test that names no folder is one of integration."""
    where = test if "/" in test else f"tests/integration/{test}"
    return Mutant(guard=guard, file=file, old=old, new=new, test=where, needs_postgres=needs_postgres)


def is_killed(mutant: Mutant) -> bool:
    """Run the named test without the guard; return whether it noticed."""
    with _copy() as tree:
        target = tree / mutant.file
        text = target.read_text()
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.guard}: {mutant.old!r} stands {text.count(mutant.old)} times in {mutant.file}")
        target.write_text(text.replace(mutant.old, mutant.new))
        return _is_red(mutant, tree)


def is_green(mutant: Mutant) -> bool:
    """Run its test on an unchanged copy: one that is red anyway would kill every mutant."""
    with _copy() as tree:
        return not _is_red(mutant, tree)


def _is_red(mutant: Mutant, tree: Path) -> bool:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not chaos" if mutant.needs_postgres else "not chaos and not postgresql",
    ]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree), "MODEL_SCHEDULES": "30"}
    try:
        ended = subprocess.run(
            [*command, mutant.test], cwd=tree, env=environment, capture_output=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True  # it hangs without the guard
    was_run = ended.returncode in {0, 1} or b"KeyboardInterrupt" in ended.stdout or b"SystemExit" in ended.stdout
    if not was_run:
        raise RuntimeError(f"{mutant.test} could not be run: {ended.stdout.decode()[-2000:]}")
    return ended.returncode != 0


@contextmanager
def _copy() -> Iterator[Path]:
    """Offer a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        tree = Path(name)
        for part in filter(lambda part: (ROOT / part).exists(), _TREES):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in _FILES:
            shutil.copy(ROOT / part, tree / part)
        try:
            yield tree
        finally:
            end_what_runs_in(tree)


def end_what_runs_in(tree: Path) -> None:
    """Kill what a test without its guard has left running."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(tree):
                process.kill()
