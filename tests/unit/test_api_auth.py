"""Who holds which key."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from app.api.auth import Caller, Keyring, bearer_of, open_keyring
from app.errors import Misconfigured
from app.settings import Settings


def test_a_key_is_its_owners_and_no_other_is_anybodys() -> None:
    keyring = Keyring(admin_key="a", user_keys={"ada": "b"})

    assert keyring.caller_of("a") == Caller(user_id="admin", is_admin=True)
    assert keyring.caller_of("b") == Caller(user_id="ada", is_admin=False)
    assert keyring.caller_of("c") is None
    assert keyring.caller_of("\udcff") is None


@pytest.mark.parametrize("user_keys", [{"ada": "a"}, {"ada": "b", "bob": "b"}, {"admin": "b"}])
def test_keys_that_do_not_tell_users_apart_are_refused(user_keys: dict[str, str]) -> None:
    with pytest.raises(Misconfigured):
        Keyring(admin_key="a", user_keys=user_keys)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("Bearer", None), ("Bearer ", None), (None, None)],
)
def test_only_a_bearer_token_is_a_key(header: str | None, token: str | None) -> None:
    assert bearer_of(header) == token


@pytest.mark.parametrize("given", [None, SecretStr("")])
def test_an_administrators_key_is_made_once_and_kept_private(
    given: SecretStr | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path, admin_api_key=given)

    open_keyring(settings)
    key = (tmp_path / "admin.key").read_text().strip()
    again = open_keyring(settings)

    assert again.caller_of(key) == Caller(user_id="admin", is_admin=True)
    assert again.caller_of("") is None
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]
    captured = capsys.readouterr()
    assert key not in captured.out + captured.err


def test_an_emptied_key_file_does_not_open_the_door(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("\n")

    with pytest.raises(Misconfigured):
        open_keyring(Settings(data_dir=tmp_path))
