"""The secrets of webhooks: they sign, so they are kept as they are, but sealed with the server's own secret."""

import base64
import binascii
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.credentials.secret import ServerSecret, open_secret
from app.errors import Discard
from app.settings import Settings

PREFIX = "whsec_"
_NONCE = 12  # bytes, as GCM wants them


class SecretUnreadable(Discard):
    """The secret was sealed with another SECRET_KEY; rotate it, or give every process the same SECRET_KEY."""

    code = "secret_unreadable"


class WebhookSecrets:
    """Makes secrets, and seals them so that a copy of the database signs nothing."""

    def __init__(self, secret: ServerSecret) -> None:
        self._cipher = AESGCM(secret.key_for("webhook-secrets"))

    def make(self) -> str:
        """Return a new secret, as Standard Webhooks writes it."""
        return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()

    def seal(self, secret: str, *, webhook_id: str) -> str:
        """Return what is stored of a secret; it opens for the same webhook alone."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, *, webhook_id: str) -> str:
        """Return the secret; raise SecretUnreadable if another server's secret has sealed it."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], webhook_id.encode()).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SecretUnreadable from error


def open_webhook_secrets(settings: Settings) -> WebhookSecrets:
    """Return what seals and opens with the secret that the settings name."""
    return WebhookSecrets(open_secret(settings))
