"""A child ends when its parent says so, and when its parent can no longer say anything."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.processes import free_port, start_child, stop_child
from tests.support.processes import is_alive, kill_parent
from tests.support.waiting import eventually

WAITING = "print('up', flush=True); import signal; signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITING}"
PARENT = f"""
import sys
from app.processes import start_child
child = start_child([sys.executable, "-c", {WAITING!r}])
print(child.pid, flush=True)
sys.stdin.read()
"""


def started(program: str) -> subprocess.Popen[bytes]:
    child = start_child([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"up\n"
    return child


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's death")
async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    pid = kill_parent(PARENT)

    await eventually(lambda: not is_alive(pid))


def test_a_child_is_asked_to_end_before_it_is_killed() -> None:
    child = started(WAITING)

    assert stop_child(child) == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed() -> None:
    child = started(STUBBORN)

    assert stop_child(child, grace_s=0.1) == -signal.SIGKILL


def test_stopping_a_child_that_has_ended_returns_its_exit_code() -> None:
    child = start_child([sys.executable, "-c", "raise SystemExit(3)"])
    child.wait()

    assert stop_child(child) == 3


def test_an_interrupt_on_the_terminal_reaches_the_parent_alone() -> None:
    child = started(WAITING)
    try:
        assert os.getpgid(child.pid) != os.getpgid(0)
    finally:
        stop_child(child)


def test_a_child_of_a_thread_is_refused_because_it_would_die_with_the_thread() -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(RuntimeError, match="main thread"):
        threads.submit(start_child, [sys.executable, "-c", ""]).result()


def test_a_free_port_is_one_that_the_system_hands_out_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", 0)) as anybody:
        offers = iter([first - 20_000, 77])
        monkeypatch.setattr("secrets.randbelow", lambda _: next(offers))
        second = free_port()
        assert max(first, second) < anybody.getsockname()[1]

    assert second == 20_077


def test_no_free_port_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        monkeypatch.setattr("secrets.randbelow", lambda _: taken.getsockname()[1] - 20_000)
        with pytest.raises(OSError, match="no free port from 20000 to 31999"):
            free_port()
