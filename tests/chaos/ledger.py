"""The ledger: what clients and jobs saw, one JSON line an entry, so written that no kill loses a line.

A line goes to the kernel in one write to a file opened for appending: it is whole or absent, and several
processes may share the file. The page cache outlives a SIGKILL.
"""

import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

ENVIRONMENT = "CHAOS_LEDGER"  # names the file to the processes that run jobs


def write_entry(path: Path, what: str, **facts: object) -> None:
    """Append one entry, with the moment in seconds since the epoch."""
    os.write(_opened(path), orjson.dumps({"what": what, "at": time.time(), **facts}) + b"\n")


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every entry in the order written."""
    if path.exists():
        with path.open("rb") as lines:
            yield from (orjson.loads(line) for line in lines)


def count_entries(path: Path) -> int:
    """Count the entries written so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@cache
def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
