"""Processes, seen from outside."""

import subprocess
import sys
import time
from collections.abc import Iterable

import psutil


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; a zombie that nobody has waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def all_end(pids: Iterable[int], *, within_s: float = 10) -> bool:
    """Tell whether these processes end within so many seconds."""
    until = time.monotonic() + within_s
    waiting = list(pids)
    while any(map(is_alive, waiting)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_alive, waiting))


def computing_children(pid: int) -> list[int]:
    """Return the processes that the fork server of a process has started for CPU-bound work, and that still run."""
    return [
        int(child.pid)
        for server in psutil.Process(pid).children()
        if is_alive(server.pid) and "multiprocessing.forkserver" in " ".join(server.cmdline())
        for child in server.children()
        if is_alive(child.pid)
    ]


def kill_parent(program: str) -> int:
    """Run a Python program that prints the pid of its child and waits; SIGKILL it and return that pid."""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    return pid
