"""The routes of API keys: everybody makes and ends their own, administrators everybody's."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated

from aiohttp import hdrs
from pydantic import Field

from app.api.auth import Caller
from app.api.endpoint import Call, Endpoint, endpoint
from app.api.filters import Limit, Offset, Text
from app.api.resources import KEYRING
from app.credentials.keys import OVERLAP, create_key, end_key, rotate_key
from app.credentials.scopes import ORDINARY, Scope, Scopes, covers, parse_scopes, scopes_text
from app.errors import Forbidden, NotFound
from app.history.api_keys import ApiKey, find_key, list_keys
from app.jobs.fields import Identifier, Model, Moment


class NewKey(Model):
    """What a new key is for."""

    name: Identifier
    """What people call it."""
    user_id: Identifier | None = None
    """Whose it is; by default the caller's own, and only administrators name another."""
    scopes: tuple[str, ...] | None = None
    """What it allows; by default what the caller's own allows of tasks:read, tasks:write and records:write."""
    expires_at: Moment | None = None
    """When it ends; by default never, or when the key that makes it does."""


class Rotation(Model):
    """How a key is put in another's place."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = int(OVERLAP.total_seconds())
    """For how long the old key goes on."""


class Key(Model):
    """One key, without its secret."""

    key_id: str
    """Its public part."""
    name: str
    """What people call it."""
    user_id: str
    """Whose it is."""
    scopes: tuple[str, ...]
    """What it allows."""
    created_at: datetime
    """When it was made."""
    created_by: str
    """Who made it."""
    expires_at: datetime | None
    """When it ends by itself."""
    revoked_at: datetime | None
    """When it was revoked."""
    last_used_at: datetime | None
    """When it was used last, to about a minute."""
    replaced_by: str | None
    """The key that a rotation put in its place."""


class ShownKey(Key):
    """A new key, with its secret."""

    key: str
    """The key itself. It is shown this once, and cannot be had again."""


class KeyList(Model):
    """Some keys."""

    keys: tuple[Key, ...]
    """The newest first, those that have ended too."""
    total_count: int
    """How many there are."""
    limit: int
    """The most keys of this answer."""
    offset: int
    """How many were left out from the start."""


class KeyQuery(Model):
    """Which keys are meant."""

    user_id: Text | None = None
    """Whose; by default the caller's own, for administrators everybody's."""
    limit: Limit = 100
    """The most keys to answer."""
    offset: Offset = 0
    """How many to leave out from the start."""


def key_endpoints() -> Iterator[Endpoint]:
    """Yield the routes below ``/api``."""
    yield endpoint("POST", "/keys", make_key, status=201, is_audited=True)
    yield endpoint("GET", "/keys", show_keys)
    yield endpoint("GET", "/keys/{key_id}", show_key)
    yield endpoint("POST", "/keys/{key_id}/rotate", replace_key, status=201, is_audited=True)
    yield endpoint("POST", "/keys/{key_id}/revoke", revoke_key, is_audited=True, operation_id="revoke_key_by_post")
    yield endpoint("DELETE", "/keys/{key_id}", revoke_key, is_audited=True)


async def make_key(call: Call, body: NewKey) -> ShownKey:
    """Make a key; this answer is the only one that shows it."""
    caller, user_id = call.caller, body.user_id or call.caller.user_id
    if user_id != caller.user_id:
        _note_foreign(call, user_id)
    row, key = await create_key(
        call.installation.database,
        call.request.app[KEYRING].mint,
        user_id=user_id,
        name=body.name,
        scopes=_scopes_for(caller, body),
        created_by=caller.user_id,
        expires_at=_end_for(caller, body.expires_at),
    )
    return _shown(call, row, key)


async def show_keys(call: Call, query: KeyQuery) -> KeyList:
    """List keys, without their secrets."""
    user_id = query.user_id if call.caller.is_admin else call.caller.user_id
    if query.user_id not in (None, user_id):
        raise Forbidden(f"To see another user's keys needs the scope {Scope.ADMIN.value!r}.")
    keys, total = await list_keys(call.installation.database, user_id=user_id, limit=query.limit, offset=query.offset)
    return KeyList(keys=tuple(map(_key, keys)), total_count=total, limit=query.limit, offset=query.offset)


async def show_key(call: Call) -> Key:
    """Show one key, without its secret."""
    return _key(await _find(call))


async def replace_key(call: Call, query: Rotation) -> ShownKey:
    """Make a key that takes the place of this one, which goes on for a while; at most two of a line live."""
    old = await _find(call)
    keyring, caller = call.request.app[KEYRING], call.caller
    _check_reach(caller, frozenset(parse_scopes(old.scopes.split())))
    row, key = await rotate_key(
        call.installation.database,
        keyring.mint,
        old,
        by=caller.user_id,
        overlap=timedelta(seconds=query.overlap_seconds),
        not_after=_latest_end(caller),
    )
    keyring.forget_key(old.id)
    return _shown(call, row, key)


async def revoke_key(call: Call) -> Key:
    """End a key now, and the sessions that it has opened; every process refuses it within 5 seconds."""
    found = await _find(call)
    ended = await end_key(call.installation.database, found.id)
    call.request.app[KEYRING].forget_key(found.id)
    return _key(ended)


async def _find(call: Call) -> ApiKey:
    """Return the key that the path names; raise NotFound if the caller has none of that id."""
    held = await find_key(call.installation.database, call.request.match_info["key_id"])
    key = held.key if held is not None and held.key.kind == "key" else None
    if key is None or not call.caller.may_see(key.user_id):
        raise NotFound("There is no such key: not found.")
    if key.user_id != call.caller.user_id:
        call.foreign.append(key.user_id)
    return key


def _note_foreign(call: Call, user_id: str) -> None:
    if not call.caller.is_admin:
        raise Forbidden(f"To make keys of another user needs the scope {Scope.ADMIN.value!r}.")
    call.foreign.append(user_id)


def _scopes_for(caller: Caller, body: NewKey) -> Scopes:
    if body.scopes is None:
        return ORDINARY if caller.is_admin else ORDINARY & caller.scopes
    wanted = parse_scopes(body.scopes)
    _check_reach(caller, wanted)
    return wanted


def _check_reach(caller: Caller, wanted: Scopes) -> None:
    """Raise Forbidden for a key that would allow more than the one that makes it."""
    if caller.is_admin or covers(caller.scopes, wanted):
        return
    beyond = scopes_text(wanted - caller.scopes).replace(" ", ", ")
    raise Forbidden(f"A key allows no more than the one that makes it, which does not have: {beyond}.")


def _end_for(caller: Caller, wanted: datetime | None) -> datetime | None:
    latest = _latest_end(caller)
    if latest is not None and wanted is not None and wanted > latest:
        raise Forbidden("A key lives no longer than the one that makes it.")
    return wanted or latest


def _latest_end(caller: Caller) -> datetime | None:
    """Return how long a caller's keys may live: no longer than what makes them, unless that is a login's token."""
    return None if caller.proof.startswith("login:") else caller.ends_at


def _shown(call: Call, row: ApiKey, key: str) -> ShownKey:
    call.headers[hdrs.CACHE_CONTROL] = "no-store"
    call.headers[hdrs.LOCATION] = f"/api/keys/{row.id}"
    return ShownKey(**dict(_key(row)), key=key)


def _key(row: ApiKey) -> Key:
    return Key(
        key_id=row.id,
        name=row.name,
        user_id=row.user_id,
        scopes=tuple(row.scopes.split()),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        replaced_by=row.replaced_by,
    )
