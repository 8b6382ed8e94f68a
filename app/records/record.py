"""The definition of a record kind: one value from which table, validation, route and docs follow."""

import pkgutil
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from importlib import import_module
from itertools import islice
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import sqlalchemy as sa
from pydantic import BaseModel, JsonValue, TypeAdapter
from typing_extensions import TypeAliasType

import app.records
from app.database import Json, UtcTime, metadata
from app.errors import FieldError, InvalidInput, Misconfigured
from app.jobs.fields import Model

_CLOCKS_DIFFER = timedelta(minutes=5)  # a caller's may be ahead of ours
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

ColumnType = type[sa.types.TypeEngine[Any]]

# The first base that fits decides: bool is an int, and a StrEnum a str.
_COLUMN_TYPES: tuple[tuple[type, ColumnType | None], ...] = (
    (types.NoneType, None),
    (bool, sa.Boolean),
    (int, sa.BigInteger),  # 64 bits on both databases; PostgreSQL's INTEGER would end at 2^31
    (float, sa.Float),
    (str, sa.Text),
    (datetime, UtcTime),
    (dict, Json),
    (list, Json),
    (tuple, Json),
    (BaseModel, Json),
)


class Record(Model):
    """The base of every record model."""


T_co = TypeVar("T_co", bound=Record, covariant=True)


@dataclass(frozen=True, kw_only=True)
class RecordAction:
    """Something that is done to one stored record; its route is ``POST /records/{kind}/{id}/{name}``."""

    name: str  # a verb: "resolve"
    summary: str  # one sentence for people, in the API docs
    body: type[Model]  # what it needs to know
    apply: Callable[[Any, Any, datetime], Any]
    """Takes the record, the body and the present time; returns the record as it is to be stored, which for an
    action that was done already is the record itself. Raises Conflict where it can no longer be done."""


@dataclass(frozen=True, kw_only=True)
class RecordType(Generic[T_co]):
    """One kind of record that can be stored."""

    name: str  # "ari-snapshots": its route, its name on the command line and, with underscores, its table
    model: type[T_co]
    id_field: str  # unique over all users: "snapshot_id"
    user_field: str | None = "user_id"  # the owner; None for reference data that belongs to nobody
    time_field: str = "timestamp"  # what lists are ordered by
    summary: str  # one sentence for people, in the API docs and the command line
    actions: tuple[RecordAction, ...] = ()
    is_admin_only: bool = False  # whether only administrators read it
    unfold: Callable[[object], Iterable[tuple[str, object]]] | None = None  # the records inside a document, by pointer
    file_of: Callable[[Any], str | None] | None = None  # the file in MODEL_DIR that goes when the record goes
    metadata: sa.MetaData = field(default=metadata, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(f"A record kind's name is lower case words joined by '-', not {self.name!r}.")
        self._require(self.id_field, sa.Text)
        self._require(self.time_field, UtcTime)
        if self.user_field is not None:
            self._require(self.user_field, sa.Text, may_be_null=True)

    def _require(self, name: str, column_type: ColumnType, *, may_be_null: bool = False) -> None:
        found = self.model.model_fields.get(name)
        allowed = ({column_type}, {column_type, None}) if may_be_null else ({column_type},)
        if found is None or _column_types(found.annotation) not in allowed:
            raise Misconfigured(f"{self.name}: {self.model.__name__} needs a field {name!r} of {column_type.__name__}.")

    @cached_property
    def table(self) -> sa.Table:
        """Its table, one column per field of the model; made on first use, inside ``metadata``.

        One index serves a user's lists, one the lists, windows and retention over all users.
        """
        name = self.name.replace("-", "_")
        if name in self.metadata.tables:
            raise Misconfigured(f"The record kind {self.name!r} is defined twice: the table {name} exists already.")
        order = (self.time_field, self.id_field)
        indexes = [order] if self.user_field is None else [(self.user_field, *order), order]
        return sa.Table(
            name,
            self.metadata,
            *(self._column(field_name) for field_name in self.model.model_fields),
            *(sa.Index(None, *columns) for columns in indexes),
        )

    @cached_property
    def batch(self) -> TypeAdapter[list[T_co]]:
        """What validates and dumps a list of its records in one go."""
        return TypeAdapter(list[self.model])  # type: ignore[name-defined]  # a class known at run time only

    def _column(self, name: str) -> "sa.Column[Any]":
        column_types = _column_types(self.model.model_fields[name].annotation)
        match [column_type for column_type in column_types if column_type is not None]:
            case [column_type]:
                nullable = None in column_types
                return sa.Column(name, column_type(), primary_key=name == self.id_field, nullable=nullable)
        raise Misconfigured(f"{self.name}: no one column type fits the field {name!r} of {self.model.__name__}.")


AnyRecordType = RecordType[Record]


def check_moment(name: str, at: datetime, *, since: datetime | None, now: datetime) -> None:
    """Raise InvalidInput, naming the field, for a time before ``since`` or in the future."""
    if at > now + _CLOCKS_DIFFER and at != since:
        raise InvalidInput([FieldError(pointer=f"/{name}", code="in_future", detail="Send a time that has come.")])
    if since is not None and at < since:
        detail = f"Send a time not before {since:%FT%TZ}, when it began."
        raise InvalidInput([FieldError(pointer=f"/{name}", code="too_early", detail=detail)])


def load_record_types() -> dict[str, AnyRecordType]:
    """Import every module of ``app.records`` and return its record kinds by name, sorted; all tables exist then.

    Raise Misconfigured when two kinds have one name.
    """
    found: dict[str, AnyRecordType] = {}
    for module in pkgutil.iter_modules(app.records.__path__):
        for value in vars(import_module(f"app.records.{module.name}")).values():
            if isinstance(value, RecordType) and found.setdefault(value.name, value) is not value:
                raise Misconfigured(f"The record kind {value.name!r} is defined twice.")
    for record_type in found.values():
        _ = record_type.table
    return dict(sorted(found.items()))


def _column_types(annotation: object) -> set[ColumnType | None]:
    """Return the column types that values of ``annotation`` need; None stands for NULL."""
    if annotation in (Any, JsonValue):
        return {Json, None}
    if isinstance(annotation, TypeAliasType):
        return _column_types(annotation.__value__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _column_types(arguments[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(_column_types, arguments))
    if origin is Literal:
        return set().union(*(_column_types(type(value)) for value in arguments))
    return set(islice(_fitting(origin or annotation), 1))


def _fitting(kind: object) -> Iterator[ColumnType | None]:
    return (column_type for base, column_type in _COLUMN_TYPES if isinstance(kind, type) and issubclass(kind, base))
