"""Live progress of several jobs: bars on a terminal, a plain line per change elsewhere. Inside the demo alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from app.client import TaskView
from app.jobs.status import Status

_STYLES = MappingProxyType(
    {
        Status.PENDING: "dim",
        Status.RUNNING: "cyan",
        Status.COMPLETED: "green",
        Status.FAILED: "red",
        Status.CANCELLED: "yellow",
    }
)


class Board:
    """Shows the state of jobs by their labels."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._rows: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def show(self, label: str, view: TaskView) -> None:
        """Show how a job stands; a state that differs in nothing from the last one is not shown again."""
        if self._console.is_terminal:
            self._draw(label, view)
            return
        line = f"{label:<22} {view.progress:3.0f}%  {view.status:<9} {_message(view)}".rstrip()
        if self._said.get(label) != line:
            self._said[label] = line
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, label: str, view: TaskView) -> None:
        if label not in self._rows:
            self._rows[label] = self._bars.add_task(label, total=100, status="", message="")
        style = _STYLES[view.status]
        self._bars.update(
            self._rows[label],
            completed=view.progress,
            status=f"[{style}]{view.status:<9}[/]",
            message=escape(_message(view)),
        )


@contextmanager
def open_board(console: Console) -> Iterator[Board]:
    """Keep a board on the console for the length of the block."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield Board(console, bars)


def _message(view: TaskView) -> str:
    if view.status is Status.COMPLETED and view.duration_seconds is not None:
        return f"in {view.duration_seconds:.2f} s"
    return view.error_message or view.progress_message or ""
