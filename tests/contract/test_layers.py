"""Imports point downwards only, and the contract that says so has teeth."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on ``tree`` in a process of its own: this one has ``app`` imported already."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=tree, capture_output=True, text=True, timeout=50, check=False
    )


def test_imports_point_downwards_only() -> None:
    report = lint(ROOT)

    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("app/errors.py", "import app.log"),
        ("app/processes.py", "import app.settings"),
        ("app/jobs/status.py", "import app.database"),
        ("app/history/rows.py", "import app.queue"),
        ("app/history/rows.py", "import app.records"),
        ("app/history/rows.py", "import app.live"),
        ("app/jobs/status.py", "import arq"),
        ("app/queue/keys.py", "import app.history"),
        ("app/settings.py", "import workers"),
        ("app/api/numbers.py", "import numpy"),
        ("app/unplaced.py", ""),
    ],
)
def test_an_import_that_points_elsewhere_is_refused(importer: str, line: str, tmp_path: Path) -> None:
    for name in ("app", "workers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / importer).open("a") as module:
        module.write(f"\n{line}\n")

    report = lint(tmp_path)

    assert report.returncode == 1
    assert "BROKEN" in report.stdout
