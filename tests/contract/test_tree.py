"""The tree holds nothing that belongs to one machine, and nothing that is not meant to be there."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOP_LEVEL = {
    ".ci",
    ".editorconfig",
    ".env.example",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "app",
    "deploy",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements.txt",
    "tests",
    "workers",
}

# Written in parts, so that this file does not hold what it forbids.
MACHINE_PATHS = [
    "/" + "work/(main|shared)",
    "/" + r"root/(?!\.cache)",
    "/" + r"home/\w",
    "/" + r"Users/\w",
    "/" + "opt/(pypi|wheels)",
    r"\.\./" + "shared",
]
REGISTRY_HOSTS = [
    r"pypi\." + "org",
    r"python" + r"hosted\.org",
    r"npm" + r"js\.(org|com)",
    r"deb\." + r"debian\.org",
]
FORBIDDEN_TEXT = re.compile("|".join(MACHINE_PATHS + REGISTRY_HOSTS))

LOADS_ANYTHING = {"pickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "shelve"}


def tree() -> list[Path]:
    """Return every file that is, or would be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    names = filter(None, listing.stdout.decode().split("\0"))
    return [path for path in map(ROOT.joinpath, names) if path.is_file()]


def test_no_file_names_a_path_of_one_machine_or_the_host_of_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {hit.group()}"
        for path in tree()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (hit := FORBIDDEN_TEXT.search(line))
    ]

    assert not found


def test_nothing_in_the_product_imports_what_loads_code_from_bytes() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in tree()
        if path.suffix == ".py" and "tests" not in path.relative_to(ROOT).parts  # tests make the bombs
        for module in imported_modules(ast.parse(path.read_text()))
        if module.partition(".")[0] in LOADS_ANYTHING
    ]

    assert not found


def test_the_top_level_holds_what_it_is_meant_to_hold() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tree()} <= TOP_LEVEL


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    requirements = re.split(r"\n(?=\w)", (ROOT / name).read_text())[1:]

    assert requirements
    assert [
        text.splitlines()[0] for text in requirements if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", text, re.S)
    ] == []


def test_the_development_requirements_pin_what_the_service_runs_on() -> None:
    runtime, development = (pins(ROOT / name) for name in ("requirements.txt", "requirements-dev.txt"))

    assert runtime <= development


def imported_modules(module: ast.Module) -> set[str]:
    """Return the names a module imports, wherever in it."""
    names = {alias.name for node in ast.walk(module) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and node.module}


def pins(path: Path) -> set[str]:
    """Return ``name==version`` and marker of each requirement."""
    return {line.rstrip(" \\") for line in path.read_text().splitlines() if re.match(r"[\w.-]+==", line)}
