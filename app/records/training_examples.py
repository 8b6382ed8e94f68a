"""Training examples: what a user's models learn from, and the question that the model family asks of them."""

from collections.abc import AsyncIterator
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from app.database import Database, UtcTime
from app.jobs.fields import Identifier, Moment, Number
from app.records.record import Record, RecordType

GOOD_ENOUGH = 0.7  # the least quality that models are trained and judged on

Text = Annotated[str, Field(strict=True, max_length=10_000)]


class TrainingExample(Record):
    """One exchange that a model may learn from."""

    example_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Whose example it is."""
    timestamp: Moment
    """When it was made."""
    input_text: Text
    """What was asked."""
    output_text: Text
    """What a good answer is."""
    quality: Annotated[Number, Field(ge=0, le=1)]
    """How good the answer is, 0–1; models learn from .7 on."""
    label: Identifier | None = None
    """The class it belongs to, for classifiers."""
    task_type: Identifier | None = None
    """The kind of task it comes from, as a word."""
    source: Identifier | None = None
    """Where it comes from."""


TRAINING_EXAMPLES = RecordType(
    name="training-examples",
    model=TrainingExample,
    id_field="example_id",
    summary="Exchanges that a user's models learn from, each with its quality.",
)


async def read_good_examples(
    database: Database, user_id: str, *, labelled: bool, batch: int = 500
) -> AsyncIterator[list[TrainingExample]]:
    """Yield a user's examples of quality ≥ .7, newest first, ``batch`` at a time; only those with a label if asked."""
    table = TRAINING_EXAMPLES.table
    columns = table.c
    wanted = sa.select(table).where(columns.user_id == user_id, columns.quality >= GOOD_ENOUGH)
    if labelled:
        wanted = wanted.where(columns.label.is_not(None))
    wanted = wanted.order_by(columns.timestamp.desc(), columns.example_id.desc()).limit(batch)
    page = wanted
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(page)).mappings().all()
        if rows:
            yield TRAINING_EXAMPLES.batch.validate_python([dict(row) for row in rows])
        if len(rows) < batch:
            return
        last = sa.tuple_(sa.literal(rows[-1]["timestamp"], UtcTime), sa.literal(rows[-1]["example_id"]))
        page = wanted.where(sa.tuple_(columns.timestamp, columns.example_id) < last)
