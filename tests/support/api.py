"""A real API server on real stores, inside the test's own process, and clients of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from pydantic import SecretStr

from app.api.server import build_app, make_runner
from app.installation import Installation, open_installation
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family, JobType, TaskType
from app.jobs.fields import Identifier, Params, Result
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support.house import count, note

ADA_KEY, BOB_KEY = "the-key-of-ada", "the-key-of-bob"


class SubjectParams(Params):
    """Whom it is about."""

    user_id: Identifier


judge = JobType(
    kind="test.judge",
    summary="Judge a user.",
    params=SubjectParams,
    result=Result,
    queue="alpha",
    task_type=TaskType.ARI_SNAPSHOT,
)
sweep = JobType(
    kind="test.sweep",
    summary="Sweep.",
    params=Params,
    result=Result,
    queue="beta",
    task_type=TaskType.MAINTENANCE,
    is_admin_only=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiUnderTest:
    """A running server, its installation, and a client."""

    house: Installation
    client: aiohttp.ClientSession
    app: web.Application

    async def ask(self, method: str, path: str, *, key: str | None = ADMIN_KEY, **options: Any) -> Answer:
        """Send one request, as the administrator unless ``key`` says otherwise."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        async with self.client.request(method, path, headers=headers, **options) as response:
            return Answer(status=response.status, headers=response.headers.copy(), text=await response.text())

    async def submit(self, *, key: str = ADMIN_KEY, **options: Any) -> Any:
        """Submit one ``note``; return the task."""
        answer = await self.ask("POST", "/api/tasks/test/note", key=key, json={"parameters": {}} | options)
        assert answer.status == 202, answer.text
        return answer.json


def api_settings(settings: Settings) -> Settings:
    """Return settings with two ordinary users, ada and bob."""
    return settings.model_copy(update={"api_keys": {"ada": SecretStr(ADA_KEY), "bob": SecretStr(BOB_KEY)}})


def api_catalogue() -> Catalogue:
    """Return the catalogue of the house, and two kinds more: one about a user, one for administrators."""
    return Catalogue([Family(name="test", summary="For tests.", job_types=(note, count, judge, sweep))])


@asynccontextmanager
async def running_api(
    settings: Settings, *, reread_s: float = 20.0, catalogue: Catalogue | None = None
) -> AsyncIterator[ApiUnderTest]:
    """Serve on a free port during the block, the kinds of the tests unless another catalogue is given."""
    async with open_installation(api_settings(settings), catalogue or api_catalogue()) as house:
        app = build_app(house, reread_s=reread_s)
        runner = make_runner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            limit = aiohttp.ClientTimeout(total=20)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=limit) as client:
                yield ApiUnderTest(house=house, client=client, app=app)
        finally:
            await runner.cleanup()
