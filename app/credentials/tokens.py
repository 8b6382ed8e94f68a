"""Tokens that the service signs itself: access tokens for a login, tickets for a browser's websocket.

One algorithm, one issuer, one audience a purpose: what a token's own header asks for is not listened to.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt

from app.clock import new_id, utc_now
from app.credentials.scopes import Scopes, known_scopes, scopes_text
from app.credentials.secret import ServerSecret

ISSUER = "asyncjobs"
TICKET_TTL = timedelta(seconds=30)

Purpose = Literal["access", "ticket"]

_ALGORITHM = "HS256"
_CLAIMS = ["iss", "aud", "sub", "iat", "exp", "jti", "scope", "proof"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says, once it is known to be ours and to hold."""

    id: str
    user_id: str
    scopes: Scopes
    proof: str  # the credential that it stands for, as the keyring names them
    expires_at: datetime


class Tokens:
    """Signs and reads tokens with a key of each purpose."""

    def __init__(self, secret: ServerSecret) -> None:
        self._keys = {purpose: secret.key_for(f"token:{purpose}") for purpose in ("access", "ticket")}

    def sign(self, purpose: Purpose, *, user_id: str, scopes: Scopes, proof: str, ttl: timedelta) -> str:
        """Return a token that holds for ``ttl``."""
        now = utc_now()
        claims = {
            "iss": ISSUER,
            "aud": f"{ISSUER}:{purpose}",
            "sub": user_id,
            "iat": int(now.timestamp()),
            "exp": int((now + ttl).timestamp()),
            "jti": new_id(),
            "scope": scopes_text(scopes),
            "proof": proof,
        }
        return jwt.encode(claims, self._keys[purpose], algorithm=_ALGORITHM)

    def read(self, purpose: Purpose, text: str) -> Token | None:
        """Return what a token says; None if it is not one of ours, not for this purpose, or has expired."""
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                self._keys[purpose],
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                audience=f"{ISSUER}:{purpose}",
                options={"require": _CLAIMS},
            )
        except (jwt.InvalidTokenError, UnicodeError):
            return None
        return Token(
            id=claims["jti"],
            user_id=claims["sub"],
            scopes=known_scopes(claims["scope"]),
            proof=claims["proof"],
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )


def looks_like_token(text: str) -> bool:
    """Whether a bearer token has the form of a JWT: three parts and the dots between them."""
    return text.count(".") == 2
