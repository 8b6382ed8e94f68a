"""Old temporary files: found and deleted inside one directory, never through a link. Blocking calls."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.errors import Discard


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """How many files went, and their bytes."""

    count: int
    size: int


def clear_old_files(directory: Path, cutoff: datetime, *, spared: Iterable[Path]) -> Cleared:
    """Delete the files below ``directory`` that were last changed before ``cutoff``, and directories that empties.

    A link goes itself; what it leads to stays. Raise Discard if one of the ``spared`` paths is the directory
    or lies inside it: the setting is wrong then.
    """
    root = directory.resolve()
    for path in spared:
        if path.resolve().is_relative_to(root):
            raise Discard(f"TEMP_DIR holds {path}, which is not temporary; nothing was deleted there. Set another.")
    count = size = 0
    for folder, _, names in os.walk(root, topdown=False, followlinks=False):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):  # somebody else was faster
                found = path.lstat()
                if found.st_mtime < cutoff.timestamp():
                    path.unlink()
                    count, size = count + 1, size + found.st_size
        _remove_if_empty(Path(folder), root, cutoff)
    return Cleared(count=count, size=size)


def _remove_if_empty(folder: Path, root: Path, cutoff: datetime) -> None:
    # Only one that nobody used lately: it may have been made just now, for a file that is yet to come.
    if folder != root and folder.lstat().st_ctime < cutoff.timestamp():
        with suppress(OSError):
            folder.rmdir()
