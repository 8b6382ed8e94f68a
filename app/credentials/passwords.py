"""Passwords: hashed with argon2, beside the event loop, and never many at once."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import BadRequest, Unavailable

LEAST, MOST = 12, 1024  # characters

_AT_ONCE = 2  # a hash takes 19 MiB and some hundredths of a second
_WAITING = 32  # more than these would wait for longer than their clients do

R = TypeVar("R")


class Passwords:
    """Hashes and checks passwords. One instance a process."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # argon2id as OWASP advises
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._waiting = 0
        self._nobodys_hash: str | None = None

    async def hash(self, password: str) -> str:
        """Return the hash of a password; raise BadRequest for one that will not do."""
        if not LEAST <= len(password) <= MOST:
            raise BadRequest(f"A password has {LEAST} to {MOST} characters, not {len(password)}.")
        return await self._beside_the_loop(lambda: self._hasher.hash(_bytes(password)))

    async def is_right(self, password: str, known_hash: str | None) -> bool:
        """Whether a password is the one that was hashed; with no hash to check, it is not, after the same work."""
        return await self._beside_the_loop(lambda: self._check(password, known_hash))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _check(self, password: str, known_hash: str | None) -> bool:
        if self._nobodys_hash is None:
            self._nobodys_hash = self._hasher.hash(secrets.token_bytes(32))
        try:
            self._hasher.verify(known_hash or self._nobodys_hash, _bytes(password[:MOST]))
        except (VerificationError, InvalidHashError):
            return False
        return known_hash is not None and len(password) <= MOST

    async def _beside_the_loop(self, work: Callable[[], R]) -> R:
        if self._waiting >= _WAITING:
            raise Unavailable("Too many passwords are being checked; try again shortly.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")
