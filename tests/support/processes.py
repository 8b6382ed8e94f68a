"""Processes, seen from outside."""

import subprocess
import sys

import psutil


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; a zombie that nobody has waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_parent(program: str) -> int:
    """Run a Python program that prints the pid of its child and waits; SIGKILL it and return that pid."""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    return pid
