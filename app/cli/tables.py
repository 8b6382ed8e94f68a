"""Tables as the commands print them: what people copy from one, as an id, is never cut short."""

from rich.console import Console
from rich.table import Column, Table

_WIDTH = 140  # columns where there is no terminal to ask


def open_console() -> Console:
    """Return a console as wide as its terminal; in a pipe, wide enough for most lines."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _WIDTH))


def whole(name: str) -> Column:
    """Return a column whose values stay whole while others can be broken into lines."""
    return Column(name, no_wrap=True)


def print_table(table: Table) -> None:
    """Print a table."""
    open_console().print(table)
