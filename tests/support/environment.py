"""The environment of the processes that a test starts."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from app.settings import Settings


def environment_of(settings: Settings) -> dict[str, str]:
    """Return this process's environment with every setting in it, so that no ``.env`` adds one of its own."""
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    given = {name.upper(): getattr(settings, name) for name in Settings.model_fields}
    return inherited | {name: _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(map(_text, value))
        case Mapping():
            return ",".join(f"{key}={_text(item)}" for key, item in value.items())
        case str() | Path() | int() | float():
            return str(value)
        case _:
            raise TypeError(f"no way to write {type(value).__name__} into the environment")
