"""``serve``: the API."""

import errno
from typing import Annotated

import typer

from app.errors import Misconfigured

_NOT_OURS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


def run_api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: HOST).", show_default=False)] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port to listen on, 0 takes a free one (default: PORT).", show_default=False
        ),
    ] = None,
) -> None:
    """Run the API until SIGTERM or Ctrl-C. Jobs are accepted here and run by `python -m workers`.

    Example: `serve --port 8000`
    """
    from app.api.server import run  # noqa: PLC0415  # no other command needs it
    from app.log import configure_logging  # noqa: PLC0415
    from app.settings import read_settings  # noqa: PLC0415  # `--help` need not wait for pydantic

    settings = read_settings(host=host, port=port)
    configure_logging(settings.log_level, settings.log_format)
    try:
        run(settings, tell_key=_tell_key)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        raise Misconfigured(f"The API cannot listen on {settings.host}:{settings.port}: {error.strerror}.") from error


def _tell_key(key: str) -> None:
    """Show the key of the first start, on the standard output: the log goes elsewhere, and keeps no secrets."""
    typer.echo(f"This is the administrator's key. It is shown this once, so keep it:\n\n    {key}\n")
