"""Who is calling: what a bearer token, a cookie or a ticket proves. Imported by the API alone."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from app.api.fresh import Fresh
from app.clock import utc_now
from app.credentials.issuer import Issuer, open_issuer
from app.credentials.keys import KeyMint, key_id_of
from app.credentials.scopes import EVERYTHING, ORDINARY, Scope, Scopes, known_scopes
from app.credentials.secret import open_secret
from app.credentials.tokens import TICKET_TTL, Token, Tokens, looks_like_token
from app.database import Database
from app.errors import Misconfigured, Unavailable
from app.history.api_keys import HeldKey, find_key, note_uses
from app.history.users import User, find_user, use_ticket
from app.log import get_log
from app.settings import Settings

ADMIN = "admin"  # the administrator's user id

log = get_log()

_FRESH_S = 3.0  # how long what the database says of a credential is believed
_LOOK_S = 1.0  # between two looks at whether the credential of an open socket still holds
_NOTE_S = 60.0  # between two notes of when keys were used
_REMEMBERED = 10_000  # credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request."""

    user_id: str
    is_admin: bool
    scopes: Scopes = ORDINARY
    proof: str = "setting"  # what shows who it is: "setting", "key:<id>", "login:<generation>" or "issuer"
    ends_at: datetime | None = None  # when that ends by itself

    def may_see(self, owner: str) -> bool:
        """Whether what ``owner`` submitted is this caller's to see."""
        return self.is_admin or owner == self.user_id

    def may(self, scope: Scope) -> bool:
        """Whether the credential allows this."""
        return self.is_admin or scope in self.scopes

    def may_act_for(self, user_id: str) -> bool:
        """Whether a task or a record of this caller's may be about a user."""
        return user_id == self.user_id or self.may(Scope.ANY_USER)


NOBODY = Caller(user_id="", is_admin=False, scopes=frozenset())  # who calls an open route


class StaticKeys:
    """The keys that the settings name, by their SHA-256 digests; the keys themselves are not kept."""

    def __init__(self, *, admin_key: str | None, user_keys: Mapping[str, str]) -> None:
        if ADMIN in user_keys:
            raise Misconfigured(f"API_KEYS must not name the user {ADMIN!r}: that is the administrator's id.")
        callers = [(key, Caller(user_id=user_id, is_admin=False)) for user_id, key in user_keys.items()]
        if admin_key is not None:
            callers.append((admin_key, Caller(user_id=ADMIN, is_admin=True, scopes=EVERYTHING)))
        self._callers = {_digest(key): caller for key, caller in callers}
        if len(self._callers) < len(callers):
            raise Misconfigured("Two users have the same API key; every key of API_KEYS and ADMIN_API_KEY must differ.")

    def caller_of(self, key: str) -> Caller | None:
        """Return whose key this is. It is found by its digest, of which the time taken tells nothing useful."""
        return self._callers.get(_digest(key))


class Keyring:
    """Every credential that the service takes. One instance a process.

    What the database says of a credential is believed for three seconds, so that a request costs no query
    and what is revoked anywhere is refused everywhere soon.
    """

    def __init__(
        self,
        *,
        static: StaticKeys,
        database: Database,
        mint: KeyMint,
        tokens: Tokens,
        issuer: Issuer | None = None,
    ) -> None:
        self.mint = mint
        self._static = static
        self._database = database
        self._tokens = tokens
        self._issuer = issuer
        self._keys: Fresh[str, HeldKey | None] = Fresh(self._find_key, ttl_s=_FRESH_S, limit=_REMEMBERED)
        self._users: Fresh[str, User | None] = Fresh(self._find_user, ttl_s=_FRESH_S, limit=_REMEMBERED)
        self._uses: dict[str, datetime] = {}

    async def caller_of(self, token: str) -> Caller | None:
        """Return who holds a bearer token; None if nobody does. Raise Unavailable when that cannot be told now."""
        known = self._static.caller_of(token)
        if known is not None:
            return known
        key = key_id_of(token)
        if key is not None:
            kind, key_id = key
            return await self._key_holder(token, key_id) if kind == "key" else None
        return await self._token_holder(token) if looks_like_token(token) else None

    async def session_of(self, cookie: str) -> Caller | None:
        """Return whose browser session a cookie stands for."""
        key = key_id_of(cookie)
        return await self._key_holder(cookie, key[1]) if key is not None and key[0] == "session" else None

    async def still_holds(self, caller: Caller) -> bool:
        """Whether what once showed who a caller is would do so still."""
        if caller.ends_at is not None and caller.ends_at <= utc_now():
            return False
        kind, _, what = caller.proof.partition(":")
        match kind:
            case "key":
                held = await self._keys.get(what)
                return held is not None and _is_good(held)
            case "login":
                return await self._has_generation(caller.user_id, what)
            case "issuer":
                return not await self._is_disabled(caller.user_id)
        return kind == "setting"

    async def lost(self, caller: Caller) -> None:
        """Return once a caller's credential no longer holds; while that cannot be told it is taken to hold."""
        while True:
            try:
                if not await self.still_holds(caller):
                    return
            except Unavailable:
                pass
            await asyncio.sleep(_LOOK_S)

    def access_token(self, user: User, ttl: timedelta) -> str:
        """Return a token for somebody who has just logged in."""
        proof = f"login:{user.generation}"
        scopes = known_scopes(user.scopes)
        return self._tokens.sign("access", user_id=user.id, scopes=scopes, proof=proof, ttl=ttl)

    def ticket(self, caller: Caller) -> str:
        """Return what lets a browser open one websocket as this caller, within half a minute."""
        return self._tokens.sign(
            "ticket", user_id=caller.user_id, scopes=caller.scopes, proof=_with_end(caller), ttl=TICKET_TTL
        )

    async def ticket_holder(self, ticket: str) -> Caller | None:
        """Use up a ticket, and return whose it was; None if it will not do, or was used by anybody before."""
        token = self._tokens.read("ticket", ticket)
        if token is None:
            return None
        caller = _ticket_caller(token)
        fresh = await use_ticket(self._database, token.id, expires_at=token.expires_at, now=utc_now())
        return caller if fresh and await self.still_holds(caller) else None

    def forget_key(self, key_id: str) -> None:
        """Ask the database when a key is used next, because this process has changed it."""
        self._keys.forget(key_id)

    async def note_uses(self) -> None:
        """Note now and then when keys were used, for ever."""
        while True:
            await asyncio.sleep(_NOTE_S)
            await self.note_uses_now()

    async def note_uses_now(self) -> None:
        """Note when keys were used since the last note; an outage of the database loses the note, nothing else."""
        uses, self._uses = self._uses, {}
        try:
            if uses:
                await note_uses(self._database, uses)
        except Unavailable as error:
            log.warning("key_uses_not_noted", reason=error.message)

    async def _key_holder(self, token: str, key_id: str) -> Caller | None:
        held = await self._keys.get(key_id)
        if held is None or not self.mint.is_of(token, held.key) or not _is_good(held):
            return None
        key = held.key
        self._uses[key.id] = utc_now()
        return _caller(key.user_id, known_scopes(key.scopes), f"key:{key.id}", key.expires_at)

    async def _token_holder(self, text: str) -> Caller | None:
        token = self._tokens.read("access", text)
        if token is not None:
            caller = _caller(token.user_id, token.scopes, token.proof, token.expires_at)
            return caller if await self.still_holds(caller) else None
        if self._issuer is None:
            return None
        subject = await self._issuer.read(text)
        if subject is None or await self._is_disabled(subject.user_id):
            return None
        return _caller(subject.user_id, subject.scopes, "issuer", subject.expires_at)

    async def _has_generation(self, user_id: str, generation: str) -> bool:
        user = await self._users.get(user_id)
        return user is not None and user.disabled_at is None and str(user.generation) == generation

    async def _is_disabled(self, user_id: str) -> bool:
        user = await self._users.get(user_id)
        return user is not None and user.disabled_at is not None

    async def _find_key(self, key_id: str) -> HeldKey | None:
        return await find_key(self._database, key_id)

    async def _find_user(self, user_id: str) -> User | None:
        return await find_user(self._database, user_id)


def open_keyring(settings: Settings, database: Database) -> Keyring:
    """Build the keyring that ``settings`` describe; makes the server's secret on the very first start."""
    secret = open_secret(settings)
    return Keyring(
        static=static_keys(settings),
        database=database,
        mint=KeyMint(secret),
        tokens=Tokens(secret),
        issuer=open_issuer(settings),
    )


def static_keys(settings: Settings) -> StaticKeys:
    """Return the keys that ``settings`` name, and the administrator's of an older installation."""
    return StaticKeys(
        admin_key=admin_key_of(settings),
        user_keys={user_id: key.get_secret_value() for user_id, key in settings.api_keys.items()},
    )


def admin_key_of(settings: Settings) -> str | None:
    """Return the administrator's key of the settings, else the one in ``DATA_DIR/admin.key`` if that is there."""
    if settings.admin_api_key is not None:
        return settings.admin_api_key.get_secret_value()
    path = settings.data_dir / "admin.key"
    if not path.exists():
        return None
    key = path.read_text().strip()
    if not key:
        raise Misconfigured(f"{path} is empty; delete it, or set ADMIN_API_KEY.")
    return key


def bearer_of(authorization: str | None) -> str | None:
    """Return the token of an ``Authorization`` header, None if it holds no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _caller(user_id: str, scopes: Scopes, proof: str, ends_at: datetime | None) -> Caller:
    return Caller(user_id=user_id, is_admin=Scope.ADMIN in scopes, scopes=scopes, proof=proof, ends_at=ends_at)


def _is_good(held: HeldKey) -> bool:
    return held.key.is_live(utc_now()) and not held.is_owner_disabled


def _with_end(caller: Caller) -> str:
    """Write what a ticket must remember of its caller's proof: the credential, and when that ends."""
    ends = int(caller.ends_at.timestamp()) if caller.ends_at is not None else ""
    return f"{caller.proof}@{ends}"


def _ticket_caller(token: Token) -> Caller:
    proof, _, ends = token.proof.rpartition("@")
    ends_at = datetime.fromtimestamp(int(ends), utc_now().tzinfo) if ends else None
    return _caller(token.user_id, token.scopes, proof, ends_at)


def _digest(key: str) -> bytes:
    # A header may hold bytes that are no UTF-8, which arrive as lone surrogates.
    return sha256(key.encode(errors="backslashreplace")).digest()
