"""Model files: arrays in numpy's npz format, written all or not at all, and read only with the right hash."""

import os
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np

from app.errors import Discard, JobNotFound
from workers.families.model.backends import Arrays

SEEN = "seen"  # in every model file: the keys of all examples that it or its ancestors learned from


def write_arrays(path: Path, arrays: Arrays) -> str:
    """Write arrays under this name and return the SHA-256 of the file; the same arrays give the same bytes.

    Whoever looks at ``path`` finds the whole file or the one before, whatever dies meanwhile.
    """
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(sorted(arrays.items())))
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync(path.parent)
    return sha256(content).hexdigest()


def read_arrays(path: Path, expected: str) -> Arrays:
    """Read arrays; raise JobNotFound without a file, Discard when it is not the one with this SHA-256."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise JobNotFound(f"The model's file {path.name} is gone.") from error
    if sha256(content).hexdigest() != expected:
        raise Discard(f"The model's file {path.name} is not the one that was registered: its SHA-256 differs.")
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_seen(path: Path, expected: str) -> frozenset[int]:
    """Return the keys of the examples that a model file has learned from."""
    return frozenset(read_arrays(path, expected)[SEEN].tolist())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
