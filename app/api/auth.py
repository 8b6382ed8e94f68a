"""Who is calling: bearer tokens of the administrator and of ordinary users. Imported by the API alone."""

import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from app.errors import Misconfigured
from app.log import get_log
from app.settings import Settings

ADMIN = "admin"  # the administrator's user id

log = get_log()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request."""

    user_id: str
    is_admin: bool

    def may_see(self, owner: str) -> bool:
        """Whether what ``owner`` submitted is this caller's to see."""
        return self.is_admin or owner == self.user_id


NOBODY = Caller(user_id="", is_admin=False)  # who calls an open route


class Keyring:
    """Every API key by its SHA-256 digest; the keys themselves are not kept."""

    def __init__(self, *, admin_key: str, user_keys: dict[str, str]) -> None:
        if ADMIN in user_keys:
            raise Misconfigured(f"API_KEYS must not name the user {ADMIN!r}: that is the administrator's id.")
        callers = [(admin_key, Caller(user_id=ADMIN, is_admin=True))]
        callers += [(key, Caller(user_id=user_id, is_admin=False)) for user_id, key in user_keys.items()]
        self._callers = {_digest(key): caller for key, caller in callers}
        if len(self._callers) < len(callers):
            raise Misconfigured("Two users have the same API key; every key of API_KEYS and ADMIN_API_KEY must differ.")

    def caller_of(self, key: str) -> Caller | None:
        """Return whose key this is. Compares with every digest, so that the time taken tells nothing."""
        digest = _digest(key)
        found = [caller for known, caller in self._callers.items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None


def open_keyring(settings: Settings) -> Keyring:
    """Build the keyring that ``settings`` describe; makes the administrator's key on the very first start."""
    given = settings.admin_api_key.get_secret_value() if settings.admin_api_key else ""
    user_keys = {user_id: key.get_secret_value() for user_id, key in settings.api_keys.items()}
    return Keyring(admin_key=given or _stored_key(settings.data_dir / "admin.key"), user_keys=user_keys)


def bearer_of(authorization: str | None) -> str | None:
    """Return the token of an ``Authorization`` header, None if it holds no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    # A header may hold bytes that are no UTF-8, which arrive as lone surrogates.
    return sha256(key.encode(errors="backslashreplace")).digest()


def _stored_key(path: Path) -> str:
    if not path.exists():
        _make_key(path)
    key = path.read_text().strip()
    if not key:
        raise Misconfigured(f"{path} is empty; delete it to have a new key made, or set ADMIN_API_KEY.")
    return key


def _make_key(path: Path) -> None:
    """Write a new key that only this system user can read. Of several processes at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=".admin-key-") as draft:  # made with mode 0600
        draft.write(secrets.token_urlsafe(32) + "\n")
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, path)  # complete or absent: nobody ever reads half a key
            log.info("admin_key_generated", path=str(path))
