"""The limit of the API: a bare aiohttp handler that parses the same body and answers as much."""

import asyncio

import orjson
from aiohttp import web

from tests.bench.trials.house import Terms

_ANSWER = orjson.dumps({"task_id": "0" * 36, "rest": "." * 1100})


async def run(_terms: Terms) -> dict[str, float]:
    """Serve until killed; prints the port."""

    async def accept(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(body=_ANSWER, status=202, content_type="application/json")

    app = web.Application()
    app.router.add_post("/", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
    return {}
