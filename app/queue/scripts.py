"""Loads the Lua scripts: the constants of ``keys``, then ``common.lua``, then the script itself."""

from functools import cache
from pathlib import Path

from app.queue import keys

_FOLDER = Path(__file__).with_name("lua")
_CONSTANTS = {name: value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str | int)}


@cache
def script_text(name: str) -> str:
    """Return the complete text of ``lua/{name}.lua``, ready for EVAL."""
    constants = "\n".join(f"local {key} = {value!r}" for key, value in _CONSTANTS.items())
    return "\n".join([constants, *((_FOLDER / f"{part}.lua").read_text() for part in ("common", name))])
