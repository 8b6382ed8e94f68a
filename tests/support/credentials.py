"""Keys and users for tests, made as the service makes them."""

from datetime import timedelta
from typing import Any

import aiohttp

from app.api.resources import KEYRING
from app.clock import utc_now
from app.credentials.keys import create_key
from app.credentials.scopes import ORDINARY, parse_scopes
from app.credentials.users import create_user
from tests.support.api import Answer, ApiUnderTest

PASSWORD = "correct horse battery staple"


async def key_of(api: ApiUnderTest, user_id: str, *scopes: str, lives_s: float | None = None) -> tuple[str, str]:
    """Store a key; return its id and the key."""
    row, key = await create_key(
        api.house.database,
        api.app[KEYRING].mint,
        user_id=user_id,
        name="of a test",
        scopes=parse_scopes(scopes) if scopes else ORDINARY,
        created_by="a test",
        expires_at=None if lives_s is None else utc_now() + timedelta(seconds=lives_s),
    )
    return row.id, key


async def add_user(api: ApiUnderTest, user_id: str, *scopes: str) -> None:
    """Store a user with the password of the tests."""
    await create_user(api.house.database, user_id, PASSWORD, parse_scopes(scopes) if scopes else ORDINARY)


async def log_in(api: ApiUnderTest, user_id: str, password: str = PASSWORD, **fields: str) -> Answer:
    """Log in with the form of OAuth 2."""
    return await api.ask(
        "POST", "/api/v1/auth/login", key=None, data={"username": user_id, "password": password, **fields}
    )


async def token_of(api: ApiUnderTest, user_id: str) -> str:
    """Log in and return the token."""
    answer = await log_in(api, user_id)
    assert answer.status == 200, answer.text
    return str(answer.json["access_token"])


def browser(api: ApiUnderTest) -> aiohttp.ClientSession:
    """Return a client that keeps cookies, also those of an address of numbers."""
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(str(api.client._base_url), cookie_jar=jar)


async def ask_as(client: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Answer:
    """Send one request of a browser."""
    async with client.request(method, path, **options) as response:
        return Answer(status=response.status, headers=response.headers.copy(), text=await response.text())
