"""``.env.example`` says all there is to set, and what it says is true."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
import pytest
from pydantic.fields import FieldInfo

from app.settings import Settings
from tests.support.environment import environment_of

EXAMPLE = Path(__file__).parents[2] / ".env.example"
FIELDS = Settings.model_fields


def test_the_example_lists_every_setting_and_no_other() -> None:
    listed = re.findall(r"^#?([A-Za-z0-9_]+)=", EXAMPLE.read_text(), flags=re.MULTILINE)

    assert listed == [name.upper() for name in FIELDS]


@pytest.mark.parametrize("name", FIELDS)
def test_the_example_says_what_a_setting_means_its_limits_and_its_default(name: str) -> None:
    assert entry(name, FIELDS[name]) in EXAMPLE.read_text()


def test_the_example_as_it_stands_changes_nothing() -> None:
    assert all(not line or line.startswith("#") for line in EXAMPLE.read_text().splitlines())


def test_the_defaults_of_the_example_are_the_defaults_of_the_service(tmp_path: Path) -> None:
    given = re.sub(r"^#(?=[A-Z_]+=.)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "given.env").write_text(given)

    assert Settings(_env_file=tmp_path / "given.env") == Settings()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described_in_a_sentence(name: str) -> None:
    assert re.fullmatch(r".{10,}\.", FIELDS[name].description or "")


def test_a_child_process_gets_every_setting_as_it_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    full = settings.model_copy(update={"cors_origins": ("https://a.example", "https://b.example")})

    for name, value in environment_of(full).items():
        monkeypatch.setenv(name, value)

    assert Settings() == full


def entry(name: str, field: FieldInfo) -> str:
    """Return what the example has to say of a setting."""
    meaning = " ".join(filter(None, [field.description, limits(field)]))
    comment = textwrap.fill(meaning, 100, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n#{name.upper()}={default(field)}\n"


def limits(field: FieldInfo) -> str:
    """Return the values a setting takes, where its type does not say it."""
    if get_origin(field.annotation) is Literal:
        return f"One of {', '.join(get_args(field.annotation))}."
    least = next((bound.ge for bound in field.metadata if isinstance(bound, annotated_types.Ge)), None)
    most = next((bound.le for bound in field.metadata if isinstance(bound, annotated_types.Le)), None)
    if least is None:
        return ""
    return f"From {least} to {most}." if most is not None else f"At least {least}."


def default(field: FieldInfo) -> str:
    """Return a default as it is written into the environment; nothing stands for unset."""
    value = field.get_default(call_default_factory=True)
    if value is None or (isinstance(value, tuple | Mapping) and not value):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
