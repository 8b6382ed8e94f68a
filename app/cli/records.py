"""``python -m app records``: look at the stored records, load them from files and save them to files.

Works on the database that the settings name, without the API.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.database import open_database
from app.errors import BadRequest, FieldError, InvalidInput, ServiceError
from app.jobs.validation import MAX_LISTED
from app.records.ingest import Chunk, read_records
from app.records.record import AnyRecordType, Record, load_record_types
from app.records.store import BATCH, Records
from app.settings import read_settings

records_app = typer.Typer(
    name="records",
    no_args_is_help=True,
    help="Stored records: import, export, list and count them, in the database that the settings name.",
)

_out = Console()
_err = Console(stderr=True)

KindArgument = Annotated[str, typer.Argument(help="Kind of record; `count` shows which there are.")]
KindOption = Annotated[str | None, typer.Option(help="Kind of record; by default guessed from the name of FILE.")]
UserOption = Annotated[str | None, typer.Option(help="Only the records of this user.")]


@records_app.command("import", epilog="Example: python -m app records import ari-snapshots-2026.ndjson.gz --user ada")
def import_records(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON or a JSON array; .gz of either.")],
    kind: KindOption = None,
    user: Annotated[
        str | None, typer.Option(help="Owner of records that name no user; records of others are then errors.")
    ] = None,
) -> None:
    """Store the records of FILE, replacing those that have the same id.

    The whole file is checked first: when a line is wrong, every bad line is shown and nothing is written.
    Importing a file twice changes nothing.
    """
    with _explained():
        record_type = _find_kind(kind, file)
        _check(record_type, file, user)
        written = asyncio.run(_write(record_type, file, user))
        _out.print(f"{written:,} {record_type.name} imported from {escape(file.name)}.")


@records_app.command("export", epilog="Example: python -m app records export ari-snapshots.ndjson.gz --user ada")
def export_records(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="File to write or replace; compressed if named .gz.")],
    kind: KindOption = None,
    user: UserOption = None,
) -> None:
    """Write records to FILE as NDJSON, newest first; `import` takes it back."""
    with _explained():
        record_type = _find_kind(kind, file)
        with _replacing(file) as target:
            written = asyncio.run(_export(record_type, target, user))
        _out.print(f"{written:,} {record_type.name} exported to {escape(file.name)}.")


@records_app.command("list", epilog="Example: python -m app records list ari-snapshots --user ada --limit 5")
def list_records(
    kind: KindArgument,
    user: UserOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show.")] = 20,
) -> None:
    """Show the newest records of a kind."""
    with _explained():
        record_type = _find_kind(kind)
        _out.print(_table(record_type, asyncio.run(_newest(record_type, user, limit))))


@records_app.command("count", epilog="Example: python -m app records count --user ada")
def count_records(
    kind: Annotated[str | None, typer.Argument(help="Kind of record; by default all kinds.")] = None,
    user: UserOption = None,
) -> None:
    """Count the records of one kind or of every kind."""
    with _explained():
        chosen = [_find_kind(kind)] if kind else list(load_record_types().values())
        table = Table("Kind", "Holds")
        table.add_column("Records", justify="right")
        for record_type, count in zip(chosen, asyncio.run(_count(chosen, user)), strict=True):
            table.add_row(record_type.name, record_type.summary, f"{count:,}")
        _out.print(table)


def _find_kind(name: str | None, file: Path | None = None) -> AnyRecordType:
    kinds = load_record_types()
    if name is None and file is not None:
        said = file.name.lower().replace("_", "-")
        name = max((kind for kind in kinds if kind in said), key=len, default=None)
    if name in kinds:
        return kinds[name]
    wrong = "The file name tells no kind; add --kind" if name is None else f"There is no kind {name!r}"
    raise BadRequest(f"{wrong}. Known are: {', '.join(kinds)}.")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        _show(error.errors)
        _fail(error.message, error)
    except ServiceError as error:
        _fail(error.message, error)
    except OSError as error:
        _fail(str(error), error)


def _fail(message: str, error: Exception) -> None:
    _err.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(1) from error


def _show(errors: Iterable[FieldError]) -> None:
    for error in errors:
        _err.print(f"[yellow]{escape(error.pointer)}[/] {escape(error.detail)}", soft_wrap=True)


@asynccontextmanager
async def _opened() -> AsyncIterator[Records]:
    from app.history.migrate import upgrade  # noqa: PLC0415  # loads alembic, which `--help` need not wait for

    settings = read_settings()
    database = open_database(settings)
    try:
        if settings.db_auto_upgrade:
            await upgrade(database)
        yield Records(database)
    finally:
        await database.close()


def _check(record_type: AnyRecordType, file: Path, user: str | None) -> None:
    wrong = 0
    for chunk in _followed("Checking", file, read_records(record_type, file, owner=user)):
        _show(chunk.errors[: max(0, MAX_LISTED - wrong)])
        wrong += chunk.error_count
    if wrong:
        listed = f"; the first {MAX_LISTED} are shown" if wrong > MAX_LISTED else ""
        raise BadRequest(f"{wrong:,} error{'s' if wrong != 1 else ''} in {file.name}{listed}. Nothing was written.")


async def _write(record_type: AnyRecordType, file: Path, user: str | None) -> int:
    written = 0
    async with _opened() as records:
        for chunk in _followed("Writing", file, read_records(record_type, file, owner=user)):
            try:
                if chunk.errors:
                    raise InvalidInput(chunk.errors, f"{file.name} has changed since it was checked.")
                written += await records.upsert(record_type, chunk.records)
            except ServiceError as error:
                error.message += f" {written:,} records before it were written; the import can be repeated."
                raise
    return written


def _followed(label: str, file: Path, chunks: Iterable[Chunk[Record]]) -> Iterator[Chunk[Record]]:
    rows = errors = 0
    with _progress("{task.fields[rows]:,} rows", "{task.fields[errors]:,} errors") as progress:
        bar = progress.add_task(label, total=file.stat().st_size, rows=0, errors=0)
        for chunk in chunks:
            rows += len(chunk.records)
            errors += chunk.error_count
            progress.update(bar, completed=chunk.position, rows=rows, errors=errors)
            yield chunk


def _progress(*facts: str) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), *map(TextColumn, facts))
    return Progress(*columns, TimeRemainingColumn(), console=_err)


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    partial = file.with_name(file.name + ".partial")
    try:
        with cast("BinaryIO", gzip.open(partial, "wb")) if file.suffix == ".gz" else partial.open("wb") as target:
            yield target
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


async def _export(record_type: AnyRecordType, target: BinaryIO, user: str | None) -> int:
    written, cursor = 0, None
    async with _opened() as records:
        with _progress("{task.completed:,} rows") as progress:
            bar = progress.add_task("Exporting", total=await records.count(record_type, user_id=user))
            while True:
                page = await records.page(record_type, user_id=user, after=cursor, limit=BATCH)
                target.writelines(record.model_dump_json().encode() + b"\n" for record in page.records)
                written += len(page.records)
                progress.update(bar, completed=written)
                if (cursor := page.next_cursor) is None:
                    return written


async def _newest(record_type: AnyRecordType, user: str | None, limit: int) -> list[Record]:
    async with _opened() as records:
        return (await records.page(record_type, user_id=user, limit=limit)).records


async def _count(record_types: Iterable[AnyRecordType], user: str | None) -> list[int]:
    async with _opened() as records:
        return [await records.count(record_type, user_id=user) for record_type in record_types]


def _table(record_type: AnyRecordType, records: Iterable[Record]) -> Table:
    shown = [name for name in (record_type.id_field, record_type.user_field, record_type.time_field) if name]
    table = Table(*shown, expand=True)
    table.add_column("the rest", no_wrap=True, overflow="ellipsis", ratio=1)
    for record in records:
        rest = record.model_dump_json(exclude=set(shown), exclude_none=True)
        table.add_row(*(escape(str(getattr(record, name))) for name in shown), escape(rest))
    return table
