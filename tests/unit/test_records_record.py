"""One definition of a record kind gives its table, or is refused."""

import sys
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Optional

import pytest
import sqlalchemy as sa
from pydantic import Field, JsonValue

import app.records
from app.database import Json, UtcTime, metadata
from app.errors import Misconfigured
from app.jobs.fields import Identifier, Integer, Model, Moment, Number
from app.records.record import Record, RecordType, load_record_types


class Colour(StrEnum):
    RED = "red"


class Inner(Model):
    x: Integer


class Everything(Record):
    thing_id: Identifier
    user_id: Identifier
    timestamp: Moment
    text: str
    number: Number
    whole: Integer
    flag: bool
    colour: Colour
    size: Literal["small", "large"]
    step: Literal[1, 2]
    mapping: dict[str, JsonValue]
    names: list[str]
    pair: tuple[int, int]
    inner: Inner
    anything: JsonValue
    maybe_number: Annotated[Number | None, Field(ge=0)] = None
    maybe_inside: Optional[Annotated[Integer, Field(ge=1)]] = None  # noqa: UP045  # the older spelling resolves too
    maybe_size: Literal["small", None] = None
    maybe_time: Moment | None = None
    defaulted: Integer = 7


class Reference(Record):
    id: Identifier
    date: Moment


class NoTime(Record):
    id: Identifier
    user_id: Identifier


class MaybeTime(Record):
    id: Identifier
    user_id: Identifier
    timestamp: Moment | None = None


class Mixed(Record):
    id: Identifier
    user_id: Identifier
    timestamp: Moment
    either: int | str


class Unknown(Record):
    id: Identifier
    user_id: Identifier
    timestamp: Moment
    raw: bytes


def kind(model: type[Record], **changes: Any) -> RecordType[Record]:
    facts: dict[str, Any] = {"name": "all-things", "id_field": "id", "summary": "Things.", "metadata": sa.MetaData()}
    return RecordType(model=model, **facts | changes)


def test_the_table_follows_from_the_fields_of_the_model() -> None:
    table = kind(Everything, id_field="thing_id").table

    assert table.name == "all_things"
    assert {column.name: type(column.type) for column in table.columns} == {
        "thing_id": sa.Text,
        "user_id": sa.Text,
        "timestamp": UtcTime,
        "text": sa.Text,
        "number": sa.Float,
        "whole": sa.BigInteger,
        "flag": sa.Boolean,
        "colour": sa.Text,
        "size": sa.Text,
        "step": sa.BigInteger,
        "mapping": Json,
        "names": Json,
        "pair": Json,
        "inner": Json,
        "anything": Json,
        "maybe_number": sa.Float,
        "maybe_inside": sa.BigInteger,
        "maybe_size": sa.Text,
        "maybe_time": UtcTime,
        "defaulted": sa.BigInteger,
    }


def test_only_fields_that_may_be_none_are_nullable() -> None:
    table = kind(Everything, id_field="thing_id").table

    assert {column.name for column in table.columns if column.nullable} == {
        "anything",
        "maybe_number",
        "maybe_inside",
        "maybe_size",
        "maybe_time",
    }


def test_the_id_is_the_primary_key_and_lists_have_their_indexes() -> None:
    table = kind(Everything, id_field="thing_id").table

    assert [column.name for column in table.primary_key] == ["thing_id"]
    assert {tuple(column.name for column in index.columns) for index in table.indexes} == {
        ("user_id", "timestamp", "thing_id"),
        ("timestamp", "thing_id"),
    }


def test_a_kind_that_belongs_to_nobody_is_indexed_by_time_alone() -> None:
    table = kind(Reference, user_field=None, time_field="date").table

    assert [tuple(column.name for column in index.columns) for index in table.indexes] == [("date", "id")]


def test_a_table_is_made_once_and_lives_in_the_metadata() -> None:
    tables = sa.MetaData()
    reference = kind(Reference, user_field=None, time_field="date", metadata=tables)

    assert reference.table is reference.table
    assert tables.tables["all_things"] is reference.table
    assert RecordType(model=Everything, name="x", id_field="thing_id", summary="").metadata is metadata


def test_two_kinds_of_one_name_cannot_share_the_database() -> None:
    tables = sa.MetaData()
    assert kind(Reference, user_field=None, time_field="date", metadata=tables).table is not None

    with pytest.raises(Misconfigured, match="all-things"):
        _ = kind(Reference, user_field=None, time_field="date", metadata=tables).table


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (Everything, {"id_field": "nope"}),
        (Everything, {"id_field": "whole"}),
        (Everything, {"id_field": "thing_id", "user_field": "flag"}),
        (NoTime, {}),
        (MaybeTime, {}),
        (Reference, {"time_field": "date"}),
        (Everything, {"id_field": "thing_id", "name": "All_Things"}),
    ],
)
def test_a_definition_whose_id_owner_time_or_name_will_not_do_is_refused(
    model: type[Record], changes: dict[str, Any]
) -> None:
    with pytest.raises(Misconfigured):
        kind(model, **changes)


@pytest.mark.parametrize(("model", "field"), [(Mixed, "either"), (Unknown, "raw")])
def test_a_field_without_one_column_type_is_refused_by_name(model: type[Record], field: str) -> None:
    with pytest.raises(Misconfigured, match=field):
        _ = kind(model).table


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules are all that ``app.records`` consists of."""
    monkeypatch.setattr(app.records, "__path__", [str(tmp_path)])
    return tmp_path


def add_module(package: Path, monkeypatch: pytest.MonkeyPatch, name: str, *kinds: RecordType[Record]) -> None:
    (package / f"{name}.py").touch()
    module = ModuleType(f"app.records.{name}")
    for at, record_type in enumerate(kinds):
        setattr(module, f"KIND_{at}", record_type)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_every_module_is_searched_and_its_tables_are_made(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = sa.MetaData()
    second = kind(Reference, name="b-things", user_field=None, time_field="date", metadata=tables)
    first = kind(Everything, name="a-things", id_field="thing_id", metadata=tables)
    add_module(package, monkeypatch, "seconds", second)
    add_module(package, monkeypatch, "both", first, second)  # a module may import another's kind

    found = load_record_types()

    assert list(found.items()) == [("a-things", first), ("b-things", second)]
    assert set(tables.tables) == {"a_things", "b_things"}


def test_a_name_given_twice_is_refused_at_start(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_module(package, monkeypatch, "one", kind(Everything, id_field="thing_id"))
    add_module(package, monkeypatch, "two", kind(Reference, user_field=None, time_field="date"))

    with pytest.raises(Misconfigured, match="all-things"):
        load_record_types()


def test_the_kinds_of_the_service_have_tables_under_their_names() -> None:
    for name, record_type in load_record_types().items():
        assert name == record_type.name
        assert metadata.tables[name.replace("-", "_")] is record_type.table
