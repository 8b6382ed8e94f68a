"""Reading records from outside: a request body or a file, JSON array or NDJSON, into validated models.

Every error is found before anything is refused: its place as a JSON pointer whose first part is the
number of the record (from 0), and for NDJSON the line (from 1) in its text. A kind of record that unfolds
documents takes one in the place of a record, and a whole body or file that is one.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from app.errors import BadRequest, FieldError, InvalidInput, MalformedJson, TooLarge
from app.jobs.validation import MAX_LISTED, json_errors, parse_json, validate
from app.records.record import Record, RecordType

MAX_RECORDS = 10_000
CHUNK = 1_000
MAX_LINE = 16 * 1024 * 1024

_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

T = TypeVar("T", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk(Generic[T]):
    """Up to 1,000 records of a file, in order; ``records`` holds the good ones alone."""

    records: list[T]
    errors: list[FieldError]  # the first 100 of this chunk
    error_count: int
    position: int  # bytes of the file that have been read


class _Item(NamedTuple):
    """One record as it came: its pointer, its line from 1 (0 in an array), its JSON or the JSON's value."""

    place: str
    line: int
    content: object


def parse_records(
    record_type: RecordType[T], body: bytes, *, content_type: str = "", owner: str | None = None
) -> list[T]:
    """Return the records of a body, all or none: up to 10,000, as a JSON array or NDJSON.

    ``content_type`` decides the form; without one, a body that starts with ``[`` is an array. With an
    ``owner``, records that name no user become the owner's and foreign ones are errors. Raise InvalidInput
    with the first 100 errors and the count of all, MalformedJson for a broken array, TooLarge beyond 10,000.
    """
    items = _unfolded(record_type, _items_of(body.removeprefix(_BYTE_ORDER_MARK), content_type))
    judge = _Judge(record_type, owner)
    records: list[T] = []
    count = 0
    while batch := list(islice(items, CHUNK)):
        count += len(batch)
        if count > MAX_RECORDS:
            raise TooLarge(f"At most {MAX_RECORDS:,} records are taken at once; send them in parts.")
        records += judge.accept(batch)
    if judge.error_count:
        raise InvalidInput(judge.errors, f"{_errors(judge.error_count)} in {count:,} records; nothing was stored.")
    return records


def read_records(record_type: RecordType[T], path: Path, *, owner: str | None = None) -> Iterator[Chunk[T]]:
    """Read a file of any length chunk by chunk: NDJSON, or a JSON array (held in memory whole); ``.gz`` of either.

    One named ``.jsonld`` is one document, whatever it starts with.
    ``owner`` as in :func:`parse_records`. Raise MalformedJson for a broken array, TooLarge for a line over
    16 MiB, BadRequest for a broken ``.gz``, OSError when the file cannot be read.
    """
    with path.open("rb") as raw:
        content = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        try:
            items = _unfolded(record_type, _items_of_file(content, is_document=".jsonld" in path.suffixes))
            while batch := list(islice(items, CHUNK)):
                judge = _Judge(record_type, owner)
                records = judge.accept(batch)
                position = raw.tell()
                yield Chunk(records=records, errors=judge.errors, error_count=judge.error_count, position=position)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadRequest(f"{path.name} is not a whole gzip file: {error}.") from error


def _items_of(body: bytes, content_type: str) -> Iterator[_Item]:
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if media_type not in _NDJSON and (is_json or body.lstrip().startswith(b"[")):
        return _elements(body)
    return _lines(body.split(b"\n"))


def _items_of_file(content: BinaryIO, *, is_document: bool) -> Iterator[_Item]:
    if is_document:
        return _elements(content.read().removeprefix(_BYTE_ORDER_MARK))
    lines = _bounded_lines(content)
    for blanks, first in enumerate(lines):
        text = first.removeprefix(_BYTE_ORDER_MARK).lstrip()
        if text.startswith(b"["):
            return _elements(text + content.read())
        if text:
            return _lines(chain([text], lines), blanks)
    return iter(())


def _bounded_lines(content: BinaryIO) -> Iterator[bytes]:
    while line := content.readline(MAX_LINE + 1):
        # An array may stand on one long line; it is read whole in any case.
        if len(line) > MAX_LINE and not line.lstrip().startswith(b"["):
            raise TooLarge(f"A line is longer than {MAX_LINE:,} bytes; a record stands on one line of its own.")
        yield line


def _elements(document: bytes) -> Iterator[_Item]:
    value = parse_json(document)
    if not isinstance(value, list):
        return iter([_Item("", 0, value)])
    return (_Item(f"/{number}", 0, element) for number, element in enumerate(value))


def _lines(lines: Iterable[bytes], before: int = 0) -> Iterator[_Item]:
    stripped = ((at, line.strip()) for at, line in enumerate(lines, start=before + 1))
    filled = ((at, line) for at, line in stripped if line)
    return (_Item(f"/{number}", at, line) for number, (at, line) in enumerate(filled))


def _unfolded(record_type: RecordType[T], items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the records as values; of a document that holds several, each in its place."""
    for item in items:
        content = _parsed(item.content)
        if isinstance(content, MalformedJson):
            yield item._replace(content=content)
        elif record_type.unfold is not None:
            for where, part in record_type.unfold(content):
                yield _Item(item.place + where, item.line, part)
        elif item.place:
            yield item._replace(content=content)
        else:
            detail = "Send a JSON array of records, or NDJSON as such."
            raise InvalidInput([FieldError(pointer="", code="list_type", detail=detail)])


def _errors(count: int) -> str:
    listed = f" (the first {MAX_LISTED} are listed)" if count > MAX_LISTED else ""
    return f"{count:,} error{'s' if count != 1 else ''}{listed}"


class _Judge(Generic[T]):
    """Turns items into records, and keeps the first errors and the count of all."""

    def __init__(self, record_type: RecordType[T], owner: str | None) -> None:
        self._record_type = record_type
        self._owner = owner if record_type.user_field is not None else None
        self.errors: list[FieldError] = []
        self.error_count = 0

    def accept(self, items: Sequence[_Item]) -> list[T]:
        """Return the good records of ``items``, whose content is values, and note what is wrong with the others."""
        values = [self._owned(item.content) for item in items]
        if all(self._may_store(value) for value in values):
            with suppress(ValidationError):  # all at once is several times faster; one by one tells what is wrong
                return self._record_type.batch.validate_python(values)
        return [record for item, value in zip(items, values, strict=True) for record in self._validated(item, value)]

    def _owned(self, value: object) -> object:
        field = self._record_type.user_field
        if self._owner is not None and isinstance(value, dict) and value.get(field) is None:
            return {**value, field: self._owner}
        return value

    def _may_store(self, value: object) -> bool:
        return not json_errors(value) and not self._is_foreign(value)

    def _is_foreign(self, value: object) -> bool:
        field = self._record_type.user_field
        return self._owner is not None and isinstance(value, dict) and value.get(field) != self._owner

    def _validated(self, item: _Item, value: object) -> Iterator[T]:
        if isinstance(value, MalformedJson):
            self._report(item, [FieldError(pointer=item.place, code=value.code, detail=value.message)])
        elif self._is_foreign(value):
            detail = f"Records of another user are not yours to write; send {self._owner!r} or leave it out."
            where = f"{item.place}/{self._record_type.user_field}"
            self._report(item, [FieldError(pointer=where, code="foreign_user", detail=detail)])
        else:
            try:
                yield validate(self._record_type.model, value, item.place)
            except InvalidInput as error:
                self._report(item, error.errors)

    def _report(self, item: _Item, errors: list[FieldError]) -> None:
        self.error_count += len(errors)
        line = f"Line {item.line}: " if item.line else ""
        room = MAX_LISTED - len(self.errors)
        self.errors += [replace(error, detail=line + error.detail) for error in errors[:room]]


def _parsed(content: object) -> object:
    try:
        return parse_json(content) if isinstance(content, bytes) else content
    except MalformedJson as error:  # stays in its item's place, so that errors are told in the order of the lines
        return error
