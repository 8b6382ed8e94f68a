"""The command line loads records from files into the database and saves them back, and writes all or nothing."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from pydantic import Field
from typer.testing import CliRunner, Result

from app.cli import records as command_line
from app.database import open_database
from app.jobs.fields import Identifier, Moment, Number
from app.records.record import Record, RecordType
from app.records.store import Records
from app.settings import Settings

TABLES = sa.MetaData()


class Note(Record):
    note_id: Identifier
    user_id: Identifier
    timestamp: Moment
    weight: Number | None = Field(None, ge=0, le=1)


NOTES = RecordType(name="test-notes", model=Note, id_field="note_id", summary="Notes.", metadata=TABLES)
LONGER = RecordType(name="more-test-notes", model=Note, id_field="note_id", summary="More.", metadata=TABLES)

Jobs = Callable[..., Result]


def note(name: str, at: int = 0, **changes: object) -> dict[str, object]:
    return {"note_id": name, "user_id": "ada", "timestamp": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z"} | changes


def write(path: Path, *notes: object) -> str:
    content = b"".join(orjson.dumps(note) + b"\n" for note in notes)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


async def _create(settings: Settings) -> None:
    database = open_database(settings)
    async with database.write() as connection:
        await connection.run_sync(TABLES.create_all)
    await database.close()


async def _stored(settings: Settings) -> list[Note]:
    database = open_database(settings)
    page = await Records(database).page(NOTES, limit=1000)
    await database.close()
    return page.records


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A database of the test's own, which the environment names."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "service"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(command_line, "load_record_types", lambda: {kind.name: kind for kind in (LONGER, NOTES)})
    settings = Settings()
    _ = NOTES.table, LONGER.table
    asyncio.run(_create(settings))
    return settings


@pytest.fixture
def jobs(installation: Settings) -> Jobs:
    """Run ``python -m app records`` with the given arguments."""
    return lambda *arguments: CliRunner().invoke(command_line.records_app, arguments)


@pytest.fixture
def stored(installation: Settings) -> Callable[[], list[Note]]:
    """Read the names of what is in the database, newest first."""
    return lambda: asyncio.run(_stored(installation))


def test_a_file_is_imported_into_the_kind_that_its_name_tells(
    jobs: Jobs, stored: Callable[[], list[Note]], tmp_path: Path
) -> None:
    file = write(tmp_path / "Test_Notes-2026.ndjson.gz", *(note(f"n{at}", at) for at in range(2500)))

    result = jobs("import", file)

    assert result.exit_code == 0, result.output
    assert "2,500 test-notes imported" in result.stdout
    assert "Writing" in result.stderr
    assert stored()[0].note_id == "n2499"
    assert "2,500" in jobs("count", "test-notes").stdout


def test_an_import_can_be_repeated(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path / "test-notes.ndjson", note("a"), note("b"))

    assert [jobs("import", file).exit_code for _ in range(2)] == [0, 0]
    assert jobs("count", "test-notes").stdout.count("2") == 1


def test_a_file_with_a_bad_line_at_its_end_writes_nothing_and_shows_every_bad_line(
    jobs: Jobs, stored: Callable[[], list[Note]], tmp_path: Path
) -> None:
    good = [note(f"n{at}", at) for at in range(2500)]
    file = write(tmp_path / "test-notes.ndjson", *good, note("bad", weight=7), {"note_id": "[bold]"})

    result = jobs("import", file)

    assert result.exit_code == 1
    assert "Line 2501: Input should be less than or equal to 1, not 7." in result.stderr
    assert "/2501/user_id Line 2502: This field is required." in result.stderr
    assert "3 errors in test-notes.ndjson. Nothing was written." in result.stderr
    assert stored() == []


def test_a_file_full_of_errors_shows_a_hundred_and_counts_all(jobs: Jobs, tmp_path: Path) -> None:
    result = jobs("import", write(tmp_path / "test-notes.ndjson", *(note(f"n{at}", weight=7) for at in range(2100))))

    assert result.exit_code == 1
    assert result.stderr.count("less than or equal") == 100
    assert "2,100 errors in test-notes.ndjson; the first 100 are shown." in result.stderr


def test_the_user_option_owns_what_names_nobody_and_refuses_the_others(
    jobs: Jobs, stored: Callable[[], list[Note]], tmp_path: Path
) -> None:
    anonymous, foreign = note("a", user_id=None), note("b", user_id="ada")

    assert jobs("import", write(tmp_path / "test-notes.ndjson", anonymous, foreign), "--user", "eve").exit_code == 1
    assert stored() == []
    assert jobs("import", write(tmp_path / "test-notes.ndjson", anonymous), "--user", "eve").exit_code == 0
    assert [note.user_id for note in stored()] == ["eve"]


def test_an_id_of_another_user_stops_the_import_and_says_how_far_it_came(jobs: Jobs, tmp_path: Path) -> None:
    jobs("import", write(tmp_path / "test-notes.ndjson", note("n1500")))

    result = jobs(
        "import", write(tmp_path / "test-notes.ndjson", *(note(f"n{at}", user_id="eve") for at in range(2000)))
    )

    assert result.exit_code == 1
    assert "n1500" in result.stderr
    assert "1,000 records before it were written" in result.stderr


def test_a_file_whose_name_tells_no_kind_needs_the_option(
    jobs: Jobs, stored: Callable[[], list[Note]], tmp_path: Path
) -> None:
    file = write(tmp_path / "export.ndjson", note("a"))

    without, unknown, right = (
        jobs("import", file),
        jobs("import", file, "--kind", "x"),
        jobs("import", file, "--kind", "test-notes"),
    )

    assert (without.exit_code, unknown.exit_code, right.exit_code) == (1, 1, 0)
    assert "add --kind. Known are: more-test-notes, test-notes." in without.stderr
    assert "There is no kind 'x'" in unknown.stderr
    assert [note.note_id for note in stored()] == ["a"]


def test_the_longest_kind_in_a_file_name_is_meant(jobs: Jobs, tmp_path: Path) -> None:
    assert "1 more-test-notes imported" in jobs("import", write(tmp_path / "more-test-notes.ndjson", note("a"))).stdout


@pytest.mark.parametrize("name", ["test-notes.ndjson", "test-notes.ndjson.gz"])
def test_what_was_exported_can_be_imported(
    jobs: Jobs, stored: Callable[[], list[Note]], tmp_path: Path, name: str
) -> None:
    jobs("import", write(tmp_path / "test-notes.json", *(note(f"n{at}", at, weight=0.5) for at in range(1000))))
    before = stored()

    exported = jobs("export", str(tmp_path / name))
    imported = jobs("import", str(tmp_path / name))

    assert "1,000 test-notes exported" in exported.stdout
    assert "1,000 test-notes imported" in imported.stdout
    assert stored() == before


def test_an_export_holds_one_users_records_newest_first(jobs: Jobs, tmp_path: Path) -> None:
    jobs("import", write(tmp_path / "test-notes.json", note("a", 1), note("b", 2), note("e", user_id="eve")))
    target = tmp_path / "test-notes.out"

    jobs("export", str(target), "--user", "ada")

    assert [orjson.loads(line)["note_id"] for line in target.read_bytes().splitlines()] == ["b", "a"]
    assert list(tmp_path.glob("*.partial")) == []


def test_a_failed_export_leaves_the_old_file(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "test-notes.ndjson"
    target.write_bytes(b"precious\n")
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///:memory:")

    result = jobs("export", str(target))

    assert result.exit_code == 1
    assert "must name a file" in result.stderr
    assert target.read_bytes() == b"precious\n"
    assert list(tmp_path.glob("*.partial")) == []


def test_a_list_shows_the_newest_of_one_user_also_in_a_narrow_terminal(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = [note(f"n{at}", at) for at in range(9)]
    jobs("import", write(tmp_path / "test-notes.json", *notes, note("e", user_id="eve")))
    monkeypatch.setenv("COLUMNS", "80")

    shown = jobs("list", "test-notes", "--user", "ada", "--limit", "2").stdout

    assert [name for name in ("n8", "n7", "n6", "eve") if name in shown] == ["n8", "n7"]
    assert "2026-01-01 00:00:08+00:00" in shown


def test_a_count_without_a_kind_counts_every_kind(jobs: Jobs, tmp_path: Path) -> None:
    jobs("import", write(tmp_path / "test-notes.json", note("a"), note("b")))

    lines = jobs("count").stdout.splitlines()

    assert [line.split()[-2] for line in lines if "test-notes" in line] == ["0", "2"]


def test_a_broken_file_is_told_in_one_line(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "test-notes.ndjson.gz"
    file.write_bytes(b"no gzip")

    result = jobs("import", str(file))

    assert result.exit_code == 1
    assert "is not a whole gzip file" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["import", "export", "list", "count"])
def test_help_teaches_every_command_with_an_example(jobs: Jobs, command: str) -> None:
    shown = jobs(command, "--help").stdout

    assert f"Example: python -m app records {command}" in shown
