"""Reads what a request brings: its body within a limit, its query string into a model."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
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
_GZIP = 16 + zlib.MAX_WBITS  # how zlib is told of gzip's header
_PIECE = 256 * 1024  # bytes unpacked at a time: about a millisecond

Q = TypeVar("Q", bound=BaseModel)


def body_at_hand(request: web.Request, limit: int) -> bytes:
    """Return a body that has come with its headers, as nearly all do; nothing if it must be waited for or unpacked.

    Raise TooLarge if it exceeds ``limit`` bytes.
    """
    content = request.content
    if not content.is_eof() or content.exception() is not None or _is_packed(request):
        return b""
    whole = content.read_nowait()
    if len(whole) > limit:
        raise _too_large(limit)
    return whole


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the body, unpacked; raise TooLarge as soon as it is known to exceed ``limit`` bytes, before or after."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            arriving = request.content.iter_any()
            async for chunk in _unpacked(arriving) if _is_packed(request) else arriving:
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"The body did not arrive within {_BODY_S:.0f} seconds.") from error
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise BadRequest("The body is not what its headers say: its transfer encoding is broken.") from error
    except zlib.error as error:
        raise BadRequest(f"The body is not the gzip that its Content-Encoding says: {error}.") from error
    return b"".join(chunks)


async def _unpacked(packed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unpack gzip, of one member or several, in small pieces: a bomb is noticed before it grows."""
    member = zlib.decompressobj(_GZIP)
    async for chunk in packed:
        rest = chunk
        while rest:
            if member.eof:
                member = zlib.decompressobj(_GZIP)
            yield member.decompress(rest, _PIECE)
            rest = member.unconsumed_tail or member.unused_data
            await asyncio.sleep(0)
    if not member.eof:
        raise zlib.error("it ends too early")


def _is_packed(request: web.Request) -> bool:
    return _encoding(request) == "gzip"


def _encoding(request: web.Request) -> str:
    given = request.headers.get(hdrs.CONTENT_ENCODING)
    return "identity" if given is None else given.strip().lower()


def check_media_type(request: web.Request, accepted: Sequence[str], *, unpacks: bool = False) -> None:
    """Raise 415 for a body that is packed otherwise, or of another type; it need not say which."""
    headers = request.headers
    if headers.get(hdrs.CONTENT_TYPE) in accepted and hdrs.CONTENT_ENCODING not in headers:  # as nearly all do
        return
    if _encoding(request) not in ("identity", *(["gzip"] if unpacks else [])):
        packing = "as it is, or with Content-Encoding: gzip" if unpacks else "as it is, without a Content-Encoding"
        raise web.HTTPUnsupportedMediaType(text=f"Send the body {packing}.")
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
