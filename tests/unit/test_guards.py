"""The table of guards fits the tree: what the mutation pass takes out is there, once, and so is the test it names."""

import ast
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

from app.processes import start_child, stop_child
from tests.model.engine_guards import ENGINE_GUARDS
from tests.model.guards import GUARDS
from tests.model.guards_api import API_GUARDS
from tests.model.life_guards import LIFE_GUARDS
from tests.model.mutation import ROOT, Mutant, end_what_runs_in
from tests.model.queue_guards import QUEUE_GUARDS
from tests.model.worker_guards import WORKER_GUARDS

EVERY = (*GUARDS, *QUEUE_GUARDS, *LIFE_GUARDS, *ENGINE_GUARDS, *WORKER_GUARDS, *API_GUARDS)


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: str(mutant.guard))
def test_a_guard_stands_once_in_its_file_and_its_test_exists(mutant: Mutant) -> None:
    file, _, name = mutant.test.partition("::")

    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert not name or name.partition("[")[0] in tests_in(file)


def test_no_two_guards_have_one_name() -> None:
    assert len({mutant.guard for mutant in EVERY}) == len(EVERY)


def test_what_a_mutant_leaves_running_is_ended(tmp_path: Path) -> None:
    inside, outside = tmp_path / "tree" / "deep", tmp_path / "tree-2"
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    inside.mkdir(parents=True)
    outside.mkdir()
    left, other = start_child(argv, cwd=inside), start_child(argv, cwd=outside)
    try:
        end_what_runs_in(tmp_path / "tree")

        assert left.wait(20) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        stop_child(other)


@cache
def tests_in(file: str) -> set[str]:
    """Return the names of the functions of a test file."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
