"""A real browser: the distribution's Chromium, without a window, steered by its own DevTools protocol."""

import asyncio
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from app.processes import start_child, stop_child
from tests.support.waiting import eventually

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START_S = 60.0
_ANSWER_S = 30.0

# Installed before anything of a page runs, and outside of its policy.
_NOTE_VIOLATIONS = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


class PageError(Exception):
    """What was run in a page has raised."""


class Page:
    """One page of the browser. What it asked for and what it complained of is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def open(self, url: str) -> None:
        """Go to an address and wait until its page has loaded."""
        await self.call("Page.navigate", url=url)
        await eventually(lambda: self.run(f"document.readyState === 'complete' && location.href === {_js(url)}"), 30)

    async def run(self, expression: str) -> Any:
        """Run JavaScript in the page, wait for its promise, and return what it comes to."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageError(answer["exceptionDetails"])
        return answer["result"].get("value")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_ANSWER_S):
            result: dict[str, Any] = await answer
            return result

    async def begin(self) -> None:
        """Watch what the page asks for and complains of."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_NOTE_VIOLATIONS)

    async def listen(self) -> None:
        """Hear the browser for as long as it speaks."""
        async for message in self._socket:
            said = orjson.loads(message.data)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(PageError(said["error"]))
                else:
                    answer.set_result(said["result"])
            else:
                self._note(said["method"], said["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))


@asynccontextmanager
async def open_page(directory: Path) -> AsyncIterator[Page]:
    """Start a browser with nothing in it, whose profile is in ``directory``; skip the test where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on PATH (apt-get install chromium)")
    is_root = os.geteuid() == 0  # whom Chromium's sandbox refuses
    options = [*_OPTIONS, f"--user-data-dir={directory}", *(["--no-sandbox"] if is_root else [])]
    child = start_child([program, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession() as session:
            port = await eventually(lambda: _port_in(directory, child), _START_S)
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (target,) = [found for found in await answer.json() if found["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    await page.begin()
                    yield page
                finally:
                    listening.cancel()
    finally:
        await asyncio.to_thread(stop_child, child)


def _port_in(directory: Path, child: subprocess.Popen[bytes]) -> int | None:
    """Return where the browser listens, once it has said so."""
    if child.poll() is not None:
        pytest.skip(f"the browser does not run here: it left with {child.returncode}")
    file = directory / "DevToolsActivePort"
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[0]) if lines else None


def _js(value: object) -> str:
    return orjson.dumps(value).decode()
