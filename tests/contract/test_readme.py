"""The README keeps its word: its commands exist, and its example of a job type works as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_make_command_of_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))

    assert {"demo", "test", "bench", "lint"} <= named <= targets


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"^\$ python (-m [\w .]+?)(?: {2,}|$| --| \S+\.)", README, re.M)))
)
def test_every_python_command_of_the_readme_explains_itself(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, *command.split(), "--help"], cwd=ROOT, check=False, capture_output=True, text=True, timeout=30
    )

    assert (shown.returncode, "Usage" in shown.stdout) == (0, True), shown.stderr


def test_the_example_of_a_job_type_is_all_it_takes(tmp_path: Path) -> None:
    for package in ("app", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", README, re.DOTALL)
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    program = """
import asyncio
from app.jobs.catalogue import load_catalogue
from workers.settings import worker_settings

class Context:
    async def progress(self, percent, message):
        pass

catalogue = load_catalogue()
served = worker_settings(catalogue, ["text"])
job_type = catalogue.find("text.count_words")
result = asyncio.run(served.functions[job_type.kind](Context(), job_type.params(text="one two")))
print(served.queues, job_type.route, result.words)
"""

    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=30
    )

    assert [name for name, _ in blocks] == ["app/jobs/text.py", "workers/families/text.py"]
    assert shown.stdout == "('text',) text/count-words 2\n", shown.stderr
