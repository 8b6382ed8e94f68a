"""Users with a password: created, given another, shut out and let in."""

from contextlib import closing

from app.clock import utc_now
from app.credentials.passwords import Passwords
from app.credentials.scopes import Scopes, scopes_text
from app.database import Database
from app.errors import BadRequest, Conflict, NotFound
from app.history.users import User, change_access, change_password, insert_user

_MOST = 255


async def create_user(database: Database, user_id: str, password: str, scopes: Scopes) -> None:
    """Store a new user; raise Conflict if there is one of that name, BadRequest if name or password will not do."""
    check_user_id(user_id)
    now = utc_now()
    user = User(
        id=user_id,
        password_hash=await _hash(password),
        scopes=scopes_text(scopes),
        generation=1,
        created_at=now,
        password_at=now,
    )
    if not await insert_user(database, user):
        raise Conflict(f"There is a user {user_id!r} already; `users password` gives them another password.")


async def set_password(database: Database, user_id: str, password: str) -> None:
    """Give a user another password, which ends their tokens and sessions; raise NotFound if there is none."""
    _check(await change_password(database, user_id, await _hash(password), utc_now()), user_id)


async def set_access(database: Database, user_id: str, *, is_disabled: bool) -> None:
    """Shut a user out, or let them in again; raise NotFound if there is none."""
    _check(await change_access(database, user_id, utc_now(), is_disabled=is_disabled), user_id)


def check_user_id(user_id: str) -> None:
    """Raise BadRequest for a name that will not do."""
    if not 0 < len(user_id) <= _MOST or not user_id.isprintable():
        raise BadRequest(f"The name of a user has 1 to {_MOST} printable characters.")


async def _hash(password: str) -> str:
    with closing(Passwords()) as passwords:
        return await passwords.hash(password)


def _check(found: bool, user_id: str) -> None:
    if not found:
        raise NotFound(f"There is no user {user_id!r} with a password; `users list` shows those there are.")
