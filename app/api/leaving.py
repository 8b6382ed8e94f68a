"""How the API process leaves: no new connection, a last answer on each that is open, and then the end.

A connection that is closed while a request is on its way costs the client an error, and it cannot know whether its
submit was accepted. Used by :mod:`app.api.server` alone.
"""

import asyncio
from time import monotonic

from aiohttp import hdrs, web

LEAVING = web.AppKey("leaving", asyncio.Event)

_LINGER_S = 1.0  # for the next request of whoever asks often; a connection that is silent for so long is closed
_LOOK_S = 0.02


async def say_last(request: web.Request, response: web.StreamResponse) -> None:
    """Tell a client with its answer to take the next request elsewhere, once the process leaves."""
    if request.app[LEAVING].is_set() and response.status != 101:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"


async def leave(app: web.Application, runner: web.AppRunner) -> None:
    """Take no new connection, and give those that are open the time to end in order."""
    app[LEAVING].set()
    for site in list(runner.sites):
        await site.stop()
    until = monotonic() + _LINGER_S
    while runner.server is not None and runner.server.connections and monotonic() < until:  # noqa: ASYNC110  # sets none
        await asyncio.sleep(_LOOK_S)
