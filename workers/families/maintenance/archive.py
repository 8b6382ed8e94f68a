"""What an archive is, wherever it is kept: packed entries, and a manifest by which they are told to be whole.

One batch of entries becomes ``NAME.jsonl.gz`` and ``NAME.manifest.json``. Until the entries are deleted the
manifest is called ``NAME.pending.json``, and it is there before the file: by that a run finds what the one before
it had no time to finish.
"""

import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import orjson

from app.errors import Discard
from app.failpoints import failpoint
from app.jobs.fields import Model, Moment
from app.jobs.maintenance import S3_SCHEME
from app.records.audit_entries import AUDIT_ENTRIES
from app.settings import Settings

DATA, MANIFEST, PENDING, PARTIAL = ".jsonl.gz", ".manifest.json", ".pending.json", ".partial"

_PART = 500  # rows read in one call, which lets no other thread in


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
class Kept:
    """An archive file, and in which folder of its place it is kept."""

    folder: str
    manifest: Manifest

    @property
    def file(self) -> str:
        """The file's name with its folder."""
        return f"{self.folder}/{self.manifest.file}"

    def manifest_file(self, suffix: str = MANIFEST) -> str:
        """Return its manifest's name with its folder: once its entries are deleted, or with another suffix."""
        return f"{self.folder}/{self.manifest.stem}{suffix}"


class Place(Protocol):
    """Where archive files are kept. What a method has done is durable when it returns."""

    async def find_pending(self) -> list[Kept]:
        """Return what earlier runs wrote here and were stopped before they had deleted.

        What they left half done is cleared away; a manifest without its file is, for nothing was deleted yet.
        """

    async def write(self, content: bytes, manifest: Manifest) -> Kept:
        """Write a pending manifest, and then the file."""

    async def read(self, kept: Kept) -> bytes:
        """Read a file again from where it is kept."""

    async def finish(self, kept: Kept) -> None:
        """Give the manifest its final name: the entries are in the archive alone."""


@asynccontextmanager
async def open_place(settings: Settings, location: str) -> AsyncIterator[Place]:
    """Open the place that a location names; raise Discard if it will not do."""
    if is_remote(location):
        from workers.families.maintenance.bucket import open_bucket  # noqa: PLC0415  # an extra

        async with open_bucket(settings, location) as bucket:
            yield bucket
    else:
        from workers.families.maintenance.directory import Directory  # noqa: PLC0415  # it imports this module

        yield Directory(settings.archives, location)


def is_remote(location: str) -> bool:
    """Whether a location is not below ``ARCHIVE_ROOT``, where every run looks."""
    return location.startswith(S3_SCHEME)


def pack(rows: Sequence[dict[str, Any]]) -> tuple[bytes, Manifest]:
    """Pack rows as an archive file and describe it; the same rows give the same bytes and name."""
    parts = (rows[at : at + _PART] for at in range(0, len(rows), _PART))
    entries = [entry for part in parts for entry in AUDIT_ENTRIES.batch.validate_python(part)]
    lines = b"".join(entry.model_dump_json(exclude_none=True).encode() + b"\n" for entry in entries)
    content = gzip.compress(lines, compresslevel=6, mtime=0)
    first, last, digest = entries[0], entries[-1], sha256(content).hexdigest()
    manifest = Manifest(
        file=f"{AUDIT_ENTRIES.name}-{first.timestamp:%Y%m%dT%H%M%SZ}-{digest[:12]}{DATA}",
        count=len(entries),
        sha256=digest,
        bytes=len(content),
        first_id=first.entry_id,
        last_id=last.entry_id,
        first_at=first.timestamp,
        last_at=last.timestamp,
    )
    failpoint("archive_packed")
    return content, manifest


def verify(content: bytes, manifest: Manifest) -> list[str]:
    """Return the ids in a file that was read again; raise Discard if its manifest says otherwise."""
    if sha256(content).hexdigest() != manifest.sha256:
        raise Discard(f"{manifest.file} is not what its manifest says; nothing more was deleted. Look at it by hand.")
    ids = [orjson.loads(line)["entry_id"] for line in gzip.decompress(content).splitlines()]
    if (len(ids), ids[0], ids[-1]) != (manifest.count, manifest.first_id, manifest.last_id):
        raise Discard(f"{manifest.file} holds other entries than its manifest says; nothing more was deleted.")
    failpoint("archive_verified")
    return ids
