"""Models: the registry of what was trained, and how a job finds a version in it."""

from pathlib import PurePosixPath
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from app.database import Database
from app.jobs.fields import Identifier, Integer, Moment, Number
from app.records.record import Record, RecordType


class RegisteredModel(Record):
    """One trained version of a model."""

    model_id: Identifier
    """Its id, unique over all users; the same training gives the same id."""
    user_id: Identifier
    """Whose model it is."""
    timestamp: Moment
    """When it was trained."""
    name: Identifier
    """What all versions of it are called."""
    version: Annotated[Integer, Field(ge=1)]
    """Which version it is, from 1 for each user and name."""
    kind: Identifier
    """The backend that can load it."""
    path: Identifier
    """Its file, inside the directory for trained models."""
    sha256: Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$", examples=[64 * "0"])]
    """The SHA-256 of the file; another one is not loaded."""
    metrics: dict[str, Number | None]
    """How it did on held-out examples: loss in nats, accuracy, perplexity."""
    parent: Identifier | None = None
    """The id of the version that its training went on from."""
    data_from: Moment | None = None
    """The time of the oldest example it was trained on."""
    data_until: Moment | None = None
    """The time of the newest example it was trained on."""


def _own_file(model: RegisteredModel) -> str | None:
    """Return the file that is this version's alone: named after its id, which nobody else can have.

    A version that was imported may name any file, also another user's.
    """
    path = PurePosixPath(model.path)
    return path.name if path.name == model.path and path.stem == model.model_id else None


MODELS = RecordType(
    name="models",
    model=RegisteredModel,
    id_field="model_id",
    summary="The registry of trained models: each version with its file, hash and metrics.",
    file_of=_own_file,
)


async def find_model(database: Database, user_id: str, name: str) -> RegisteredModel | None:
    """Return the user's model of this id, or the latest version of this name; None if there is neither."""
    table = MODELS.table
    columns = table.c
    is_meant = sa.or_(columns.model_id == name, columns.name == name)
    by_id_first = sa.case((columns.model_id == name, 0), else_=1)
    query = sa.select(table).where(columns.user_id == user_id, is_meant)
    async with database.read() as connection:
        row = (await connection.execute(query.order_by(by_id_first, columns.version.desc()).limit(1))).mappings()
        found = row.first()
    return None if found is None else RegisteredModel.model_validate(dict(found))


async def next_version(database: Database, user_id: str, name: str) -> int:
    """Return the number that the next version of a user's model of this name has."""
    columns = MODELS.table.c
    query = sa.select(sa.func.max(columns.version)).where(columns.user_id == user_id, columns.name == name)
    async with database.read() as connection:
        return ((await connection.execute(query)).scalar_one() or 0) + 1
