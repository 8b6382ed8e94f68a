"""``config``: the settings in force."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from app.settings import Settings

_MASK = "********"
_IN_QUERY = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)


def show_config() -> None:
    """Show every setting as it is in force, from the environment, `.env` or its default. Secrets are masked.

    Example: `config`
    """
    from app.cli.tables import print_table  # noqa: PLC0415
    from app.settings import read_settings  # noqa: PLC0415  # `--help` need not wait for pydantic

    print_table(_table(read_settings()))


def _table(settings: "Settings") -> "Table":
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from app.cli.tables import whole  # noqa: PLC0415

    table = Table(whole("Setting"), "Value", "Meaning", box=None)
    for name, field in type(settings).model_fields.items():
        value = _masked(getattr(settings, name))
        is_given = name in settings.model_fields_set
        table.add_row(name.upper(), Text(value, "bold" if is_given else "dim"), Text(field.description or ""))
    return table


def _masked(value: object) -> str:
    """Return a value as text, without the secrets in it: keys, and the passwords inside URLs."""
    from pydantic import SecretStr  # noqa: PLC0415

    match value:
        case None:
            return "—"
        case SecretStr():
            return _MASK
        case Mapping():
            return ",".join(f"{user}={_MASK}" for user in value) or "—"
        case tuple():
            return ",".join(value) or "—"
        case bool():
            return str(value).lower()
        case str() if "://" in value:
            return _IN_QUERY.sub(rf"\1{_MASK}", _without_password(value))
        case _:
            return str(value) or "—"


def _without_password(url: str) -> str:
    """Mask the password of a URL: the part between the first ``:`` after ``//`` and the last ``@`` before the path.

    By hand, for a URL that no parser takes is shown too, and must not show its password.
    """
    scheme, _, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon}{_MASK if colon else ''}{at}{place}"
