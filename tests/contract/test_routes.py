"""The routes of the contract: which there are, that each is found, and that the document names it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from app.jobs.catalogue import load_catalogue
from app.settings import Settings
from tests.support.api import ApiUnderTest, running_api

SNAPSHOT = Path(__file__).parent / "routes.txt"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, catalogue=load_catalogue()) as running:
        yield running


async def documented(api: ApiUnderTest) -> dict[tuple[str, str], Any]:
    document = (await api.ask("GET", "/api/openapi.json")).json
    return {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


async def test_the_documented_routes_are_those_of_the_snapshot(api: ApiUnderTest) -> None:
    """A new route is a new line of ``routes.txt``; a line that goes breaks somebody's client."""
    found = sorted(f"{path} {method}" for method, path in await documented(api))

    assert found == SNAPSHOT.read_text().splitlines()


async def test_every_route_is_documented(api: ApiUnderTest) -> None:
    served = {
        (route.method, resource.canonical)
        for resource in api.app.router.resources()
        for route in resource
        if route.method != "HEAD" and not resource.canonical.endswith("/")
    }

    beside = {(method, path) for method, path in served if path.startswith("/api/v1/")}
    assert served - beside - {("GET", "/api/openapi.json")} == set(await documented(api))
    assert {path.replace("/api/v1/", "/api/") for _, path in beside} == {
        path for _, path in served - beside if path.startswith("/api/")
    }


async def test_no_static_path_is_taken_for_an_id(api: ApiUnderTest) -> None:
    for method, path in await documented(api):
        if "{" not in path:
            found = await api.app.router.resolve(make_mocked_request(method, path))

            assert found.get_info().get("path") == path
