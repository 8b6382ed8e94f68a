"""Child processes that never outlive their parent. Everybody may import it; it imports nothing of the project.

On Linux the kernel kills the child when its parent dies, whatever killed the parent. Other systems promise
nothing of the kind: there a parent that is itself killed with SIGKILL leaves its children running, and one
that ends in order stops them with :func:`stop_child`.
"""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypedDict, Unpack

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST_PORT, _PORTS, _TRIES = 20_000, 12_000, 100


class ChildOptions(TypedDict, total=False):
    """What :func:`start_child` passes on to :class:`subprocess.Popen`."""

    cwd: Path
    env: Mapping[str, str]
    stdin: int | IO[bytes]
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    user: str
    group: str


def start_child(argv: Sequence[str | Path], **options: Unpack[ChildOptions]) -> subprocess.Popen[bytes]:
    """Start ``argv`` as a child that is killed when this process dies.

    Call it from the main thread: Linux watches the thread that forked, so a child of a thread would die
    with that thread; any other thread gets a RuntimeError. The child leads a process group of its own, so
    that Ctrl-C on a terminal reaches the parent alone, which then stops its children in its own order.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start_child must be called from the main thread: its children die with their thread.")
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(
        [os.fspath(part) for part in argv],
        process_group=0,
        preexec_fn=_tie_to(os.getpid()),  # noqa: PLW1509  # it takes no lock that a thread could hold
        **options,
    )


def stop_child(child: subprocess.Popen[bytes], *, grace_s: float = 10) -> int:
    """End a child with SIGTERM, after ``grace_s`` seconds with SIGKILL; return its exit code. Idempotent."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def free_port() -> int:
    """Return a port of loopback for a child to listen on. Raises OSError when 100 of them are all taken.

    It lies below those that systems hand out by themselves (from 32768 on Linux, 49152 elsewhere), so that no
    connection and no listener on "any port" comes upon it before the child does, or while it is started again.
    """
    for _ in range(_TRIES):
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no free port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} in {_TRIES} tries")


def _tie_to(parent: int) -> Callable[[], None] | None:
    """Make what the child calls between fork and exec, or nothing where the system has no such tie."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: dlopen may wait on a lock

    def tie() -> None:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
        if os.getppid() != parent:  # it died between the fork and the line above, which came too late
            os.kill(os.getpid(), signal.SIGKILL)

    return tie
