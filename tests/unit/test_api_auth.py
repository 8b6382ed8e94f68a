"""Who holds which key, and how long what is known of it is believed."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from app.api.auth import Caller, StaticKeys, admin_key_of, bearer_of
from app.api.fresh import Fresh
from app.api.throttle import Throttle
from app.credentials.keys import KeyMint, key_id_of
from app.credentials.passwords import Passwords
from app.credentials.scopes import EVERYTHING, ORDINARY, Scope, covers, parse_scopes
from app.credentials.secret import ServerSecret, open_secret
from app.credentials.tokens import Tokens
from app.errors import BadRequest, Misconfigured
from app.queue.rates import Rate
from app.settings import Settings

SECRET = ServerSecret("a secret of the tests that is long enough")


def test_a_static_key_is_its_owners_and_no_other_is_anybodys() -> None:
    keys = StaticKeys(admin_key="a", user_keys={"ada": "b"})

    assert keys.caller_of("a") == Caller(user_id="admin", is_admin=True, scopes=EVERYTHING)
    assert keys.caller_of("b") == Caller(user_id="ada", is_admin=False)
    assert keys.caller_of("c") is None
    assert keys.caller_of("") is None
    assert keys.caller_of("\udcff") is None


@pytest.mark.parametrize("user_keys", [{"ada": "a"}, {"ada": "b", "bob": "b"}, {"admin": "b"}])
def test_static_keys_that_do_not_tell_users_apart_are_refused(user_keys: dict[str, str]) -> None:
    with pytest.raises(Misconfigured):
        StaticKeys(admin_key="a", user_keys=user_keys)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("Bearer", None), ("Bearer ", None), (None, None)],
)
def test_only_a_bearer_token_is_a_key(header: str | None, token: str | None) -> None:
    assert bearer_of(header) == token


def test_the_key_file_of_an_older_installation_still_opens_the_door(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("the-old-key\n")

    assert admin_key_of(Settings(data_dir=tmp_path)) == "the-old-key"


def test_an_emptied_key_file_does_not_open_the_door(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("\n")

    with pytest.raises(Misconfigured):
        admin_key_of(Settings(data_dir=tmp_path))


def test_the_servers_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)

    first, second = open_secret(settings), open_secret(settings)

    assert first.key_for("this") == second.key_for("this") != first.key_for("that")
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["server.key"]


@pytest.mark.parametrize("text", ["", "short\n"])
def test_a_secret_that_can_be_guessed_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text(text)

    with pytest.raises(Misconfigured):
        open_secret(Settings(data_dir=tmp_path))


def test_a_key_is_its_rows_only_with_the_servers_secret_and_to_the_last_letter() -> None:
    mint = KeyMint(SECRET)
    row, key = mint.make("key", user_id="ada", name="x", scopes=ORDINARY, created_by="ada")
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")

    assert mint.is_of(key, row)
    assert key_id_of(key) == ("key", row.id)
    assert not mint.is_of(changed, row)
    assert not mint.is_of(key.replace("jk_", "js_"), row)
    assert not KeyMint(ServerSecret("another secret, as long as the first")).is_of(key, row)
    assert key not in repr(row)


@pytest.mark.parametrize("token", ["", "jk_", "jk_short_x", "jk_ABCDEFGHIJKLMNOP_x", "xx_abcdefghijklmnop_x", "jk__x"])
def test_what_has_not_the_form_of_a_key_asks_nothing_of_the_database(token: str) -> None:
    assert key_id_of(token) is None


def test_a_token_is_worth_nothing_for_another_purpose() -> None:
    tokens = Tokens(SECRET)
    ticket = tokens.sign("ticket", user_id="ada", scopes=ORDINARY, proof="setting@", ttl=timedelta(minutes=1))

    assert tokens.read("ticket", ticket) is not None
    assert tokens.read("access", ticket) is None


@pytest.mark.parametrize("words", [[], ["nonsense"], ["tasks:read", "nonsense"]])
def test_scopes_that_do_not_exist_are_refused(words: list[str]) -> None:
    with pytest.raises(BadRequest, match="tasks:any-user"):
        parse_scopes(words)


def test_nobody_hands_on_more_than_they_have() -> None:
    reading = frozenset({Scope.TASKS_READ})

    assert covers(ORDINARY, reading)
    assert covers(frozenset({Scope.ADMIN}), EVERYTHING)
    assert not covers(reading, ORDINARY)


async def test_what_is_fresh_is_read_once_by_many_and_again_when_it_is_old() -> None:
    read: list[str] = []

    async def find(key: str) -> int:
        read.append(key)
        await asyncio.sleep(0)
        return len(read)

    known = Fresh(find, ttl_s=1000, limit=2)
    assert await asyncio.gather(*(known.get("a") for _ in range(5))) == [1] * 5
    known.forget("a")
    assert await known.get("a") == 2
    for key in ("b", "c", "a"):
        await known.get(key)
    assert read == ["a", "a", "b", "c", "a"]
    old = Fresh(find, ttl_s=0, limit=2)
    assert await old.get("a") != await old.get("a")


def test_failures_hold_up_the_next_try_until_they_have_drained_away() -> None:
    throttle = Throttle(Rate(burst=2, every_s=100))

    throttle.charge("ada")
    assert throttle.wait_s("ada") <= 0
    throttle.charge("ada")

    assert throttle.wait_s("bob") <= 0
    assert 90 < throttle.wait_s("ada") <= 100
    throttle.take("ada", -1)
    assert throttle.wait_s("ada") <= 0


async def test_an_unknown_user_costs_the_work_of_a_known_one() -> None:
    passwords = Passwords()
    verified: list[str] = []
    real = passwords._hasher.verify

    class Watched:
        def hash(self, password: bytes) -> str:
            return passwords_hasher.hash(password)

        def verify(self, known: str, password: bytes) -> bool:
            verified.append(known.rsplit("$", 2)[0])
            return bool(real(known, password))

    passwords_hasher = passwords._hasher
    try:
        known = await passwords.hash("correct horse battery")
        passwords._hasher = Watched()  # type: ignore[assignment]  # a look over the shoulder of the real one
        assert await passwords.is_right("correct horse battery", known)
        assert not await passwords.is_right("wrong horse battery", known)
        assert not await passwords.is_right("correct horse battery", None)
    finally:
        passwords.close()

    assert len(verified) == 3
    assert len(set(verified)) == 1  # argon2id with the same memory, passes and lanes


@pytest.mark.parametrize("password", ["short", "x" * 1025])
async def test_a_password_that_will_not_do_is_refused(password: str) -> None:
    passwords = Passwords()

    with pytest.raises(BadRequest):
        await passwords.hash(password)
    passwords.close()
