"""The archive as files: written whole, described by a manifest, and read again before anybody relies on it.

One batch of entries becomes ``NAME.jsonl.gz`` and ``NAME.manifest.json``. Until the entries are deleted the
manifest is called ``NAME.pending.json``: by that a run finds what the one before it had no time to finish. Blocking
calls; they belong into a thread.
"""

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import orjson

from app.errors import Discard
from app.failpoints import failpoint
from app.jobs.fields import Model, Moment
from app.records.audit_entries import AUDIT_ENTRIES, AuditEntry

DATA, MANIFEST, PENDING, PARTIAL = ".jsonl.gz", ".manifest.json", ".pending.json", ".partial"


class Manifest(Model):
    """What an archive file holds, and how to tell that it is whole."""

    file: str
    """The name of the file beside it."""
    count: int
    """How many entries it holds, one a line."""
    sha256: str
    """Of the file as it is."""
    bytes: int
    """The size of the file."""
    first_id: str
    """The id of its oldest entry."""
    last_id: str
    """The id of its newest entry."""
    first_at: Moment
    """The time of its oldest entry."""
    last_at: Moment
    """The time of its newest entry."""

    @property
    def stem(self) -> str:
        """The name that file and manifest share."""
        return self.file.removesuffix(DATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An archive file on the disk, and where."""

    directory: Path
    manifest: Manifest

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.directory / self.manifest.file

    def manifest_file(self, suffix: str = MANIFEST) -> Path:
        """Return where its manifest is, once its entries are deleted, or with another suffix."""
        return self.directory / f"{self.manifest.stem}{suffix}"


def open_directory(root: Path, location: str) -> Path:
    """Make the directory of an archive and return it; raise Discard if a link leads out of the root."""
    directory = root / location
    if not directory.resolve().is_relative_to(root.resolve()):
        raise Discard(f"The archive location {location!r} leads out of ARCHIVE_ROOT; name a directory inside it.")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def find_pending(root: Path) -> list[Written]:
    """Return what earlier runs wrote, anywhere below the root, and were stopped before they had deleted.

    What they left half done is cleared away; a manifest without its file is, for nothing was deleted yet.
    """
    pending = []
    for path in sorted(root.rglob(f"*{PENDING}")):
        found = Written(directory=path.parent, manifest=Manifest.model_validate_json(path.read_bytes()))
        if found.file.exists():
            pending.append(found)
        else:
            path.unlink()
    for path in root.rglob(f"*{PARTIAL}"):
        path.unlink()
    return pending


def write_batch(directory: Path, rows: Sequence[dict[str, Any]]) -> Written:
    """Write rows as one archive file with a pending manifest; both are on the disk when this returns."""
    entries = AUDIT_ENTRIES.batch.validate_python(rows)
    draft = directory / f"next{PARTIAL}"
    _write(draft, entries)
    failpoint("archive_written")
    manifest = _describe(draft, entries)
    written = Written(directory=directory, manifest=manifest)
    _replace(written.manifest_file(PENDING), manifest.model_dump_json(indent=2).encode())
    failpoint("archive_described")
    draft.rename(written.file)
    _sync(directory)
    failpoint("archive_renamed")
    return written


def verify(written: Written) -> list[str]:
    """Read an archive file again from the disk; return its ids, or raise Discard if its manifest says otherwise."""
    manifest = written.manifest
    with written.file.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != manifest.sha256:
        raise Discard(f"{manifest.file} is not what its manifest says; nothing more was deleted. Look at it by hand.")
    ids = list(_ids(written.file))
    if (len(ids), ids[0], ids[-1]) != (manifest.count, manifest.first_id, manifest.last_id):
        raise Discard(f"{manifest.file} holds other entries than its manifest says; nothing more was deleted.")
    failpoint("archive_verified")
    return ids


def finish(written: Written) -> None:
    """Give the manifest its final name: the entries are in the archive alone."""
    written.manifest_file(PENDING).rename(written.manifest_file())
    _sync(written.directory)


def _write(path: Path, entries: Sequence[AuditEntry]) -> None:
    with path.open("wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
            for number, entry in enumerate(entries):
                packed.write(entry.model_dump_json(exclude_none=True).encode() + b"\n")
                if number == len(entries) // 2:
                    failpoint("archive_half_written")
        raw.flush()
        os.fsync(raw.fileno())


def _describe(draft: Path, entries: Sequence[AuditEntry]) -> Manifest:
    first, last = entries[0], entries[-1]
    with draft.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    name = f"{AUDIT_ENTRIES.name}-{first.timestamp:%Y%m%dT%H%M%SZ}-{digest[:12]}{DATA}"
    return Manifest(
        file=name,
        count=len(entries),
        sha256=digest,
        bytes=draft.stat().st_size,
        first_id=first.entry_id,
        last_id=last.entry_id,
        first_at=first.timestamp,
        last_at=last.timestamp,
    )


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + PARTIAL)
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make renames durable: they are changes of the directory."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _ids(path: Path) -> Iterator[str]:
    with gzip.open(path, "rb") as lines:
        for line in lines:
            yield orjson.loads(line)["entry_id"]
