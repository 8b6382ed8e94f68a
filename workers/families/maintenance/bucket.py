"""Archives in an S3 bucket, with the extra ``s3``. An object is there whole or not at all, once S3 has answered."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError, NoCredentialsError

from app.errors import Discard
from app.failpoints import failpoint
from app.jobs.maintenance import S3_SCHEME
from app.settings import Settings
from workers.families.maintenance.archive import DATA, MANIFEST, PENDING, Kept, Manifest

_LIMITS = AioConfig(connect_timeout=10, read_timeout=60, retries={"max_attempts": 4, "mode": "standard"})


@asynccontextmanager
async def open_bucket(settings: Settings, location: str) -> AsyncIterator["Bucket"]:
    """Open the bucket of ``s3://bucket/prefix``; what the settings leave out is found as AWS's own tools find it."""
    secret = settings.s3_secret_access_key
    client = get_session().create_client(
        "s3",
        endpoint_url=settings.s3_endpoint_url or None,
        region_name=settings.s3_region or None,
        aws_access_key_id=settings.s3_access_key_id or None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=_LIMITS,
    )
    with _refusals_told(location):
        async with client as opened:
            yield Bucket(opened, location)


class Bucket:
    """A bucket and a prefix in it; folders are ``s3://bucket/prefix``."""

    def __init__(self, client: Any, location: str) -> None:
        self._client = client
        self._location = location
        self._bucket, _, self._prefix = location.removeprefix(S3_SCHEME).partition("/")

    async def find_pending(self) -> list[Kept]:
        """Look everywhere below the prefix."""
        prefix = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        keys = [found["Key"] async for page in pages for found in page.get("Contents", ())]
        pending = []
        for key in sorted(key for key in keys if key.endswith(PENDING)):
            manifest = Manifest.model_validate_json(await self._get(key))
            if key.removesuffix(PENDING) + DATA in keys:
                pending.append(Kept(folder=self._folder_of(key), manifest=manifest))
            else:
                await self._client.delete_object(Bucket=self._bucket, Key=key)
        return pending

    async def write(self, content: bytes, manifest: Manifest) -> Kept:
        """Upload the pending manifest, and then the file."""
        kept = Kept(folder=self._location, manifest=manifest)
        await self._put(kept.manifest_file(PENDING), _described(kept), "application/json")
        failpoint("archive_described")
        await self._put(kept.file, content, "application/gzip")
        failpoint("archive_stored")
        return kept

    async def read(self, kept: Kept) -> bytes:
        """Download a file again."""
        return await self._get(self._key(kept.file))

    async def finish(self, kept: Kept) -> None:
        """Upload the manifest under its final name, and delete the pending one: objects cannot be renamed."""
        await self._put(kept.manifest_file(MANIFEST), _described(kept), "application/json")
        failpoint("archive_finished")
        await self._client.delete_object(Bucket=self._bucket, Key=self._key(kept.manifest_file(PENDING)))

    async def _put(self, name: str, content: bytes, media_type: str) -> None:
        key = self._key(name)
        await self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType=media_type)

    async def _get(self, key: str) -> bytes:
        answer = await self._client.get_object(Bucket=self._bucket, Key=key)
        async with answer["Body"] as body:
            content: bytes = await body.read()
            return content

    def _key(self, name: str) -> str:
        return name.removeprefix(f"{S3_SCHEME}{self._bucket}/")

    def _folder_of(self, key: str) -> str:
        return f"{S3_SCHEME}{self._bucket}/{key}".rpartition("/")[0]


def _described(kept: Kept) -> bytes:
    return kept.manifest.model_dump_json(indent=2).encode()


@contextmanager
def _refusals_told(location: str) -> Iterator[None]:
    """Raise Discard for what no second try would change: no such bucket, or no right to it."""
    try:
        yield
    except NoCredentialsError as error:
        raise Discard(f"{location} needs credentials: set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY.") from error
    except ClientError as error:
        told, status = error.response.get("Error", {}), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and 400 <= status < 500:
            raise Discard(f"{location} was refused: {told.get('Code')}, {told.get('Message')}") from error
        raise
