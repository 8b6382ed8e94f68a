"""The routes of logins: a token for a password, a browser's session, and tickets for its websockets."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from pydantic import Field

from app.api.auth import Caller
from app.api.browsers import COOKIE, check_own_origin, csrf_token, drop_cookie, set_cookie
from app.api.endpoint import Access, Call, Endpoint, endpoint, json_response
from app.api.resources import KEYRING, LOGINS
from app.clock import utc_now
from app.credentials.keys import end_key, key_id_of, open_session
from app.credentials.passwords import MOST
from app.credentials.scopes import Scope, known_scopes, scopes_text
from app.credentials.tokens import TICKET_TTL
from app.errors import BadRequest, Unauthenticated
from app.history.users import User, find_user
from app.jobs.fields import Model
from app.jobs.validation import parse_json, validate
from app.log import get_log

log = get_log()

_FORM = "application/x-www-form-urlencoded"
_MOST_BODY = 8 * 1024
_NO_STORE = {"Cache-Control": "no-store"}


class LoginForm(Model):
    """A name and a password, as OAuth 2's password grant sends them."""

    username: Annotated[str, Field(min_length=1, max_length=255)]
    """Who wants in."""
    password: Annotated[str, Field(min_length=1, max_length=MOST)]
    """The password."""
    session: bool = False
    """Whether a browser wants a session in a cookie as well."""
    grant_type: Literal["password"] | None = None
    """What OAuth 2 clients send; there is no other."""
    scope: str = ""
    """What OAuth 2 clients send; a token has the scopes of its user, whatever is asked for."""
    client_id: str = ""
    """What OAuth 2 clients send; not used."""
    client_secret: str = ""
    """What OAuth 2 clients send; not used."""


class AccessToken(Model):
    """A bearer token for a while."""

    access_token: str
    """Send it as ``Authorization: Bearer …``."""
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # a word of OAuth 2
    """Always the same."""
    expires_in: int
    """For how many seconds it holds."""
    scope: str
    """What it allows, joined by spaces."""
    csrf_token: str | None = None
    """With a session: what unsafe requests send in the header ``X-CSRF-Token``."""


class Session(Model):
    """Who is calling, and what they may do."""

    user_id: str
    """Who."""
    is_admin: bool
    """Whether they may do everything."""
    scopes: tuple[str, ...]
    """What they may do."""
    expires_at: datetime | None
    """When the credential ends by itself."""
    csrf_token: str | None
    """With a session cookie: what unsafe requests send in the header ``X-CSRF-Token``."""


class Ticket(Model):
    """What opens one websocket from a browser, which cannot send headers there."""

    ticket: str
    """Append it to the websocket's address as ``?ticket=…``; it works once."""
    expires_in: int
    """For how many seconds it can be used."""


def session_endpoints() -> Iterator[Endpoint]:
    """Yield the routes below ``/api``."""
    yield endpoint(
        "POST",
        "/auth/login",
        log_in,
        access=Access.OPEN,
        body=LoginForm,
        body_limit=_MOST_BODY,
        media_types=(_FORM, "application/json"),
    )
    yield endpoint("POST", "/auth/session", start_session, scope=Scope.TASKS_READ, status=201)
    yield endpoint("GET", "/auth/session", show_session)
    yield endpoint("DELETE", "/auth/session", end_session, scope=Scope.TASKS_READ)
    yield endpoint("POST", "/auth/ticket", give_ticket, scope=Scope.TASKS_READ, status=201)


async def log_in(call: Call, raw: bytes) -> web.Response:
    """Get a short-lived bearer token for a name and a password, and a browser's session on request."""
    form = _read_form(call.request, raw)
    if form.session:
        check_own_origin(call.request)
    user = await _known_user(call, form)
    settings, keyring = call.installation.settings, call.request.app[KEYRING]
    answer = AccessToken(
        access_token=keyring.access_token(user, timedelta(seconds=settings.access_token_ttl_s)),
        expires_in=settings.access_token_ttl_s,
        scope=user.scopes,
    )
    if not form.session:
        return json_response(answer, headers=_NO_STORE)
    scopes = known_scopes(user.scopes)
    caller = Caller(user_id=user.id, is_admin=Scope.ADMIN in scopes, scopes=scopes)
    token, _ = await _open(call, caller)
    response = json_response(answer.model_copy(update={"csrf_token": csrf_token(token)}), headers=_NO_STORE)
    _hand_over(call, response, token)
    return response


async def start_session(call: Call) -> web.Response:
    """Start a browser's session with the credential of this request; it ends with that credential."""
    check_own_origin(call.request)
    token, expires_at = await _open(call, call.caller)
    shown = _session_of(call.caller, expires_at, csrf_token(token))
    response = json_response(shown, status=201, headers=_NO_STORE)
    _hand_over(call, response, token)
    return response


async def show_session(call: Call) -> Session:
    """Show who is calling, and what they may do."""
    cookie = call.request.cookies.get(COOKIE)
    is_by_cookie = cookie is not None and hdrs.AUTHORIZATION not in call.request.headers
    call.headers.update(_NO_STORE)
    return _session_of(call.caller, call.caller.ends_at, csrf_token(cookie) if cookie and is_by_cookie else None)


async def end_session(call: Call) -> web.Response:
    """End the browser's session of this request's cookie, and take the cookie back."""
    cookie = call.request.cookies.get(COOKIE, "")
    key = key_id_of(cookie)
    keyring = call.request.app[KEYRING]
    if key is None or await keyring.session_of(cookie) is None:
        raise BadRequest("There is no session to end: the request has no session cookie.")
    await end_key(call.installation.database, key[1])
    keyring.forget_key(key[1])
    response = json_response(_session_of(call.caller, utc_now(), None), headers=_NO_STORE)
    drop_cookie(response)
    return response


async def give_ticket(call: Call) -> Ticket:
    """Get a ticket that opens one websocket within half a minute, for browsers."""
    call.headers.update(_NO_STORE)
    return Ticket(ticket=call.request.app[KEYRING].ticket(call.caller), expires_in=int(TICKET_TTL.total_seconds()))


def _read_form(request: web.Request, raw: bytes) -> LoginForm:
    if request.content_type == "application/json":
        return validate(LoginForm, parse_json(raw))
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=20)
    except ValueError as error:
        raise BadRequest("The body is no form: send username=…&password=….") from error
    return validate(LoginForm, dict(fields))


async def _known_user(call: Call, form: LoginForm) -> User:
    """Return who has logged in; raise Unauthenticated, which never tells whether there is such a user."""
    logins, address = call.request.app[LOGINS], call.request.remote or ""
    await logins.throttle.take(form.username, address)
    user = await find_user(call.installation.database, form.username)
    is_right = await logins.passwords.is_right(form.password, user.password_hash if user else None)
    if user is None or user.disabled_at is not None or not is_right:
        log.info("login_refused", address=address)
        raise Unauthenticated("The name or the password is wrong, or the user is disabled.")
    await logins.throttle.succeed(form.username, address)
    return user


async def _open(call: Call, caller: Caller) -> tuple[str, datetime]:
    """Store a session of a caller; return its token and its end."""
    keyring, settings = call.request.app[KEYRING], call.installation.settings
    expires_at = utc_now() + timedelta(seconds=settings.session_ttl_s)
    if caller.ends_at is not None:
        expires_at = min(expires_at, caller.ends_at)
    kind, _, key_id = caller.proof.partition(":")
    _, token = await open_session(
        call.installation.database,
        keyring.mint,
        user_id=caller.user_id,
        scopes=caller.scopes,
        expires_at=expires_at,
        parent=key_id if kind == "key" else None,
    )
    return token, expires_at


def _hand_over(call: Call, response: web.Response, token: str) -> None:
    settings = call.installation.settings
    set_cookie(call.request, response, token, max_age_s=settings.session_ttl_s, is_secure=settings.cookie_secure)


def _session_of(caller: Caller, expires_at: datetime | None, token: str | None) -> Session:
    return Session(
        user_id=caller.user_id,
        is_admin=caller.is_admin,
        scopes=tuple(scopes_text(caller.scopes).split()),
        expires_at=expires_at,
        csrf_token=token,
    )
