"""Tokens of an outside issuer, checked with the keys that it publishes (a JWKS)."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import jwt
import orjson

from app.credentials.scopes import Scopes, known_scopes
from app.errors import Misconfigured, Unavailable
from app.log import get_log
from app.settings import Settings

log = get_log()

_FAMILIES = {"RS256": "RSA", "ES256": "EC"}  # by algorithm, the type that its key must have
_CURVE = "P-256"  # the one of ES256
_FETCH_S = 5.0
_FRESH_S = 600.0  # a key that the issuer has withdrawn is good for no longer
_PAUSE_S = 10.0  # between two tries, so that made-up key ids ask nothing of the issuer
_MOST = 256 * 1024  # bytes of a key set
_LEEWAY_S = 10  # how far the issuer's clock may be off
_LONGEST_SUBJECT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom an outside issuer vouches for."""

    user_id: str
    scopes: Scopes
    expires_at: datetime


class Issuer:
    """One outside issuer and its keys. One instance a process."""

    def __init__(self, *, issuer: str, audience: str, jwks_url: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._url = jwks_url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._turn = asyncio.Lock()

    async def read(self, text: str) -> Subject | None:
        """Return whom a token speaks for; None if it will not do. Raise Unavailable while there are no keys."""
        try:
            key_id = jwt.get_unverified_header(text).get("kid")
        except (jwt.InvalidTokenError, UnicodeError):
            return None
        key = await self._key(key_id) if isinstance(key_id, str) else None
        return None if key is None else self._subject(text, key)

    def _subject(self, text: str, key: jwt.PyJWK) -> Subject | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],  # the one its key is for, whatever the token asks for
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        except (jwt.InvalidTokenError, UnicodeError, OverflowError, ValueError):
            return None
        user_id = claims["sub"]
        if not 0 < len(user_id) <= _LONGEST_SUBJECT or not user_id.isprintable():
            return None
        return Subject(user_id=user_id, scopes=known_scopes(_scope_text(claims)), expires_at=expires_at)

    async def _key(self, key_id: str) -> jwt.PyJWK | None:
        if key_id not in self._keys or not self._is_fresh():
            async with self._turn:
                if key_id not in self._keys or not self._is_fresh():
                    await self._refresh()
        return self._keys.get(key_id)

    def _is_fresh(self) -> bool:
        return self._read_at is not None and time.monotonic() - self._read_at < _FRESH_S

    async def _refresh(self) -> None:
        now = time.monotonic()
        if self._tried_at is None or now - self._tried_at >= _PAUSE_S:
            self._tried_at = now
            try:
                self._keys = _keys_in(await _fetch(self._url))
                self._read_at = now
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.warning("issuer_keys_not_read", reason=repr(error))
        if not self._is_fresh():
            self._keys = {}
            raise Unavailable("The keys of the issuer of this token cannot be read; try again shortly.")


def open_issuer(settings: Settings) -> Issuer | None:
    """Return the outside issuer that the settings name, None if none; raise Misconfigured for half of one."""
    given = (settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks_url)
    if not any(given):
        return None
    if not all(given):
        raise Misconfigured("JWT_ISSUER, JWT_AUDIENCE and JWT_JWKS_URL belong together: set all three, or none.")
    issuer, audience, url = given
    return Issuer(issuer=issuer, audience=audience, jwks_url=url)


async def _fetch(url: str) -> bytes:
    limit = aiohttp.ClientTimeout(total=_FETCH_S)
    async with (
        aiohttp.ClientSession(timeout=limit, trust_env=False) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"the key set was answered with {answer.status}")
        text = await answer.content.read(_MOST + 1)
        while len(text) <= _MOST and (more := await answer.content.read(_MOST + 1 - len(text))):
            text += more
    if len(text) > _MOST:
        raise ValueError(f"the key set is larger than {_MOST} bytes")
    return text


def _keys_in(text: bytes) -> dict[str, jwt.PyJWK]:
    """Return the signing keys of a key set by their ids; those of other algorithms are left out."""
    document = orjson.loads(text)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the key set has no list of keys")
    found = {}
    for entry in listed:
        key = _key_in(entry)
        if key is not None and key.key_id is not None:
            found[key.key_id] = key
    return found


def _key_in(entry: object) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    fitting = [algorithm for algorithm, family in _FAMILIES.items() if family == entry.get("kty")]
    if not fitting or entry.get("alg", fitting[0]) != fitting[0] or entry.get("crv", _CURVE) != _CURVE:
        return None
    try:
        return jwt.PyJWK(entry, algorithm=fitting[0])
    except jwt.PyJWTError:
        return None


def _scope_text(claims: dict[str, Any]) -> str:
    said = claims.get("scope", claims.get("scp", ""))
    words = said if isinstance(said, list) else [said]
    return " ".join(word for word in words if isinstance(word, str))
