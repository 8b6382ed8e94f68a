"""Failpoints: named places where a test can end a process as a power cut would.

``FAILPOINT=accepted`` in the environment makes the process kill itself when it first passes that place,
``FAILPOINT=accepted:3`` when it passes it for the third time. It is read once; in production it is unset,
and a failpoint is a comparison.
"""

import os
import signal
from collections import Counter
from functools import cache

_passed: Counter[str] = Counter()  # only of the one that is armed


def failpoint(name: str, *, jobs: int = 1) -> None:
    """Die here, at once and without clean-up, if the environment asks for it; a batch passes once for each job."""
    armed, at = _armed()
    if armed == name:
        _passed[name] += jobs
        if _passed[name] >= at:
            os.kill(os.getpid(), signal.SIGKILL)


@cache
def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get("FAILPOINT", "").partition(":")
    return name, int(count or 1)
