"""A body or a file becomes records, all of them or none, and every error is told with its place."""

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from pydantic import Field, JsonValue

from app.errors import BadRequest, InvalidInput, MalformedJson, TooLarge
from app.jobs.fields import Identifier, Moment, Number
from app.records import ingest
from app.records.ingest import Chunk, parse_records, read_records
from app.records.record import Record, RecordType


class Note(Record):
    note_id: Identifier
    user_id: Identifier
    timestamp: Moment
    weight: Number | None = Field(None, ge=0, le=1)
    extra: dict[str, JsonValue] | None = None


class Fact(Record):
    id: Identifier
    date: Moment


NOTES = RecordType(name="notes", model=Note, id_field="note_id", summary="Notes.", metadata=sa.MetaData())
FACTS = RecordType(
    name="facts",
    model=Fact,
    id_field="id",
    user_field=None,
    time_field="date",
    summary="Facts.",
    metadata=sa.MetaData(),
)


def note(name: object = "n1", **changes: object) -> dict[str, object]:
    return {"note_id": name, "user_id": "ada", "timestamp": "2026-01-01T00:00:00Z"} | changes


def array(*values: object) -> bytes:
    return orjson.dumps(values)


def ndjson(*values: object) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in values)


def ids(notes: list[Note]) -> list[str]:
    return [note.note_id for note in notes]


def refused(body: bytes, **options: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_records(NOTES, body, **options)
    return caught.value


def places(error: InvalidInput) -> list[tuple[str, str]]:
    return [(found.pointer, found.code) for found in error.errors]


def read(path: Path, owner: str | None = None) -> list[Chunk[Note]]:
    return list(read_records(NOTES, path, owner=owner))


@pytest.mark.parametrize("write", [array, ndjson])
@pytest.mark.parametrize("content_type", ["", "text/plain"])
def test_the_form_of_a_body_is_seen_by_its_first_byte(write: Callable[..., bytes], content_type: str) -> None:
    body = b"\xef\xbb\xbf \r\n" + write(note("a"), note("b"))

    assert ids(parse_records(NOTES, body, content_type=content_type)) == ["a", "b"]


def test_the_form_of_a_body_is_what_its_content_type_says() -> None:
    assert ids(parse_records(NOTES, array(note()), content_type="application/json; charset=utf-8")) == ["n1"]
    assert ids(parse_records(NOTES, ndjson(note()), content_type="Application/X-NDJSON")) == ["n1"]
    assert places(refused(ndjson(note()), content_type="application/json")) == [("", "list_type")]
    assert places(refused(array(note()), content_type="application/x-ndjson")) == [("/0", "model_type")]


@pytest.mark.parametrize("body", [b"", b"\n\n", b"[]"])
def test_nothing_is_no_records(body: bytes) -> None:
    assert parse_records(NOTES, body) == []


def test_blank_lines_are_skipped_and_lines_are_counted_with_them() -> None:
    body = b"\n" + ndjson(note("a")) + b"\r\n  \n" + ndjson(note("b", weight=2))

    error = refused(body)

    assert places(error) == [("/1/weight", "less_than_equal")]
    assert error.errors[0].detail.startswith("Line 5: ")


def test_every_error_of_an_array_is_listed_by_index() -> None:
    error = refused(array(note(1), note("ok"), 7, note("x", weight=-1, nope=1)))

    assert places(error) == [
        ("/0/note_id", "string_type"),
        ("/2", "model_type"),
        ("/3/weight", "greater_than_equal"),
        ("/3/nope", "extra_forbidden"),
    ]
    assert "4 errors in 4 records" in error.message


def test_a_line_that_is_not_json_is_one_error_among_others() -> None:
    error = refused(ndjson(note("a")) + b'{"note_id": \n' + ndjson(note("b", weight=2)) + b"NaN\n")

    assert places(error) == [("/1", "malformed_json"), ("/2/weight", "less_than_equal"), ("/3", "malformed_json")]


def test_an_array_that_is_not_json_is_malformed() -> None:
    with pytest.raises(MalformedJson, match="line 1 column"):
        parse_records(NOTES, b'[{"note_id": "a"}, {]')


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ('"\\u0000"', "null_character"),
        ("18446744073709551615", "integer_range"),
        ("123456789012345678901234567890", "integer_range"),
        ("1e999", "finite_number"),
        ("[" * 32 + "]" * 32, "too_deep"),
        ('{"a\\u0000": 1}', "null_character"),
    ],
)
def test_json_that_the_database_could_not_hold_is_refused(written: str, code: str) -> None:
    body = orjson.dumps(note(extra={"k": "?"})).replace(b'"?"', written.encode())

    for form in (body, b"[" + body + b"]"):
        (error,) = refused(form).errors
        assert error.pointer.startswith("/0/extra/k")
        assert error.code == code


def test_nesting_is_counted_from_the_record_in_both_forms() -> None:
    body = orjson.dumps(note(extra={"k": "?"})).replace(b'"?"', b"[" * 30 + b"]" * 30)

    assert len(parse_records(NOTES, body)) == len(parse_records(NOTES, b"[" + body + b"]")) == 1


def test_one_bad_record_among_thousands_refuses_them_all() -> None:
    values = [note(f"n{at}") for at in range(2500)]
    values[2345] = note("bad", weight=9)

    error = refused(array(*values))

    assert places(error) == [("/2345/weight", "less_than_equal")]


def test_a_hundred_errors_are_listed_and_all_are_counted() -> None:
    error = refused(array(*(note(f"n{at}", weight=9) for at in range(1500))))

    assert [found.pointer for found in error.errors] == [f"/{at}/weight" for at in range(100)]
    assert "1,500 errors (the first 100 are listed) in 1,500 records" in error.message


@pytest.mark.parametrize("write", [array, ndjson])
def test_ten_thousand_records_are_taken_and_one_more_is_too_many(write: Callable[..., bytes]) -> None:
    values = [note(f"n{at}") for at in range(10_001)]

    assert len(parse_records(NOTES, write(*values[:10_000]))) == 10_000
    with pytest.raises(TooLarge, match="10,000"):
        parse_records(NOTES, write(*values))


def test_records_that_name_no_user_become_the_owners() -> None:
    anonymous = {name: value for name, value in note("a").items() if name != "user_id"}

    notes = parse_records(NOTES, array(anonymous, note("b", user_id=None), note("c", user_id="eve")), owner="eve")

    assert [note.user_id for note in notes] == ["eve", "eve", "eve"]


def test_a_record_of_another_user_is_refused_when_there_is_an_owner() -> None:
    error = refused(array(note("a", user_id="eve"), note("b", user_id="ada")), owner="eve")

    assert places(error) == [("/1/user_id", "foreign_user")]


def test_a_record_that_belongs_to_nobody_is_given_no_owner() -> None:
    (fact,) = parse_records(FACTS, array({"id": "f", "date": "2026-01-01T00:00:00Z"}), owner="eve")

    assert fact.id == "f"


@pytest.mark.parametrize("name", ["notes.ndjson", "notes.json", "notes.ndjson.gz"])
@pytest.mark.parametrize("write", [array, ndjson])
def test_a_file_is_read_in_chunks_whatever_its_form(tmp_path: Path, name: str, write: Callable[..., bytes]) -> None:
    path = tmp_path / name
    body = write(*(note(f"n{at}") for at in range(2500)))
    path.write_bytes(gzip.compress(body) if name.endswith(".gz") else body)

    chunks = read(path)

    assert [len(chunk.records) for chunk in chunks] == [1000, 1000, 500]
    assert ids([record for chunk in chunks for record in chunk.records]) == [f"n{at}" for at in range(2500)]
    assert chunks[-1].position == path.stat().st_size


def test_a_file_is_read_no_further_than_its_chunks_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "notes.ndjson"
    path.write_bytes(ndjson(*(note(f"n{at}", extra={"text": "x" * 200}) for at in range(5000))))

    first = next(iter(read_records(NOTES, path)))

    assert len(first.records) == 1000
    assert first.position < path.stat().st_size / 4


def test_errors_of_a_file_carry_the_line_of_the_whole_file_and_good_records_stay(tmp_path: Path) -> None:
    path = tmp_path / "notes.ndjson"
    good = ndjson(*(note(f"n{at}") for at in range(1500)))
    path.write_bytes(b"\n\n" + good + ndjson(note("bad", weight=9)) + b"{\n" + ndjson(note("last")))

    chunks = read(path)

    assert [chunk.error_count for chunk in chunks] == [0, 2]
    assert [(found.pointer, found.detail[:11]) for found in chunks[1].errors] == [
        ("/1500/weight", "Line 1503: "),
        ("/1501", "Line 1504: "),
    ]
    assert chunks[1].records[-1].note_id == "last"


def test_an_array_that_starts_with_blanks_and_stands_on_long_lines_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_LINE", 100)
    path = tmp_path / "notes.json"
    body = array(note("a", extra={"spaces": " " * 300}), note("b"))
    path.write_bytes(b"\n  " + body)

    (chunk,) = read(path)

    assert chunk.records[0].extra == {"spaces": " " * 300}
    assert len(chunk.records) == 2


def test_a_line_too_long_to_be_a_record_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_LINE", 1000)
    path = tmp_path / "notes.ndjson"
    path.write_bytes(ndjson(note("a", extra={"text": "x" * 1000})))

    with pytest.raises(TooLarge, match="1,000 bytes"):
        read(path)


def test_a_broken_gzip_file_is_called_by_its_name(tmp_path: Path) -> None:
    whole = gzip.compress(ndjson(*(note(f"n{at}") for at in range(100))))
    for broken in (whole[:-20], b"not gzip at all", whole[:30] + b"\0" * 20 + whole[50:]):
        path = tmp_path / "notes.ndjson.gz"
        path.write_bytes(broken)

        with pytest.raises(BadRequest, match=r"notes\.ndjson\.gz is not a whole gzip file"):
            read(path)


def test_the_owner_of_a_file_is_given_to_its_records(tmp_path: Path) -> None:
    path = tmp_path / "notes.ndjson"
    path.write_bytes(ndjson(note("a", user_id=None), note("b", user_id="ada")))

    (chunk,) = read(path, owner="eve")

    assert [record.user_id for record in chunk.records] == ["eve"]
    assert [found.code for found in chunk.errors] == ["foreign_user"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_has_no_chunks(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.ndjson"
    path.write_bytes(content)

    assert read(path) == []
