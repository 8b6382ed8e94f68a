"""Failpoints: named places where a test can end a process as a power cut would.

``FAILPOINT=accepted`` in the environment makes the process kill itself when it first passes that place.
It is read once; in production it is unset, and a failpoint is a comparison.
"""

import os
import signal
from functools import cache


def failpoint(name: str) -> None:
    """Die here, at once and without clean-up, if the environment asks for it."""
    if _armed() == name:
        os.kill(os.getpid(), signal.SIGKILL)


@cache
def _armed() -> str | None:
    return os.environ.get("FAILPOINT")
