"""Archives in S3: the same steps as on the disk, against a server that speaks S3."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession, get_session
from pydantic import SecretStr

from app.errors import Discard
from app.history.archives import read_locations
from app.installation import Installation, open_installation
from app.jobs.maintenance import ArchiveAuditLogsParams, ArchiveAuditLogsResult
from app.records.audit_entries import AUDIT_ENTRIES
from app.settings import Settings
from tests.integration import test_archive_kills
from tests.integration.test_archive_kills import archived, entry
from tests.support.api import running_api
from tests.support.environment import environment_of
from tests.support.run import context_of
from workers.families.maintenance import archive, archive_audit_logs, archiving, bucket

BUCKET = "archives"
LOCATION = f"s3://{BUCKET}/audit/2026"
ELSEWHERE = ["disk", f"s3://{BUCKET}/other", LOCATION]
OLD, YOUNG = 250, 3
KEY_ID, SECRET = "the-key-id", "the-secret-key"

STEPS = [
    "archive_packed",
    "archive_described",
    "archive_stored",
    "archive_verified",
    "archive_half_deleted",
    "archive_deleted",
    "archive_finished",
]


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A server that speaks S3, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def session() -> AioSession:
    """What clients come from; a new one reads AWS's models of S3 for half a second."""
    return get_session()


@pytest.fixture
async def house(
    settings: Settings, s3_url: str, session: AioSession, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    monkeypatch.setattr(bucket, "get_session", lambda: session)
    there = {"s3_endpoint_url": s3_url, "s3_access_key_id": KEY_ID, "s3_secret_access_key": SecretStr(SECRET)}
    async with (
        open_installation(settings.model_copy(update=there)) as installation,
        client_of(installation.settings) as client,
    ):
        await client.create_bucket(Bucket=BUCKET)
        yield installation
        for key in await keys_of(client):
            await client.delete_object(Bucket=BUCKET, Key=key)
        await client.delete_bucket(Bucket=BUCKET)


def client_of(settings: Settings) -> Any:
    return bucket.get_session().create_client(  # type: ignore[attr-defined]  # the one that the work uses
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )


async def keys_of(client: Any) -> list[str]:
    return [found["Key"] for found in (await client.list_objects_v2(Bucket=BUCKET)).get("Contents", ())]


async def objects(house: Installation) -> dict[str, bytes]:
    async with client_of(house.settings) as client:
        return {
            key: await (await client.get_object(Bucket=BUCKET, Key=key))["Body"].read() for key in await keys_of(client)
        }


async def kept_in_bucket(house: Installation) -> list[str]:
    """Return the ids in all archive files of the bucket, one for each time; each has its manifest, none is pending."""
    found = await objects(house)
    files = [key for key in found if key.endswith(".jsonl.gz")]
    assert sorted(found) == sorted([*files, *(key.replace(".jsonl.gz", ".manifest.json") for key in files)])
    return [json.loads(line)["entry_id"] for key in files for line in gzip.decompress(found[key]).splitlines()]


async def store(house: Installation) -> None:
    ages = [100] * OLD + [1] * YOUNG
    await house.records.upsert(AUDIT_ENTRIES, [entry(number, days) for number, days in enumerate(ages)])


async def remaining(house: Installation) -> list[str]:
    page = await house.records.page(AUDIT_ENTRIES, limit=1000)
    return sorted(found.entry_id for found in page.records)


async def run(house: Installation, location: str = LOCATION) -> ArchiveAuditLogsResult:
    return await archive_audit_logs(context_of(house), ArchiveAuditLogsParams(archive_location=location))


async def check_all_are_kept_once(house: Installation) -> None:
    assert await remaining(house) == [f"e{number:04}" for number in range(OLD, OLD + YOUNG)]
    everywhere = sorted([*await kept_in_bucket(house), *archived(house.settings.archives)])
    assert everywhere == [f"e{number:04}" for number in range(OLD)]
    assert await read_locations(house.database) == []


@pytest.mark.databases("sqlite", "postgresql")
async def test_old_entries_move_into_objects_that_their_manifests_describe(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_BATCH", 100)
    monkeypatch.setattr(archiving, "_PAGE", 50)
    await store(house)

    result = await run(house)
    again = await run(house)

    found = await objects(house)
    assert (result.archived_count, result.resumed_count, [one.count for one in result.archives]) == (
        250,
        0,
        [100, 100, 50],
    )
    assert (again.archived_count, again.archives) == (0, ())
    for one in result.archives:
        key = one.file.removeprefix(f"s3://{BUCKET}/")
        told = json.loads(found[one.manifest.removeprefix(f"s3://{BUCKET}/")])
        assert one.file.startswith(f"{LOCATION}/audit-entries-")
        assert (len(found[key]), told["sha256"], told["count"]) == (one.bytes, one.sha256, one.count)
    await check_all_are_kept_once(house)


class Stopped(Exception):
    """What stands for the end of the process."""


@pytest.mark.parametrize(
    ("step", "second"),
    [*zip(STEPS, cycle(ELSEWHERE), strict=False), *(("archive_stored", second) for second in ELSEWHERE[:-1])],
)
async def test_a_failure_at_any_step_and_a_second_run_anywhere_keep_every_entry_once(
    house: Installation, step: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str) -> None:
        if name == step:
            raise Stopped

    monkeypatch.setattr(archiving, "_PAGE", 100)
    await store(house)
    with monkeypatch.context() as stopping:
        for module in (archive, archiving, bucket):
            stopping.setattr(module, "failpoint", stop)
        with pytest.raises(Stopped):
            await run(house)

    await run(house, second)

    await check_all_are_kept_once(house)


@pytest.mark.parametrize("step", ["archive_stored", "archive_half_deleted"])
async def test_a_kill_is_made_good_by_the_next_run(house: Installation, step: str) -> None:
    await store(house)
    program = test_archive_kills.PROGRAM.replace(
        "ArchiveAuditLogsParams()", f"ArchiveAuditLogsParams(archive_location={LOCATION!r})"
    )

    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=environment_of(house.settings) | {"FAILPOINT": step},
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=50,
    )
    remembered = await read_locations(house.database)
    result = await run(house, "disk")

    assert (killed.returncode, remembered) == (-signal.SIGKILL, [LOCATION])
    assert [one.file.rpartition("/")[0] for one in result.archives] == [LOCATION]
    assert result.resumed_count == result.archived_count
    await check_all_are_kept_once(house)


async def test_a_damaged_object_deletes_nothing(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(house)
    download = bucket.Bucket._get

    async def damaged(self: bucket.Bucket, key: str) -> bytes:
        return (await download(self, key))[:-1]

    monkeypatch.setattr(bucket.Bucket, "_get", damaged)

    with pytest.raises(Discard, match="is not what its manifest says"):
        await run(house)

    assert len(await remaining(house)) == OLD + YOUNG


async def test_a_bucket_that_is_not_there_is_named_and_nothing_is_deleted_or_remembered(house: Installation) -> None:
    await store(house)

    with pytest.raises(Discard, match=r"s3://nowhere/audit was refused: NoSuchBucket"):
        await run(house, "s3://nowhere/audit")

    assert len(await remaining(house)) == OLD + YOUNG
    assert await read_locations(house.database) == []


async def test_without_credentials_it_says_which_settings_are_missing(
    house: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bucket, "get_session", get_session)
    nothing = {"s3_access_key_id": "", "s3_secret_access_key": None}

    async with open_installation(house.settings.model_copy(update=nothing)) as bare:
        with pytest.raises(Discard, match="set S3_ACCESS_KEY_ID"):
            await run(bare)


async def test_credentials_of_the_standard_environment_will_do(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(house)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", house.settings.s3_endpoint_url)
    monkeypatch.setattr(bucket, "get_session", get_session)
    nothing = {"s3_endpoint_url": "", "s3_access_key_id": "", "s3_secret_access_key": None}

    async with open_installation(house.settings.model_copy(update=nothing)) as plain:
        result = await run(plain)

    assert result.archived_count == OLD
    await check_all_are_kept_once(house)


async def test_without_the_extra_it_is_refused_when_it_is_submitted(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore", None)
    async with running_api(house.settings, catalogue=house.catalogue) as api:
        answer = await api.ask(
            "POST", "/api/tasks/maintenance/archive-audit-logs", json={"parameters": {"archive_location": LOCATION}}
        )

    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/parameters/archive_location")
    assert "extra 's3'" in answer.json["errors"][0]["detail"]
