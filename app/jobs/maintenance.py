"""The maintenance family: archives, database upkeep, cache and retention, as anybody may know them. No I/O."""

import re
from enum import StrEnum
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from app.jobs.contract import LIGHT, Family, JobType, RetryPolicy, TaskType
from app.jobs.fields import Days, Hours, Model, Moment, Params, Result

S3_SCHEME = "s3://"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()-]+)*")  # by S3's rules, safe keys


def _local_or_in_a_bucket(location: str) -> str:
    if location.startswith(S3_SCHEME):
        if not _BUCKET.fullmatch(location) or "/../" in f"{location}/" or "/./" in f"{location}/":
            raise ValueError("an archive in S3 is s3://bucket/prefix, of letters, digits and !_.*'()- between slashes")
        if find_spec("aiobotocore") is None:
            raise ValueError("archives in S3 need the extra 's3', which is not installed: asyncjobs-service[s3]")
        return location
    if _SCHEME.match(location):
        raise ValueError("archives go to a local directory below ARCHIVE_ROOT or to s3://bucket/prefix")
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or "\\" in location:
        raise ValueError("this is a directory relative to ARCHIVE_ROOT, without '..' and backslashes")
    return location


Location = Annotated[str, Field(strict=True, min_length=1, max_length=255), AfterValidator(_local_or_in_a_bucket)]
Flag = Annotated[bool, Field(strict=True)]


class ArchiveAuditLogsParams(Params):
    """Move old audit entries out of the database into compressed files."""

    days_to_keep: Days = 90
    """Entries younger than this many days stay in the database."""
    archive_location: Location = "audit"
    """The directory to write to, relative to ``ARCHIVE_ROOT``; or ``s3://bucket/prefix``."""


class Archive(Model):
    """One archive file, of which the manifest beside it says the same."""

    file: str
    """The gzip file of one JSON entry a line, relative to ``ARCHIVE_ROOT``; in a bucket with ``s3://``."""
    manifest: str
    """Its manifest, named likewise."""
    count: int
    """How many entries it holds."""
    sha256: str
    """The SHA-256 of the file, as ``sha256sum`` tells it."""
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


class ArchiveAuditLogsResult(Result):
    """What was archived; the entries are gone from the database."""

    days_to_keep: int
    """As asked."""
    archive_location: str
    """As asked."""
    cutoff: Moment
    """Entries from before this were archived."""
    archived_count: int
    """Entries that are in an archive and no longer in the database because of this run."""
    resumed_count: int
    """How many of them a run before this one had written, and was stopped before it had deleted them."""
    bytes_written: int
    """The size of all files of this run."""
    archives: tuple[Archive, ...]
    """The files, oldest entries first; at most 500 are listed."""
    archives_omitted: int
    """How many more there are."""
    archive_timestamp: Moment
    """When the job started."""


class MaintenanceLevel(StrEnum):
    """How thorough the upkeep of the database is."""

    LIGHT = "light"
    """Renew the statistics that queries are planned by."""
    STANDARD = "standard"
    """Also give free space back and build the indexes anew."""
    HEAVY = "heavy"
    """Also what takes long or locks tables: a full vacuum, or a check of every page."""


class MaintainDatabaseParams(Params):
    """Look after the database."""

    maintenance_level: MaintenanceLevel = MaintenanceLevel.LIGHT
    """How thorough to be."""


class PerformedOperation(Model):
    """One statement of the upkeep."""

    operation: str
    """What was done, in SQL's own words."""
    duration_s: float
    """How long it took, in seconds."""
    detail: str | None
    """What the database said, when it says something."""


class MaintainDatabaseResult(Result):
    """What was done to the database."""

    maintenance_level: MaintenanceLevel
    """As asked."""
    dialect: str
    """``sqlite`` or ``postgresql``."""
    operations: tuple[PerformedOperation, ...]
    """In the order they were done."""
    tables: int
    """Tables of the service, by the database's catalogue."""
    indexes: int
    """Indexes of these tables, by the database's catalogue."""
    bytes_before: int
    """The size of the database, without SQLite's write-ahead log."""
    bytes_after: int
    """The same afterwards."""
    bytes_freed: int
    """The difference; less than 0 when it grew meanwhile."""
    maintenance_timestamp: Moment
    """When the job started."""


class CleanupCacheParams(Params):
    """Empty the service's own cache in Redis."""

    max_age_hours: Hours = 24
    """An entry that nobody used for this long has expired."""
    cleanup_expired_only: Flag = True
    """Whether only expired entries go; otherwise all do."""


class CleanupCacheResult(Result):
    """What went out of the cache."""

    max_age_hours: int
    """As asked."""
    cleanup_expired_only: bool
    """As asked."""
    keys_scanned: int
    """Entries that were looked at."""
    keys_removed: int
    """Entries that were removed."""
    bytes_freed: int
    """The memory that they took, as Redis measures it."""
    cleanup_timestamp: Moment
    """When the job started."""


class RetentionPolicy(Model):
    """For how many days things are kept; what is left out is not touched."""

    ari_snapshots: Days | None = None
    """ARI snapshots, by their time."""
    audit_logs: Days | None = None
    """Audit entries, by their time; they are archived before they go."""
    failed_tasks: Days | None = None
    """Failed tasks and their attempts, by their end."""
    completed_tasks: Days | None = None
    """Completed tasks and their attempts, by their end."""
    cancelled_tasks: Days | None = None
    """Cancelled tasks and their attempts, by their end."""
    temp_files: Days | None = None
    """Files below ``TEMP_DIR``, by their last change."""


DEFAULT_POLICY = RetentionPolicy(
    ari_snapshots=365, audit_logs=90, failed_tasks=30, completed_tasks=14, cancelled_tasks=14, temp_files=7
)


class EnforceRetentionPolicyParams(Params):
    """Delete what has been kept for long enough."""

    policy: RetentionPolicy | None = None
    """What to delete after how many days, instead of the default policy."""


class Enforced(Model):
    """What one line of the policy did."""

    days: int
    """For how many days these are kept."""
    cutoff: Moment
    """What is from before this went."""
    deleted: int
    """How many went."""
    bytes: int | None
    """The size of the files that went; null for rows, whose space ``maintain_database`` gives back."""


class EnforceRetentionPolicyResult(Result):
    """What was deleted."""

    policy: dict[str, int]
    """The policy that was enforced, in days."""
    enforced: dict[str, Enforced]
    """What each line of it did."""
    total_deleted: int
    """How many rows and files went."""
    bytes_freed: int
    """The size of all files that went."""
    archives: tuple[Archive, ...]
    """Where the audit entries went; at most 500 are listed."""
    retention_timestamp: Moment
    """When the job started."""


def _aliases(name: str) -> tuple[str, ...]:
    return (name, f"ai_pal.tasks.maintenance_tasks.{name}", f"backend.app.tasks.{name}")


archive_audit_logs = JobType(
    kind="maintenance.archive_audit_logs",
    summary="Move old audit entries into verified, compressed files.",
    params=ArchiveAuditLogsParams,
    result=ArchiveAuditLogsResult,
    queue="maintenance",
    task_type=TaskType.MAINTENANCE,
    priority=3,
    max_priority=5,
    retry=RetryPolicy(max_retries=2, base_s=60.0),
    aliases=_aliases("archive_audit_logs"),
    is_admin_only=True,
)
maintain_database = JobType(
    kind="maintenance.maintain_database",
    summary="Renew the database's statistics, give space back, rebuild and check it.",
    params=MaintainDatabaseParams,
    result=MaintainDatabaseResult,
    queue="maintenance",
    task_type=TaskType.MAINTENANCE,
    priority=3,
    max_priority=5,
    retry=RetryPolicy(max_retries=1, base_s=120.0),
    aliases=_aliases("maintain_database"),
    is_admin_only=True,
)
cleanup_cache = JobType(
    kind="maintenance.cleanup_cache",
    summary="Remove expired entries from the service's own cache.",
    params=CleanupCacheParams,
    result=CleanupCacheResult,
    queue="maintenance",
    task_type=TaskType.MAINTENANCE,
    priority=3,
    max_priority=5,
    retry=RetryPolicy(max_retries=2, base_s=30.0),
    limits=LIGHT,
    aliases=_aliases("cleanup_cache"),
    is_admin_only=True,
)
enforce_retention_policy = JobType(
    kind="maintenance.enforce_retention_policy",
    summary="Delete records, ended tasks and temporary files that were kept for long enough.",
    params=EnforceRetentionPolicyParams,
    result=EnforceRetentionPolicyResult,
    queue="maintenance",
    task_type=TaskType.MAINTENANCE,
    priority=3,
    max_priority=5,
    retry=RetryPolicy(max_retries=1, base_s=120.0),
    aliases=_aliases("enforce_retention_policy"),
    is_admin_only=True,
)

FAMILY = Family(
    name="maintenance",
    summary="Keeping the installation small, sound and tidy.",
    job_types=(archive_audit_logs, maintain_database, cleanup_cache, enforce_retention_policy),
)
