"""An archive that is killed at any of its steps loses no entry and doubles none."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from app.installation import open_installation
from app.jobs.maintenance import ArchiveAuditLogsParams
from app.records.audit_entries import AUDIT_ENTRIES, AuditEntry
from app.settings import Settings
from tests.support.environment import environment_of
from tests.support.run import NOW, context_of
from workers.families.maintenance import archive_audit_logs

OLD, YOUNG = 2500, 3

STEPS = [
    "archive_packed",
    "archive_half_written",
    "archive_written",
    "archive_described",
    "archive_stored",
    "archive_verified",
    "archive_half_deleted",
    "archive_deleted",
]

PROGRAM = """
import asyncio
from app.installation import open_installation
from app.jobs.maintenance import ArchiveAuditLogsParams
from app.settings import Settings
from tests.support.run import context_of
from workers.families.maintenance import archive_audit_logs

async def main():
    async with open_installation(Settings()) as house:
        await archive_audit_logs(context_of(house), ArchiveAuditLogsParams())

asyncio.run(main())
"""


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_step_and_a_second_run_keep_every_entry_once(settings: Settings, step: str) -> None:
    await check_kill(settings, step)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("step", ["archive_stored", "archive_half_deleted"])
async def test_a_kill_gives_back_the_turn_on_postgresql_too(settings: Settings, step: str) -> None:
    await check_kill(settings, step)


async def check_kill(settings: Settings, step: str) -> None:
    async with open_installation(settings) as house:
        ages = [100] * OLD + [1] * YOUNG
        await house.records.upsert(AUDIT_ENTRIES, [entry(number, days) for number, days in enumerate(ages)])

        killed = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", PROGRAM],
            env=environment_of(settings) | {"FAILPOINT": step},
            cwd=Path(__file__).parents[2],
            check=False,
            timeout=50,
        )
        # Elsewhere, so that what the first run left is found wherever it is.
        await archive_audit_logs(context_of(house), ArchiveAuditLogsParams(archive_location="second"))

        page = await house.records.page(AUDIT_ENTRIES, limit=1000)
        left = sorted(found.entry_id for found in page.records)
    assert killed.returncode == -signal.SIGKILL
    assert left == [f"e{number:04}" for number in range(OLD, OLD + YOUNG)]
    assert archived(settings.archives) == [f"e{number:04}" for number in range(OLD)]
    assert {path.name.rpartition(".")[2] for path in settings.archives.rglob("*.*")} == {"gz", "json"}
    assert not list(settings.archives.rglob("*.pending.json"))


def entry(number: int, days_ago: float) -> AuditEntry:
    return AuditEntry(
        entry_id=f"e{number:04}", timestamp=NOW - timedelta(days=days_ago), event_type="login", action="signed in"
    )


def archived(root: Path) -> list[str]:
    """Return the ids in all archive files, one for each time it is there; each file has its manifest."""
    files = list(root.rglob("*.jsonl.gz"))
    assert all(path.with_name(path.name.replace(".jsonl.gz", ".manifest.json")).exists() for path in files)
    lines = [line for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]
    return sorted(json.loads(line)["entry_id"] for line in lines)
