"""Archives on the disk, below ``ARCHIVE_ROOT``: written under another name, synced, then renamed."""

import asyncio
import os
from pathlib import Path, PurePosixPath

from app.errors import Discard
from app.failpoints import failpoint
from workers.families.maintenance.archive import PARTIAL, PENDING, Kept, Manifest


class Directory:
    """A directory below the root; folders are relative to the root."""

    def __init__(self, root: Path, location: str) -> None:
        self._root = root
        self._location = PurePosixPath(location).as_posix()
        if not (root / location).resolve().is_relative_to(root.resolve()):
            raise Discard(f"The archive location {location!r} leads out of ARCHIVE_ROOT; name a directory inside it.")

    async def find_pending(self) -> list[Kept]:
        """Look everywhere below the root."""
        return await asyncio.to_thread(self._find_pending)

    async def write(self, content: bytes, manifest: Manifest) -> Kept:
        """Write a file and its pending manifest; both are on the disk when this returns."""
        return await asyncio.to_thread(self._write, content, manifest)

    async def read(self, kept: Kept) -> bytes:
        """Read a file again."""
        return await asyncio.to_thread((self._root / kept.file).read_bytes)

    async def finish(self, kept: Kept) -> None:
        """Rename the manifest."""
        await asyncio.to_thread(self._finish, kept)

    def _find_pending(self) -> list[Kept]:
        pending = []
        for path in sorted(self._root.rglob(f"*{PENDING}")):
            folder = path.parent.relative_to(self._root).as_posix()
            found = Kept(folder=folder, manifest=Manifest.model_validate_json(path.read_bytes()))
            if (self._root / found.file).exists():
                pending.append(found)
            else:
                path.unlink()
        for path in self._root.rglob(f"*{PARTIAL}"):
            path.unlink()
        return pending

    def _write(self, content: bytes, manifest: Manifest) -> Kept:
        kept = Kept(folder=self._location, manifest=manifest)
        directory = self._root / self._location
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / f"next{PARTIAL}"
        _write_synced(draft, content)
        failpoint("archive_written")
        description = directory / f"manifest{PARTIAL}"
        _write_synced(description, manifest.model_dump_json(indent=2).encode())
        description.rename(self._root / kept.manifest_file(PENDING))
        _sync(directory)
        failpoint("archive_described")
        draft.rename(self._root / kept.file)
        _sync(directory)
        failpoint("archive_stored")
        return kept

    def _finish(self, kept: Kept) -> None:
        (self._root / kept.manifest_file(PENDING)).rename(self._root / kept.manifest_file())
        _sync(self._root / kept.folder)


def _write_synced(path: Path, content: bytes) -> None:
    half = len(content) // 2
    with path.open("wb", buffering=0) as file:
        file.write(content[:half])
        failpoint("archive_half_written")
        file.write(content[half:])
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make renames durable: they are changes of the directory."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
