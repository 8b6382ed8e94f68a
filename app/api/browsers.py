"""What browsers need: a session in a cookie, a token against forged requests, and a look at where one comes from."""

import hmac
from collections.abc import Collection
from hashlib import sha256

from aiohttp import hdrs, web
from yarl import URL

from app.api.auth import Caller, Keyring
from app.errors import Forbidden

COOKIE = "jobs_session"
CSRF_HEADER = "X-CSRF-Token"

_SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


async def cookie_caller(request: web.Request, keyring: Keyring) -> Caller | None:
    """Return whose session a request's cookie stands for.

    A browser sends cookies whoever made it send the request: what changes anything must come from our own
    pages, which know the session's CSRF token, or Forbidden is raised.
    """
    session = request.cookies.get(COOKIE)
    if session is None:
        return None
    caller = await keyring.session_of(session)
    if caller is not None and request.method not in _SAFE:
        check_own_origin(request)
        if not hmac.compare_digest(request.headers.get(CSRF_HEADER, "").encode(), csrf_token(session).encode()):
            raise Forbidden(f"Requests with a session cookie need its CSRF token in the header {CSRF_HEADER}.")
    return caller


def csrf_token(session: str) -> str:
    """Return the CSRF token of a session: only who knows the session can make it, and it does not tell that."""
    return hmac.digest(session.encode(), b"csrf", sha256).hex()


def set_cookie(
    request: web.Request, response: web.StreamResponse, session: str, *, max_age_s: int, is_secure: bool
) -> None:
    """Hand a session to a browser, out of reach of its scripts and of other sites."""
    response.set_cookie(
        COOKIE,
        session,
        max_age=max_age_s,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=is_secure and not _is_local(request),
    )


def drop_cookie(response: web.StreamResponse) -> None:
    """Take the session back from a browser."""
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")


def check_own_origin(request: web.Request) -> None:
    """Raise Forbidden for a request that a page of another origin made a browser send."""
    check_origin(request, allowed=())


def check_origin(request: web.Request, *, allowed: Collection[str]) -> None:
    """Raise Forbidden for a request from a page that is neither our own nor of an allowed origin.

    Programs that are no browsers send no origin, and nobody makes them send requests.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or origin in allowed or "*" in allowed or _is_own(origin, request):
        return
    raise Forbidden(f"Pages of {origin[:200]!r} may not do this; CORS_ORIGINS names those that may.")


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether an origin is the host that was asked; not its scheme, which a proxy in front may have changed."""
    scheme, _, host = origin.partition("://")
    return scheme in {"http", "https"} and host.lower() == request.host.lower()


def _is_local(request: web.Request) -> bool:
    try:
        return URL(f"//{request.host}").host in _LOOPBACK
    except ValueError:
        return False
