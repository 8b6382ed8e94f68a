"""A receiver of webhooks: a real HTTP server that verifies every signature with the library of Standard Webhooks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

Answer = int | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One call as it came."""

    id: str
    body: bytes
    headers: Mapping[str, str]

    def verified_by(self, secret: str) -> Any:
        """Return the event; None if the secret did not sign it."""
        try:
            return Webhook(secret).verify(self.body, dict(self.headers))
        except WebhookVerificationError:
            return None


class Receiver:
    """Answers call after call what ``answers`` say, the last for ever; keeps what came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [204]
        self.headers: dict[str, str] = {}
        self.received: list[Received] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Take one call."""
        body = await request.read()
        self.received.append(Received(id=request.headers["webhook-id"], body=body, headers=dict(request.headers)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=answer, headers=self.headers) if isinstance(answer, int) else await answer(request)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve on loopback during the block."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    app.router.add_post("/other", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


async def flood(request: web.Request) -> web.StreamResponse:
    """Answer without an end."""
    response = web.StreamResponse(status=200)
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65536)
    except ConnectionError:
        return response


async def hang(_request: web.Request) -> web.StreamResponse:
    """Answer nothing for as long as anybody waits."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
