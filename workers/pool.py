"""Several worker processes under one parent: started, restarted when they die, stopped together."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from app.log import get_log
from app.processes import start_child

log = get_log()

_LOOK_S = 0.2
_LEAST_LIFE_S = 1.0  # one that dies sooner is not started again at once


class Pool:
    """Keeps ``count`` worker processes alive. Call :meth:`run` in the main thread."""

    def __init__(self, arguments: Sequence[str], count: int) -> None:
        self._command = [sys.executable, "-m", "workers", *arguments]
        self._count = count
        self._children: list[subprocess.Popen[bytes]] = []
        self._is_stopping = False

    def run(self, *, is_burst: bool) -> int:
        """Serve until SIGTERM or SIGINT (or, in burst, until all are done); return the exit code."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._forward)
        self._children = [start_child(self._command) for _ in range(self._count)]
        while any(child.poll() is None for child in self._children):
            time.sleep(_LOOK_S)
            if not (self._is_stopping or is_burst):
                self._children = [self._kept(child) for child in self._children]
        return max((abs(child.returncode) for child in self._children), default=0) if is_burst else 0

    def _kept(self, child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        if child.poll() is None:
            return child
        log.warning("worker_process_died", pid=child.pid, exit_code=child.returncode)
        time.sleep(_LEAST_LIFE_S)
        return start_child(self._command)

    def _forward(self, signum: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signum)
