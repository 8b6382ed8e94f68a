"""The typed fields that params, results and requests are made of.

Strict on purpose: a JSON ``true`` is no number, ``"5"`` is no integer, and ``3.0`` is the integer 3
(JSON has one kind of number).
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _integral(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("a time is an ISO-8601 text such as 2026-11-22T09:30:00Z, not a number")
    return value


def _utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from error


Integer = Annotated[int, Field(strict=True), BeforeValidator(_integral)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Identifier = Annotated[str, Field(strict=True, min_length=1, max_length=255)]
Moment = Annotated[datetime, BeforeValidator(_text), AfterValidator(_utc)]  # a time without an offset is taken as UTC

Priority = Annotated[Integer, Field(ge=1, le=10)]
Hours = Annotated[Integer, Field(ge=1, le=8760)]
Days = Annotated[Integer, Field(ge=1, le=3650)]
Percent = Annotated[Number, Field(gt=0, le=100)]


class Model(BaseModel):
    """The base of everything that crosses a border: frozen, and an unknown field is refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # so that a NaN in a result is seen, and refused, instead of becoming null
    )


class Params(Model):
    """What a job type takes. A field ``user_id`` makes the job be about a user."""


class Result(Model):
    """What a job type returns. Must be finite JSON of at most 1 MiB."""
