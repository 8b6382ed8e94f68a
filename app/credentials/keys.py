"""API keys and browser sessions: made, rotated, revoked, and compared.

A key is ``jk_<id>_<secret>``: the id finds its row, and the row holds only a keyed digest of the whole. Who
has the database has no key, and cannot test guesses without the server's secret either.
"""

import hmac
import secrets
from datetime import datetime, timedelta
from hashlib import sha256

from app.clock import utc_now
from app.credentials.scopes import EVERYTHING, Scopes, known_scopes, scopes_text
from app.credentials.secret import ServerSecret
from app.credentials.users import check_user_id
from app.database import Database
from app.errors import BadRequest, Conflict, NotFound
from app.history.api_keys import (
    ApiKey,
    Kind,
    find_key,
    insert_first,
    insert_key,
    insert_session,
    replace_key,
    revoke_key,
)

OVERLAP = timedelta(hours=24)  # how long a rotated key goes on beside its successor
FIRST_USER = "admin"

_MARKS: dict[str, Kind] = {"jk": "key", "js": "session"}
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 16  # 80 bits, which nobody guesses and nothing collides in


class KeyMint:
    """Makes and judges keys with the server's secret."""

    def __init__(self, secret: ServerSecret) -> None:
        self._pepper = secret.key_for("api-keys")

    def make(
        self,
        kind: Kind,
        *,
        user_id: str,
        name: str,
        scopes: Scopes,
        created_by: str,
        expires_at: datetime | None = None,
        parent: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Return what is stored of a new key, and the key itself: it exists nowhere else."""
        mark = next(mark for mark, known in _MARKS.items() if known == kind)
        key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
        token = f"{mark}_{key_id}_{secrets.token_urlsafe(32)}"
        row = ApiKey(
            id=key_id,
            kind=kind,
            digest=self.digest(token),
            user_id=user_id,
            name=name,
            scopes=scopes_text(scopes),
            created_at=utc_now(),
            created_by=created_by,
            expires_at=expires_at,
            parent=parent,
        )
        return row, token

    def digest(self, token: str) -> str:
        """Return the keyed digest of a key."""
        # A header may hold bytes that are no UTF-8, which arrive as lone surrogates.
        return hmac.digest(self._pepper, token.encode(errors="backslashreplace"), sha256).hex()

    def is_of(self, token: str, key: ApiKey) -> bool:
        """Whether a token is the very key that a row stands for; takes the same time wherever they differ."""
        return hmac.compare_digest(self.digest(token), key.digest)


def key_id_of(token: str) -> tuple[Kind, str] | None:
    """Return what a token says it is, a key or a session, and its id; None for what has not the form of one."""
    mark, _, rest = token.partition("_")
    key_id, _, secret = rest.partition("_")
    has_form = mark in _MARKS and len(key_id) == _ID_LENGTH and set(key_id) <= set(_ID_LETTERS) and secret
    return (_MARKS[mark], key_id) if has_form else None


async def create_key(
    database: Database,
    mint: KeyMint,
    *,
    user_id: str,
    name: str,
    scopes: Scopes,
    created_by: str,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key; return its row and the key, which cannot be shown again."""
    check_user_id(user_id)
    check_expiry(expires_at)
    row, token = mint.make(
        "key", user_id=user_id, name=name, scopes=scopes, created_by=created_by, expires_at=expires_at
    )
    await insert_key(database, row)
    return row, token


async def create_first_key(database: Database, mint: KeyMint) -> str | None:
    """Store a key that may do everything if there is no credential yet, and return it."""
    row, token = mint.make("key", user_id=FIRST_USER, name="first key", scopes=EVERYTHING, created_by="first start")
    return token if await insert_first(database, row) else None


async def open_session(
    database: Database,
    mint: KeyMint,
    *,
    user_id: str,
    scopes: Scopes,
    expires_at: datetime,
    parent: str | None = None,
) -> tuple[ApiKey, str]:
    """Store a browser's session, which ends with the key that opened it; return its row and its token."""
    row, token = mint.make(
        "session",
        user_id=user_id,
        name="browser",
        scopes=scopes,
        created_by=user_id,
        expires_at=expires_at,
        parent=parent,
    )
    await insert_session(database, row)
    return row, token


async def rotate_key(
    database: Database,
    mint: KeyMint,
    old: ApiKey,
    *,
    by: str,
    overlap: timedelta = OVERLAP,
    not_after: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Put a new key in the place of ``old``, which goes on for ``overlap``; return the new row and key.

    Two keys live at most: what ``old`` itself had replaced ends now. Raise Conflict if it has a successor
    already, or has ended. The new key lives as long as the old was meant to, but never beyond ``not_after``.
    """
    now = utc_now()
    if old.replaced_by is not None or not old.is_live(now):
        raise Conflict("This key has ended, or was rotated already; rotate its successor, or create a key.")
    ends = [not_after, None if old.expires_at is None else now + (old.expires_at - old.created_at)]
    row, token = mint.make(
        "key",
        user_id=old.user_id,
        name=old.name,
        scopes=known_scopes(old.scopes),
        created_by=by,
        expires_at=min((end for end in ends if end is not None), default=None),
    )
    ends_at = now + overlap if old.expires_at is None else min(now + overlap, old.expires_at)
    if not await replace_key(database, old, row, old_ends_at=ends_at):
        raise Conflict("This key was rotated or revoked just now by somebody else.")
    return row, token


async def end_key(database: Database, key_id: str) -> ApiKey:
    """Revoke a key with the sessions it has opened; return it as it stands. Raise NotFound if there is none."""
    await revoke_key(database, key_id, utc_now())
    held = await find_key(database, key_id)
    if held is None:
        raise NotFound("There is no such key: not found.")
    return held.key


def check_expiry(expires_at: datetime | None) -> None:
    """Raise BadRequest for a time that has passed."""
    if expires_at is not None and expires_at <= utc_now():
        raise BadRequest("expires_at has passed; a key must live for a while.")
