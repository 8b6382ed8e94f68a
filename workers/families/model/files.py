"""Model files: arrays, as npz or safetensors, written all or not at all, and read only with the right hash.

The ending of the name says which format. What a job has not finished bears the job's mark in its name, so
that its next attempt can clear it away.
"""

import os
import time
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np

from app.errors import Discard, JobNotFound
from workers.families.model.backends import Arrays

NPZ, SAFETENSORS = ".npz", ".safetensors"
PART = ".part"  # in the name of every unfinished file
FORGOTTEN_S = 7 * 86_400  # the unfinished file of a job that was cancelled, say
SEEN = "seen"  # in every model file: the keys of all examples that it or its ancestors learned from


def mark_of(job_id: str) -> str:
    """Return what the names of a job's unfinished files begin with; an id may be any text, and this is not."""
    return sha256(job_id.encode()).hexdigest()[:16] + PART


def clear_unfinished(directory: Path, mark: str, *, spared: Path | None = None) -> None:
    """Delete the unfinished files of one job but the spared one, and those of any that nobody wrote for a week."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if PART not in path.name or path == spared:
            continue
        with suppress(FileNotFoundError):  # somebody else was faster
            if path.name.startswith(mark) or time.time() - path.lstat().st_mtime > FORGOTTEN_S:
                path.unlink()


def write_arrays(path: Path, arrays: Arrays, *, mark: str) -> str:
    """Write arrays under this name and return the SHA-256 of the file; the same arrays give the same bytes.

    Whoever looks at ``path`` finds the whole file or the one before, whatever dies meanwhile.
    """
    content = _packed(path, arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{mark}.{uuid4().hex}")
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
    if path.suffix == SAFETENSORS:
        loaded: Arrays = import_module("safetensors.numpy").load(content)
        return loaded
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_seen(path: Path, expected: str) -> frozenset[int]:
    """Return the keys of the examples that a model file has learned from."""
    return frozenset(read_arrays(path, expected)[SEEN].tolist())


def _packed(path: Path, arrays: Arrays) -> bytes | memoryview:
    ordered = dict(sorted(arrays.items()))
    if path.suffix == SAFETENSORS:
        packed: bytes = import_module("safetensors.numpy").save(ordered)  # the library comes with the extra
        return packed
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **ordered)
    return buffer.getbuffer()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
