"""The documentation page: Swagger UI from its wheel, served by ourselves. Imported by the API alone.

Page and assets are open to everybody; the document that it shows needs a credential, for which the page asks.
Nothing is inline and nothing comes from elsewhere, as the policy in the headers of a page demands.
"""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import orjson
from aiohttp import web

from app.api.asyncapi import asyncapi_of
from app.api.endpoint import Access, Call, Endpoint, endpoint

_OURS = {"docs.js": "text/javascript", "docs.css": "text/css"}
_THEIRS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_KEPT = "public, max-age=3600"


def docs_endpoints() -> tuple[Endpoint, ...]:
    """Return the page, its files, and the description of the events."""
    return (
        endpoint("GET", "/docs", show_docs, access=Access.OPEN, answer_type="text/html"),
        endpoint("GET", "/docs/{file}", show_docs_file, access=Access.OPEN, answer_type="text/css"),
        endpoint("GET", "/asyncapi.json", show_asyncapi),
    )


async def show_docs(call: Call) -> web.Response:
    """Show the documentation as a page."""
    return web.Response(body=_own("docs.html"), content_type="text/html", charset="utf-8")


async def show_docs_file(call: Call) -> web.Response:
    """Show a file of the documentation page."""
    name = call.request.match_info["file"]
    headers = {"Cache-Control": _KEPT}
    if name in _OURS:
        return web.Response(body=_own(name), content_type=_OURS[name], charset="utf-8", headers=headers)
    if name in _THEIRS:
        body = (_swagger() / name).read_bytes()
        return web.Response(body=body, content_type=_THEIRS[name], headers=headers)
    raise web.HTTPNotFound


async def show_asyncapi(call: Call) -> web.Response:
    """Show the AsyncAPI document: what followers are told."""
    return web.Response(body=orjson.dumps(asyncapi_of()), content_type="application/json")


def _own(name: str) -> bytes:
    return (files("app.api") / "pages" / name).read_bytes()


def _swagger() -> Path:
    """Return where the wheel keeps its files; it is not imported, because that would load template engines."""
    spec = find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        raise web.HTTPNotFound
    return Path(spec.origin).with_name("static")
