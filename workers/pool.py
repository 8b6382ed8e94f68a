"""Several worker processes under one parent: started, restarted when they die, stopped together."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from types import FrameType

from app.log import get_log
from app.processes import start_child

log = get_log()

PASSED_ON = signal.SIGUSR1  # the parent's word: by another one, a stop that reaches the children too would count twice

REFUSED = 2  # the exit code of a process that cannot work here: another would not, either

_LOOK_S = 0.2
_LEAST_LIFE_S = 1.0  # one that dies sooner is not started again at once


class Pool:
    """Keeps ``count`` processes of ``command`` alive. Call :meth:`run` in the main thread."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = list(command)
        self._count = count
        self._children: list[subprocess.Popen[bytes]] = []
        self._signals = 0  # received
        self._passed_on = Counter[int]()  # how many of them a child, by its pid, has been told

    def run(self, *, is_burst: bool) -> int:
        """Serve until SIGTERM or SIGINT (or, in burst, until all are done); return the exit code.

        A child that refuses to work stops them all.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)
        self._children = [start_child(self._command) for _ in range(self._count)]
        while any(child.poll() is None for child in self._children):
            self._pass_on()
            time.sleep(_LOOK_S)
            if not (self._signals or is_burst):
                self._children = [self._kept(child) for child in self._children]
        codes = [child.returncode for child in self._children]
        if REFUSED in codes:
            return REFUSED
        return max(map(abs, codes)) if is_burst else 0

    def _kept(self, child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        if child.poll() is None:
            return child
        log.warning("worker_process_ended", pid=child.pid, exit_code=child.returncode)
        if child.returncode == REFUSED:
            self._signals = max(self._signals, 1)
            return child
        time.sleep(_LEAST_LIFE_S)
        return child if self._signals else start_child(self._command)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _pass_on(self) -> None:
        """Tell every child of one signal more, if there is one: it may have been started while that came."""
        for child in self._children:
            if self._passed_on[child.pid] < self._signals and child.poll() is None:
                child.send_signal(PASSED_ON)
                self._passed_on[child.pid] += 1
