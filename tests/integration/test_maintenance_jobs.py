"""The maintenance jobs on real stores: what goes, what stays, and what is told of it."""

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import utc_now
from app.errors import Conflict, Discard
from app.history.rows import NewJob
from app.history.tables import attempts, jobs
from app.history.turns import sole_turn
from app.installation import Installation, open_installation
from app.jobs.maintenance import (
    ArchiveAuditLogsParams,
    ArchiveAuditLogsResult,
    CleanupCacheParams,
    EnforceRetentionPolicyParams,
    EnforceRetentionPolicyResult,
    MaintainDatabaseParams,
    MaintenanceLevel,
    RetentionPolicy,
)
from app.jobs.status import Status
from app.orders import Order
from app.queue import keys
from app.records.ari_snapshots import ARI_SNAPSHOTS, AriSnapshot
from app.records.audit_entries import AUDIT_ENTRIES, AuditEntry
from app.records.ingest import read_records
from app.settings import Settings
from tests.support.house import new_job
from tests.support.run import NOW, context_of
from tests.support.workplace import drain, make_worker, row
from workers.families.maintenance import (
    archive_audit_logs,
    archiving,
    cleanup_cache,
    enforce_retention_policy,
    maintain_database,
)
from workers.families.maintenance.archive import Kept
from workers.families.maintenance.directory import Directory
from workers.settings import worker_settings

HEAVY = MaintainDatabaseParams(maintenance_level=MaintenanceLevel.HEAVY)

both = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings) as installation:
        yield installation


def entry(number: int, days_ago: float) -> AuditEntry:
    return AuditEntry.model_validate(
        {
            "entry_id": f"e{number:06}",
            "user_id": None if number % 3 else "ada",
            "timestamp": NOW - timedelta(days=days_ago, seconds=-number),
            "event_type": "login",
            "action": f"signed in for the {number}th time",
            "details": {"n": number, "nested": {"ä": [1, 2.5, None]}},
        }
    )


async def store(house: Installation, *entries: AuditEntry) -> None:
    await house.records.upsert(AUDIT_ENTRIES, entries)


async def stored(house: Installation) -> list[str]:
    page = await house.records.page(AUDIT_ENTRIES, limit=10_000)
    return sorted(found.entry_id for found in page.records)


def archived(house: Installation) -> list[str]:
    """Return the ids in all archive files, one for each time it is there."""
    return sorted(name for path in house.settings.archives.rglob("*.jsonl.gz") for name in ids_in(path))


def ids_in(path: Path) -> list[str]:
    return [json.loads(line)["entry_id"] for line in gzip.decompress(path.read_bytes()).splitlines()]


async def archive(house: Installation, **params: Any) -> ArchiveAuditLogsResult:
    return await archive_audit_logs(context_of(house), ArchiveAuditLogsParams(**params))


# --- archive -----------------------------------------------------------------------------------


@both
async def test_old_entries_move_into_files_that_their_manifests_describe(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_BATCH", 20)
    monkeypatch.setattr(archiving, "_PAGE", 10)
    await store(house, *(entry(number, 100) for number in range(45)), entry(99, 10))

    result = await archive(house)

    assert (result.archived_count, result.resumed_count, result.archives_omitted) == (45, 0, 0)
    assert [found.count for found in result.archives] == [20, 20, 5]
    assert await stored(house) == ["e000099"]
    assert archived(house) == [f"e{number:06}" for number in range(45)]
    for found in result.archives:
        file, manifest = house.settings.archives / found.file, house.settings.archives / found.manifest
        told = json.loads(manifest.read_bytes())
        assert hashlib.sha256(file.read_bytes()).hexdigest() == told["sha256"] == found.sha256
        assert (file.stat().st_size, told["count"]) == (found.bytes, found.count)
        ids = ids_in(file)
        assert (ids[0], ids[-1]) == (found.first_id, found.last_id) == (told["first_id"], told["last_id"])
    assert {path.suffix for path in house.settings.archives.rglob("*.*")} == {".gz", ".json"}


@both
async def test_an_archive_can_be_imported_again_as_it_was(house: Installation) -> None:
    entries = [entry(number, 100) for number in range(5)]
    await store(house, *entries)

    result = await archive(house)

    (chunk,) = read_records(AUDIT_ENTRIES, house.settings.archives / result.archives[0].file)
    assert chunk.error_count == 0
    assert chunk.records == entries


async def test_no_old_entries_make_no_file(house: Installation) -> None:
    await store(house, entry(1, 10))

    result = await archive(house)

    assert (result.archived_count, result.archives, result.bytes_written) == (0, (), 0)
    assert await stored(house) == ["e000001"]


async def test_fewer_days_to_keep_archive_more(house: Installation) -> None:
    await store(house, entry(1, 100), entry(2, 50), entry(3, 5))

    first = await archive(house, days_to_keep=90)
    second = await archive(house, days_to_keep=30)

    assert (first.archived_count, second.archived_count) == (1, 1)
    assert archived(house) == ["e000001", "e000002"]


async def test_a_second_run_finds_nothing_and_doubles_nothing(house: Installation) -> None:
    await store(house, entry(1, 100))
    await archive(house)

    again = await archive(house)

    assert (again.archived_count, again.archives) == (0, ())
    assert archived(house) == ["e000001"]


async def test_a_damaged_archive_deletes_nothing(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(house, entry(1, 100))

    async def damaged(self: Directory, kept: Kept) -> bytes:
        return (self._root / kept.file).read_bytes()[:-1]

    monkeypatch.setattr(Directory, "read", damaged)

    with pytest.raises(Discard, match="is not what its manifest says"):
        await archive(house)

    assert await stored(house) == ["e000001"]


async def test_a_link_that_leads_out_of_the_root_is_refused(house: Installation, tmp_path: Path) -> None:
    await store(house, entry(1, 100))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    house.settings.archives.mkdir()
    (house.settings.archives / "audit").symlink_to(elsewhere)

    with pytest.raises(Discard, match="leads out of ARCHIVE_ROOT"):
        await archive(house)

    assert list(elsewhere.iterdir()) == []
    assert await stored(house) == ["e000001"]


@both
async def test_of_two_archives_at_once_one_is_told_to_come_again(house: Installation) -> None:
    await store(house, entry(1, 100))

    async with sole_turn(house.database, archiving.TURN):
        with pytest.raises(Conflict, match="Another job is at the archive"):
            await archive(house)

    assert (await archive(house)).archived_count == 1


# --- database ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("level", MaintenanceLevel)
async def test_every_level_leaves_the_data_as_it_was_and_times_its_steps(
    house: Installation, level: MaintenanceLevel
) -> None:
    await store(house, *(entry(number, 1) for number in range(50)))

    result = await maintain_database(context_of(house), MaintainDatabaseParams(maintenance_level=level))

    names = [step.operation for step in result.operations]
    expected = {
        MaintenanceLevel.LIGHT: {"ANALYZE"},
        MaintenanceLevel.STANDARD: {"ANALYZE", "VACUUM", "REINDEX"},
        MaintenanceLevel.HEAVY: {"ANALYZE", "VACUUM", "REINDEX"}
        | ({"VACUUM FULL"} if result.dialect == "postgresql" else set(names) - {"VACUUM FULL"}),
    }
    assert set(names) == expected[level]
    assert all(step.duration_s >= 0 for step in result.operations)
    assert result.bytes_freed == result.bytes_before - result.bytes_after
    assert result.tables == len(await _tables(house))
    assert result.indexes > 0
    assert len(await stored(house)) == 50


async def _tables(house: Installation) -> list[str]:
    async with house.database.read() as connection:
        return await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())


async def test_a_heavy_upkeep_of_sqlite_checks_every_page_and_empties_the_log(house: Installation) -> None:
    result = await maintain_database(context_of(house), HEAVY)

    details = {step.operation: step.detail for step in result.operations}
    assert details["integrity_check"] == "ok"
    assert details["wal_checkpoint(TRUNCATE)"] == "ok"


@both
async def test_a_vacuum_gives_back_the_space_of_what_was_deleted(house: Installation) -> None:
    await store(house, *(entry(number, 1) for number in range(5000)))
    async with house.database.write() as connection:
        await connection.execute(sa.delete(AUDIT_ENTRIES.table))

    result = await maintain_database(context_of(house), HEAVY)

    assert result.bytes_freed > 500_000


@both
async def test_one_upkeep_runs_at_a_time_and_a_dead_one_holds_up_nobody(house: Installation) -> None:
    async with sole_turn(house.database, "upkeep"):
        with pytest.raises(Conflict):
            await maintain_database(context_of(house), MaintainDatabaseParams())

    assert (await maintain_database(context_of(house), MaintainDatabaseParams())).operations


@both
async def test_writers_go_on_after_an_upkeep_beside_them(house: Installation) -> None:
    upkeep = maintain_database(context_of(house), HEAVY)
    writes = (store(house, entry(number, 1)) for number in range(20))

    await asyncio.gather(upkeep, *writes)

    assert len(await stored(house)) == 20


# --- cache -------------------------------------------------------------------------------------


async def cache(house: Installation, name: str, *, idle_h: float = 0) -> None:
    """Store a cache entry that nobody has used for some hours."""
    await house.redis.set("draft", b"x" * 1000)
    packed = await house.redis.dump("draft")
    assert packed is not None
    await house.redis.restore(f"{keys.CACHE}{name}", 0, packed, replace=True, idletime=int(idle_h * 3600))
    await house.redis.delete("draft")


async def test_only_what_nobody_used_for_long_leaves_the_cache(house: Installation) -> None:
    await cache(house, "old", idle_h=25)
    await cache(house, "young", idle_h=23)
    await house.redis.set("arq:job:other", "kept")

    result = await cleanup_cache(context_of(house), CleanupCacheParams())

    assert (result.keys_scanned, result.keys_removed) == (2, 1)
    assert result.bytes_freed > 1000
    assert set(await house.redis.keys("*")) >= {b"jobs:cache:young", b"arq:job:other"}
    assert not await house.redis.exists("jobs:cache:old")


async def test_a_cleanup_of_everything_takes_the_whole_prefix_and_no_other_key(house: Installation) -> None:
    await asyncio.gather(*(house.redis.set(f"{keys.CACHE}{number}", "x") for number in range(1200)))
    await house.redis.set("jobs:cached", "kept")
    await house.redis.set("arq:queue:x", "kept")

    result = await cleanup_cache(context_of(house), CleanupCacheParams(cleanup_expired_only=False))

    assert result.keys_removed == 1200
    assert await house.redis.keys(f"{keys.CACHE}*") == []
    assert await house.redis.exists("jobs:cached", "arq:queue:x") == 2


async def test_an_empty_cache_has_nothing_to_give(house: Installation) -> None:
    result = await cleanup_cache(context_of(house), CleanupCacheParams())

    assert (result.keys_scanned, result.keys_removed, result.bytes_freed) == (0, 0, 0)


# --- retention ---------------------------------------------------------------------------------


async def insert(house: Installation, status: Status, days_ago: float, **changes: Any) -> NewJob:
    """Store a job that ended so many days ago, or lives since then, with one attempt on record."""
    at = NOW - timedelta(days=days_ago)
    job = new_job(created_at=at, due_at=at, **changes)
    await house.lifecycle._writer.accept([job])
    ended: datetime | None = at if status.is_final else None
    async with house.database.write() as connection:
        changed = sa.update(jobs).where(jobs.c.id == job.id).values(status=status, completed_at=ended)
        await connection.execute(changed)
        await connection.execute(
            attempts.insert().values(job_id=job.id, attempt=1, outcome="failed", started_at=at, ended_at=at)
        )
    return job


async def remaining(house: Installation) -> set[str]:
    async with house.database.read() as connection:
        return set((await connection.execute(sa.select(jobs.c.id))).scalars())


async def enforce(house: Installation, **policy: int) -> EnforceRetentionPolicyResult:
    given = RetentionPolicy(**policy) if policy else None
    return await enforce_retention_policy(context_of(house), EnforceRetentionPolicyParams(policy=given))


@both
async def test_ended_jobs_go_by_how_and_when_they_ended_with_their_attempts(house: Installation) -> None:
    gone = [
        await insert(house, Status.COMPLETED, 15),
        await insert(house, Status.CANCELLED, 15),
        await insert(house, Status.FAILED, 31),
    ]
    kept = [
        await insert(house, Status.COMPLETED, 13),
        await insert(house, Status.FAILED, 29),
        await insert(house, Status.PENDING, 400),
        await insert(house, Status.RUNNING, 400),
    ]

    result = await enforce(house)

    assert await remaining(house) == {job.id for job in kept}
    assert {name: line.deleted for name, line in result.enforced.items() if name.endswith("_tasks")} == {
        "failed_tasks": 1,
        "completed_tasks": 1,
        "cancelled_tasks": 1,
    }
    assert result.total_deleted == len(gone)
    async with house.database.read() as connection:
        assert set((await connection.execute(sa.select(attempts.c.job_id))).scalars()) == {job.id for job in kept}


@both
async def test_more_than_one_batch_goes_and_others_in_between_stay(house: Installation) -> None:
    old = [new_job(created_at=NOW - timedelta(days=20), due_at=NOW) for _ in range(2500)]
    await house.lifecycle._writer.accept(old)
    async with house.database.write() as connection:
        ended = sa.update(jobs).values(status=Status.COMPLETED, completed_at=NOW - timedelta(days=20))
        await connection.execute(ended)
        await connection.execute(
            sa.update(jobs).where(jobs.c.id.in_([job.id for job in old[::5]])).values(status=Status.FAILED)
        )

    result = await enforce(house)

    assert result.enforced["completed_tasks"].deleted == 2000
    assert len(await remaining(house)) == 500


@both
async def test_a_given_policy_replaces_the_default_one(house: Installation) -> None:
    await insert(house, Status.COMPLETED, 20)
    failed = await insert(house, Status.FAILED, 400)

    result = await enforce(house, completed_tasks=19)

    assert set(result.enforced) == {"completed_tasks"}
    assert await remaining(house) == {failed.id}


@both
async def test_the_job_of_a_schedules_last_tick_stays_however_old(house: Installation) -> None:
    older, last = [
        await insert(house, Status.COMPLETED, days, schedule="weekly", tick_at=NOW - timedelta(days=days))
        for days in (30, 23)
    ]
    by_hand = await insert(house, Status.COMPLETED, 20, schedule="weekly")

    await enforce(house)

    assert {older.id, by_hand.id}.isdisjoint(await remaining(house))
    assert await house.reader.last_ticks() == {"weekly": last.tick_at}


@both
async def test_records_go_by_their_time_and_audit_entries_are_archived_first(house: Installation) -> None:
    scores = dict.fromkeys(AriSnapshot.model_fields, 0.5)
    required = {name: scores[name] for name, field in AriSnapshot.model_fields.items() if field.is_required()}
    snapshots = [
        AriSnapshot.model_validate(
            required | {"snapshot_id": name, "user_id": "ada", "timestamp": NOW - timedelta(days=days)}
        )
        for name, days in (("old", 366), ("young", 364))
    ]
    await house.records.upsert(ARI_SNAPSHOTS, snapshots)
    await store(house, entry(1, 91), entry(2, 89))

    result = await enforce(house)

    assert (await house.records.page(ARI_SNAPSHOTS)).records == [snapshots[1]]
    assert await stored(house) == ["e000002"]
    assert archived(house) == ["e000001"]
    assert (house.settings.archives / result.archives[0].file).exists()
    assert (result.enforced["ari_snapshots"].deleted, result.enforced["audit_logs"].deleted) == (1, 1)


async def test_old_temporary_files_go_and_no_link_is_followed(house: Installation, tmp_path: Path) -> None:
    temporary, outside = house.settings.temporary, tmp_path / "outside"
    (temporary / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (temporary / "old", temporary / "deep" / "old", outside / "precious"):
        path.write_bytes(b"12345")
        os.utime(path, (0, 0))
    (temporary / "young").write_bytes(b"1")
    (temporary / "link").symlink_to(outside)

    result = await enforce_retention_policy(
        context_of(house, now=utc_now()), EnforceRetentionPolicyParams(policy=RetentionPolicy(temp_files=7))
    )

    line = result.enforced["temp_files"]
    assert (line.deleted, line.bytes, result.bytes_freed) == (2, 10, 10)
    assert sorted(path.name for path in temporary.rglob("*")) == ["deep", "link", "young"]
    assert (outside / "precious").exists()


async def test_a_temporary_directory_that_holds_the_data_is_not_touched(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"1")
    os.utime(tmp_path / "old", (0, 0))
    async with open_installation(settings.model_copy(update={"temp_dir": tmp_path})) as house:
        with pytest.raises(Discard, match="TEMP_DIR holds"):
            await enforce(house, temp_files=7)

    assert (tmp_path / "old").exists()


async def test_nothing_to_delete_is_told_as_zeros(house: Installation) -> None:
    result = await enforce(house)

    assert (result.total_deleted, result.bytes_freed, result.archives) == (0, 0, ())
    assert result.policy["completed_tasks"] == 14


# --- through a worker --------------------------------------------------------------------------


async def test_every_maintenance_job_runs_in_a_worker_and_none_deletes_itself(house: Installation) -> None:
    served = worker_settings(house.catalogue, ["maintenance"], ticks=False)
    types = house.catalogue.families["maintenance"].job_types
    orders = [Order(job_type=job_type, params=job_type.params(), owner="admin") for job_type in types]
    submitted = await house.lifecycle.submit(orders)

    await drain(make_worker(house, served.functions, queues=served.queues, slots=1, burst=True))

    ended = [await row(house, job.id) for job in submitted]
    assert [job.status for job in ended] == [Status.COMPLETED] * 4, [job.error for job in ended]
