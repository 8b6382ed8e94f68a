"""Reads what a request brings: its body within a limit, its query string into a model."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar, get_origin

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiMapping
from pydantic import BaseModel

from app.errors import BadRequest, TooLarge
from app.jobs.validation import validate

MIB = 1024 * 1024
JSON_TYPES = ("application/json",)

_BODY_S = 30.0  # a body that takes longer to arrive is given up

Q = TypeVar("Q", bound=BaseModel)


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the body; raise TooLarge as soon as it is known to exceed ``limit`` bytes."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"The body did not arrive within {_BODY_S:.0f} seconds.") from error
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise BadRequest("The body is not what its headers say: its transfer encoding is broken.") from error
    return b"".join(chunks)


def check_media_type(request: web.Request, accepted: Sequence[str]) -> None:
    """Raise 415 for a body that came packed, or calls itself something else; it need not call itself anything."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise web.HTTPUnsupportedMediaType(text="Send the body as it is, without a Content-Encoding.")
    media_type = request.content_type
    if hdrs.CONTENT_TYPE not in request.headers or media_type in accepted or media_type.endswith("+json"):
        return
    raise web.HTTPUnsupportedMediaType(text=f"Send {' or '.join(accepted)}, not {media_type}.")


def read_query(model: type[Q], request: web.Request) -> Q:
    """Return the query string as a ``model``; raise InvalidInput with every error. Tuple fields may be repeated."""
    return validate(model, {name: _value(model, request.query, name) for name in request.query})


def _value(model: type[BaseModel], query: MultiMapping[str], name: str) -> str | list[str]:
    values = query.getall(name)
    known = model.model_fields.get(name)
    takes_many = known is not None and get_origin(known.annotation) is tuple
    return values[0] if len(values) == 1 and not takes_many else values


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit:,} bytes, the most that this route takes.", limit=limit)
