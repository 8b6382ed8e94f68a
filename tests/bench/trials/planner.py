"""A planner for plans of any size, on loopback: what a model would propose, over the real protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

_PARTS = 10


@asynccontextmanager
async def proposing(blocks: int) -> AsyncIterator[dict[str, Any]]:
    """Serve a proposal of so many blocks during the block; give the settings that lead to it. 0 serves nothing."""
    if not blocks:
        yield {}
        return

    async def complete(_request: web.Request) -> web.Response:
        proposal = orjson.dumps({"blocks": [_block(at, blocks) for at in range(blocks)]}).decode()
        message = {"role": "assistant", "content": proposal}
        return web.json_response({"choices": [{"message": message}]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", complete)
    async with TestServer(application, host="127.0.0.1") as server:
        yield {"planner_url": str(server.make_url("/v1")), "planner_model": "bench"}


def _block(at: int, blocks: int) -> dict[str, Any]:
    """Return a block that waits for up to two before it."""
    return {
        "key": f"b{at}",
        "part": 1 + at * _PARTS // blocks,
        "title": f"Step {at}",
        "description": "",
        "done_criterion": f"Step {at} is done.",
        "minutes": 15 + at * 37 % 76,
        "value": at * 13 % 101,
        "depends_on": sorted({f"b{before}" for before in (at - 1 - at % 7, at // 2 - 1) if 0 <= before < at}),
    }
