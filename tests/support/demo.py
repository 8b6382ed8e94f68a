"""The demo as a process, without a terminal and on one, with a directory for its temporary files."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from app.clock import new_id
from app.processes import start_child
from app.settings import Settings

ROOT = Path(__file__).parents[2]
WITHIN_S = 50.0

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class DemoUnderTest:
    """A demo that runs; ``said`` is what it has shown so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: int, temporary: Path) -> None:
        self.process = process
        self.said = ""
        self._output = output
        self._temporary = temporary

    def read_until(self, text: str) -> str:
        """Read on until the demo has shown ``text``; return everything it has shown."""
        deadline = time.monotonic() + WITHIN_S
        while text not in self.said:
            assert time.monotonic() < deadline, f"not shown within {WITHIN_S:.0f} s: {text!r} in {self.said}"
            assert self._read(), f"it ended without {text!r}: {self.said}"
        return self.said

    def finish(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + WITHIN_S
        while self._read():
            assert time.monotonic() < deadline, f"not over within {WITHIN_S:.0f} s: {self.said}"
        return self.process.wait(10)

    def write(self, typed: bytes) -> None:
        """Type on the terminal."""
        os.write(self._output, typed)

    def children(self) -> dict[str, int]:
        """Return the process ids of all it has started itself, by what each is; theirs end a moment after them."""
        found = psutil.Process(self.process.pid).children()
        return {_role(child.cmdline()): child.pid for child in found}

    def temporary_files(self) -> list[Path]:
        """Return what there is of its temporary files."""
        return sorted(self._temporary.iterdir())

    def _read(self) -> bool:
        """Read what there is, waiting a little for it; False at the end."""
        if not select.select([self._output], [], [], 1)[0]:
            return True
        try:
            read = os.read(self._output, 65536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            read = b""
        self.said += _ESCAPES.sub("", read.decode(errors="replace")).replace("\r\n", "\n")
        return bool(read)


@contextmanager
def running_demo(directory: Path, *arguments: str, **environment: str) -> Iterator[DemoUnderTest]:
    """Run ``python -m app demo`` without a terminal; whatever is left of it is killed at the end of the block."""
    temporary, variables = _surroundings(directory, environment)
    process = start_child(
        [sys.executable, "-m", "app", "demo", *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with process.stdout, _killed(process):
        yield DemoUnderTest(process, process.stdout.fileno(), temporary)


@contextmanager
def running_on_terminal(directory: Path, *arguments: str) -> Iterator[DemoUnderTest]:
    """Run ``python -m app demo`` on a terminal of its own, on which Ctrl-C can be typed."""
    temporary, variables = _surroundings(directory, {"TERM": "xterm", "COLUMNS": "140"})
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "demo", *arguments],
        cwd=ROOT,
        env=variables,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # it takes no lock
    )
    os.close(its)
    try:
        with _killed(process):
            yield DemoUnderTest(process, ours, temporary)
    finally:
        os.close(ours)


@contextmanager
def _killed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def _surroundings(directory: Path, given: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    temporary = directory.parent / new_id()[-8:]  # a short path: sockets lie in it, whose names may have 107 characters
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return temporary, inherited | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", **given}


def _role(command: list[str]) -> str:
    """Say what a child of the demo is by its command line."""
    return {"workers": "worker", "app": "API"}.get(command[2], "Redis") if "-m" in command else "Redis"
