"""Work for child processes: functions of a module, as the child has to import them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import JsonValue

from app.errors import Discard, SoftTimeLimitExceeded
from workers.process import Report


def double(report: Report, number: int) -> int:
    """Return twice the number, from a process that says who it is."""
    report.progress(50, "half way", stage="doubling")
    return 2 * number


def identify(_report: Report) -> dict[str, int]:
    """Return what the process is."""
    return {"pid": os.getpid(), "nice": os.nice(0), "group": os.getpgid(0)}


def spin(report: Report, pids: Path, *, deaf: bool = False) -> None:
    """Write down the process id, and compute for ever; deaf to SIGTERM if asked."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids.write_text(str(os.getpid()))
    number = 0
    while True:
        number += 1
        if number % 1_000_000 == 0:
            report.progress(number / 1e7)


def spin_deaf(report: Report, pids: Path) -> None:
    """Compute for ever and do not listen to SIGTERM."""
    spin(report, pids, deaf=True)


def spin_silently(_report: Report, pids: Path) -> None:
    """Compute for ever without a word."""
    pids.write_text(str(os.getpid()))
    wait_for_ever()


def be_partial(report: Report) -> str:
    """Compute until the soft limit, and return what there is."""
    try:
        while True:
            report.progress(10)
    except SoftTimeLimitExceeded:
        report.progress(20)
        return "partial"


def tell_time_left(report: Report) -> float:
    """Return how many seconds there are until the soft limit."""
    return report.time_left_s


def overrun(report: Report) -> None:
    """Compute until the soft limit, and do not mind it."""
    while True:
        report.progress(10)


def grow(report: Report) -> int:
    """Use more memory than any child may, yet no more than every machine has."""
    held: list[bytes] = []
    while len(held) < 64:
        held.append(b"x" * (1 << 24))
        report.progress(len(held) / 100)
        time.sleep(0.02)
    return len(held)


def die(_report: Report, signum: int) -> None:
    """Be killed."""
    os.kill(os.getpid(), signum)


def leave(_report: Report) -> None:
    """End without a word."""
    os._exit(7)


def discard(_report: Report) -> None:
    """Give up on purpose."""
    raise Discard("not worth it")


class OddError(Exception):
    """An error that no pipe can carry."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} is odd, and so is {two}")


def fail_oddly(_report: Report) -> None:
    """Raise what cannot be sent."""
    raise OddError(1, 3)


def count_up(report: Report, place: Path, goal: int) -> list[JsonValue]:
    """Count with a checkpoint after every step, and return where it began and ended.

    A first attempt waits at three, for whoever wants to kill it.
    """
    first = report.restored if isinstance(report.restored, int) else 0
    for number in range(first + 1, goal + 1):
        report.checkpoint(number)
        report.progress(100 * number / goal)
        if first == 0 and number == 3:
            place.write_text(str(os.getpid()))
            wait_for_ever()
    return [first, goal]


def wait_for_ever() -> None:
    """Compute nothing of use."""
    while sum(_naturals()) >= 0:
        pass


def _naturals() -> Iterable[int]:
    return range(1000)


def hold(_report: Report, place: Path) -> int:
    """Write down the process id, and wait until the file is gone."""
    place.write_text(str(os.getpid()))
    while place.exists():
        time.sleep(0.01)
    return os.getpid()


def answer(_report: Report, megabytes: int) -> str:
    """Return a text of that size."""
    return "x" * megabytes * (1 << 20)


def leave_a_child(_report: Report, place: Path) -> None:
    """Start a process, write down its id, and wait for ever."""
    child = subprocess.Popen(["sleep", "600"])
    place.write_text(str(child.pid))
    wait_for_ever()


def tell_oom_score(_report: Report) -> int:
    """Return how readily Linux would end this process for want of memory."""
    return int(Path("/proc/self/oom_score_adj").read_text())
