"""The server's own secret, from which every key that it hashes or signs with is derived."""

import hmac
import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from app.errors import Misconfigured
from app.settings import Settings

_LEAST = 32  # characters: as long as what HMAC-SHA256 and HS256 make of it


class ServerSecret:
    """Makes one key per purpose, so that what is made for one is worth nothing for another."""

    def __init__(self, text: str) -> None:
        self._root = text.encode()

    def key_for(self, purpose: str) -> bytes:
        """Return the 32 bytes that belong to a purpose."""
        return hmac.digest(self._root, purpose.encode(), sha256)


def open_secret(settings: Settings) -> ServerSecret:
    """Return the secret that the settings name: ``SECRET_KEY``, else a file that is made on the first start."""
    given = settings.secret_key.get_secret_value() if settings.secret_key else _stored(settings.data_dir / "server.key")
    if len(given) < _LEAST:
        raise Misconfigured(f"SECRET_KEY, or DATA_DIR/server.key, must have at least {_LEAST} characters.")
    return ServerSecret(given)


def _stored(path: Path) -> str:
    if not path.exists():
        _make(path)
    return path.read_text().strip()


def _make(path: Path) -> None:
    """Write a new secret that only this system user can read. Of several processes at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=".server-key-") as draft:  # made with mode 0600
        draft.write(secrets.token_urlsafe(48) + "\n")
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, path)  # complete or absent: nobody ever reads half a secret
