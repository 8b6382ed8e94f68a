"""Reads the settings for a command. Imported by the commands alone."""

from typing import TYPE_CHECKING, Any

from app.errors import Misconfigured

if TYPE_CHECKING:
    from app.settings import Settings


def read_settings(**given: Any) -> "Settings":
    """Return the settings in force; what is ``given`` and not None comes before the environment.

    Raise Misconfigured with what is wrong with each value that will not do. The values themselves are left
    out: they may be secret.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # `--help` need not wait for it

    from app.settings import Settings  # noqa: PLC0415

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()]
        raise Misconfigured(f"{'; '.join(wrong)}. See .env.example for what each setting takes.") from error
