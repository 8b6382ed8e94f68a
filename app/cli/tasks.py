"""``tasks``: submit, watch and steer tasks of a running service, over HTTP."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from app.client import Client, StreamEvent, TaskView

T = TypeVar("T")

tasks_app = typer.Typer(
    name="tasks",
    no_args_is_help=True,
    help="Tasks of a running service: submit, show, list, follow, cancel and retry them, over HTTP.\n\n"
    "The service is the one at --url, the caller whoever holds --token; `JOBS_URL` and `JOBS_TOKEN` say the same.",
    epilog="Start here: `python -m app tasks submit system.echo --param payload=hello --follow`",
)

TaskArgument = Annotated[str, typer.Argument(help="The task's id, as `tasks submit` prints it.", show_default=False)]
UrlOption = Annotated[
    str | None,
    typer.Option(help="Address of the service (default: HOST and PORT).", envvar="JOBS_URL", show_default=False),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help="API key or token (default: ADMIN_API_KEY).", envvar="JOBS_TOKEN", show_default=False),
]


@tasks_app.command("submit")
def submit(
    name: Annotated[str, typer.Argument(help="Kind or alias; `catalogue` shows all.", show_default=False)],
    *,
    param: Annotated[
        list[str] | None, typer.Option(help="name=value, as JSON or as text; may be repeated.", show_default=False)
    ] = None,
    params: Annotated[str | None, typer.Option(help="All params as one JSON object.", show_default=False)] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=10, help="1–10, higher first.", show_default=False)] = None,
    countdown: Annotated[float | None, typer.Option(min=0, help="Seconds to wait.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the task has ended.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Submit a task and print its id; a lost connection submits nothing twice.

    Example: `tasks submit ari.analyze_trends --param user_id=ada --priority 7 --follow`
    """
    given = {**_object(params), **dict(map(_pair, param or []))}
    options: dict[str, Any] = {"priority": priority, "countdown": countdown}

    async def work(client: "Client") -> None:
        task = await client.submit(name, given, **{key: value for key, value in options.items() if value is not None})
        typer.echo(task.task_id)
        if follow:
            _end_as(await _watch(client, task.task_id))

    _run(work, url, token)


@tasks_app.command("show")
def show(task_id: TaskArgument, url: UrlOption = None, token: TokenOption = None) -> None:
    """Show a task as JSON.

    Example: `tasks show 01a201c2-8281-71f3-bbcc-ac15ae287158`
    """

    async def work(client: "Client") -> None:
        typer.echo((await client.get(task_id)).model_dump_json(indent=2, exclude_none=True))

    _run(work, url, token)


@tasks_app.command("list")
def list_all(
    *,
    status: Annotated[str | None, typer.Option(help="pending, running, completed …", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only this kind.", show_default=False)] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 20,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List tasks, the newest first.

    Example: `tasks list --status failed --limit 50`
    """

    async def work(client: "Client") -> None:
        from rich.table import Table  # noqa: PLC0415

        from app.cli.tables import print_table, whole  # noqa: PLC0415

        table, count = Table(whole("Task"), whole("Kind"), "Status", "Progress", "Submitted", box=None), 0
        async for task in client.tasks(status=status, task_name=name, queue=queue, limit=min(limit, 1000)):
            at = f"{task.created_at:%Y-%m-%d %H:%M:%S}" if task.created_at else ""
            table.add_row(task.task_id, task.task_name, task.status.value, f"{task.progress:.0f}%", at)
            count += 1
            if count == limit:
                break
        print_table(table)

    _run(work, url, token)


@tasks_app.command("follow")
def follow_one(task_id: TaskArgument, url: UrlOption = None, token: TokenOption = None) -> None:
    """Show a task's progress until it has ended; the exit code is 1 unless it completed.

    Example: `tasks follow 01a201c2-8281-71f3-bbcc-ac15ae287158`
    """

    async def work(client: "Client") -> None:
        _end_as(await _watch(client, task_id))

    _run(work, url, token)


@tasks_app.command("cancel")
def cancel(
    task_id: TaskArgument,
    terminate: Annotated[bool, typer.Option(help="Whether a task that runs is stopped, too.")] = True,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Cancel a task that waits or runs.

    Example: `tasks cancel 01a201c2-8281-71f3-bbcc-ac15ae287158 --no-terminate`
    """

    async def work(client: "Client") -> None:
        typer.echo((await client.cancel(task_id, terminate=terminate)).value)

    _run(work, url, token)


@tasks_app.command("retry")
def retry(task_id: TaskArgument, url: UrlOption = None, token: TokenOption = None) -> None:
    """Run a failed or cancelled task again, and print the id of the new one.

    Example: `tasks retry 01a201c2-8281-71f3-bbcc-ac15ae287158`
    """

    async def work(client: "Client") -> None:
        typer.echo((await client.retry(task_id)).task_id)

    _run(work, url, token)


def _run(work: "Callable[[Client], Awaitable[T]]", url: str | None, token: str | None) -> T:
    from app.client import Client  # noqa: PLC0415  # `--help` need not wait for an HTTP client
    from app.errors import Misconfigured  # noqa: PLC0415
    from app.settings import read_settings  # noqa: PLC0415

    settings = read_settings()
    key = token or (settings.admin_api_key.get_secret_value() if settings.admin_api_key else None)
    if key is None:
        raise Misconfigured("Who asks? Give --token, or set JOBS_TOKEN; `keys create` makes one.")
    address = url or f"http://{settings.host}:{settings.port}"

    async def run() -> T:
        async with Client(address, key) as client:
            return await work(client)

    return asyncio.run(run())


async def _watch(client: "Client", task_id: str) -> "TaskView":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
    )
    task: TaskView | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=100, said="")
        async for event in client.follow(task_id):
            task = event.task or task
            if task is not None:
                said = task.error_message or task.progress_message or ""
                progress.update(bar, completed=task.progress, description=task.status.value, said=said, refresh=True)
                if not console.is_terminal:
                    typer.echo(_line(event), err=True)
    return task or await client.get(task_id)


def _line(event: "StreamEvent") -> str:
    task = event.task
    said = f"{task.progress:3.0f}% {task.error_message or task.progress_message or ''}" if task else ""
    return f"{event.type:<16} {said}".rstrip()


def _end_as(task: "TaskView") -> None:
    typer.echo(task.model_dump_json(indent=2, exclude_none=True))
    if task.status.value != "completed":
        raise typer.Exit(1)


def _object(text: str | None) -> dict[str, Any]:
    value = _json(text) if text is not None else {}
    if not isinstance(value, dict):
        raise typer.BadParameter('params are one JSON object, such as {"payload": "hello"}')
    return value


def _pair(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise typer.BadParameter(f"a param is name=value, not {text!r}")
    return name, _json(value)


def _json(text: str) -> Any:
    """Return what a text means as JSON, or else the text."""
    import orjson  # noqa: PLC0415

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
