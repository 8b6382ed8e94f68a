"""A project too hard to be solved in a test's time, and searches that end badly, for child processes."""

import os
import signal
from pathlib import Path

from tests.support.crunching import grow, overrun, spin
from workers.families.ffe.optimizer import Project, Resource, Solution, solve
from workers.process import Report


def hard_project() -> Project:
    """Return 400 tasks that share three scarce resources."""
    many = 400
    return Project(
        durations=tuple(3 + at * 7 % 23 for at in range(many)),
        needs=((),) * many,
        resources=tuple(
            Resource(capacity=10, demands=tuple(1 + (at * step) % 9 for at in range(many))) for step in (5, 7, 11)
        ),
        horizon=10_000,
    )


def search_hard(report: Report, pids: Path, limit_s: float) -> str:
    """Write down the process id, and search for a better order of the hard project; return how that ended."""
    pids.write_text(str(os.getpid()))
    return solve(report, hard_project(), limit_s).verdict.value


def die_searching(_report: Report, _project: Project, _limit_s: float) -> Solution:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def swell_searching(report: Report, _project: Project, _limit_s: float) -> Solution:
    """Use more memory than any child may."""
    grow(report)
    raise AssertionError


def overrun_searching(report: Report, _project: Project, _limit_s: float) -> Solution:
    """Compute until the soft limit, and be ended by it."""
    overrun(report)
    raise AssertionError


def search_for_ever(pids: Path, report: Report, _project: Project, _limit_s: float) -> Solution:
    """Write down the process id, and never come back."""
    spin(report, pids)
    raise AssertionError
