"""Records that come packed: gzip is unpacked within the limit of the body, and nothing else is taken."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import psutil
import pytest

from app.api import reading
from app.settings import Settings
from tests.integration.test_api_records import NDJSON, PATH, lines, snapshot
from tests.support.api import ApiUnderTest, running_api

PACKED = {"Content-Encoding": "gzip"}
MIB = 1024 * 1024


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def total(api: ApiUnderTest) -> int:
    return int((await api.ask("GET", PATH)).json["total_count"])


async def test_packed_lines_and_a_packed_array_are_stored(api: ApiUnderTest) -> None:
    ndjson = gzip.compress(lines(snapshot(1), snapshot(2)))
    array = gzip.compress(b"[" + lines(snapshot(3)) + b"]")

    answers = [
        await api.ask("POST", PATH, data=ndjson, headers=NDJSON | PACKED),
        await api.ask("POST", PATH, data=array, headers=PACKED | {"Content-Type": "application/json"}),
    ]

    assert [(answer.status, answer.json["stored"]) for answer in answers] == [(200, 2), (200, 1)]


async def test_members_that_were_joined_are_one_body(api: ApiUnderTest) -> None:
    joined = gzip.compress(lines(snapshot(1)) + b"\n") + gzip.compress(lines(snapshot(2)))

    answer = await api.ask("POST", PATH, data=joined, headers=NDJSON | PACKED)

    assert (answer.status, answer.json["stored"]) == (200, 2)


async def test_a_packed_body_may_arrive_byte_by_byte(api: ApiUnderTest) -> None:
    packed = gzip.compress(lines(snapshot(1)))

    async def drops() -> AsyncIterator[bytes]:
        for at in range(len(packed)):
            yield packed[at : at + 1]

    answer = await api.ask("POST", PATH, data=drops(), headers=NDJSON | PACKED)

    assert (answer.status, answer.json["stored"]) == (200, 1)


async def test_the_limit_is_that_of_the_unpacked_body(api: ApiUnderTest) -> None:
    fits = gzip.compress(b" " * (15 * MIB) + lines(snapshot(1)))
    grows = gzip.compress(b" " * (16 * MIB) + lines(snapshot(1)))

    assert (await api.ask("POST", PATH, data=fits, headers=NDJSON | PACKED)).status == 200
    assert (await api.ask("POST", PATH, data=grows, headers=NDJSON | PACKED)).status == 413
    assert await total(api) == 1


async def test_a_bomb_is_refused_before_it_fills_the_memory(api: ApiUnderTest) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(16 * MIB)) for _ in range(16)) + packer.flush()  # 256 MiB in 256 KiB
    before = psutil.Process().memory_info().rss

    answer = await api.ask("POST", PATH, data=bomb, headers=NDJSON | PACKED)

    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert psutil.Process().memory_info().rss - before < 100 * MIB
    assert (await api.ask("POST", PATH, json=[snapshot(1)])).status == 200


@pytest.mark.parametrize(
    "broken",
    [
        gzip.compress(lines(snapshot(1)))[:-9],
        gzip.compress(lines(snapshot(1))) + b"and more",
        b"\x1f\x8b\x08\x00 no deflate at all",
        lines(snapshot(1)),
        b"",
    ],
)
async def test_what_is_no_whole_gzip_is_refused_and_nothing_is_stored(api: ApiUnderTest, broken: bytes) -> None:
    answer = await api.ask("POST", PATH, data=broken, headers=NDJSON | PACKED)

    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert "gzip" in answer.json["detail"]
    assert await total(api) == 0


async def test_other_packings_and_other_routes_are_told_what_would_do(api: ApiUnderTest) -> None:
    packed = gzip.compress(b"{}")

    deflated = await api.ask("POST", PATH, data=zlib.compress(b"[]"), headers=NDJSON | {"Content-Encoding": "deflate"})
    task = await api.ask("POST", "/api/tasks/test/note", data=packed, headers=PACKED)

    assert (deflated.status, task.status) == (415, 415)
    assert "Content-Encoding: gzip" in deflated.json["detail"]


async def test_unpacking_lets_others_have_the_loop() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(bytes(15 * MIB)) + packer.flush()
    turns = 0

    async def arriving() -> AsyncIterator[bytes]:
        yield bomb

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counter = group.create_task(count_turns())
        sizes = [len(piece) async for piece in reading._unpacked(arriving())]
        counter.cancel()

    assert sum(sizes) == 15 * MIB
    assert max(sizes) <= 256 * 1024
    assert turns >= 60
