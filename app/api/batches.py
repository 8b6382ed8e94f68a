"""Many submits in one body, JSON or NDJSON, judged before anything is refused. Pure but for the clock.

Every error names its task: by a pointer that starts with the task's number (from 0) and, for NDJSON, by the
line (from 1) in its text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from app.api.auth import Caller
from app.api.submissions import Form, name_in, order_of
from app.errors import BadRequest, FieldError, Forbidden, InvalidInput, TooLarge, UnknownTask
from app.jobs.catalogue import Catalogue
from app.jobs.validation import MAX_LISTED, parse_json
from app.orders import Order

MAX_TASKS = 10_000

_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


class _Item(NamedTuple):
    """One task as it came: where it stands, its line (0 in a JSON document), its JSON or the JSON's value."""

    place: str
    line: int
    content: object


def orders_of(
    raw: bytes, content_type: str, *, catalogue: Catalogue, forms: Mapping[str, Form], caller: Caller
) -> list[Order]:
    """Judge a batch, all or none.

    Raise InvalidInput with the first 100 errors and the count of all, whatever kind they are; MalformedJson for
    a broken document; TooLarge beyond 10,000 tasks.
    """
    items = _items_of(raw, content_type)
    batch = _Batch(catalogue, forms, caller)
    orders = [order for item in items if (order := batch.judge(item)) is not None]
    if batch.error_count:
        count = f"{batch.error_count:,} error{'s' if batch.error_count > 1 else ''}"
        listed = f" (the first {MAX_LISTED} are listed)" if batch.error_count > MAX_LISTED else ""
        raise InvalidInput(batch.errors, f"{count}{listed} in {len(items):,} tasks; none was accepted.")
    return orders


class _Batch:
    """Turns items into orders; keeps the first errors and the count of all."""

    def __init__(self, catalogue: Catalogue, forms: Mapping[str, Form], caller: Caller) -> None:
        self._catalogue = catalogue
        self._forms = forms
        self._caller = caller
        self._unique_keys: dict[str, str] = {}
        self.errors: list[FieldError] = []
        self.error_count = 0

    def judge(self, item: _Item) -> Order | None:
        """Return the order of one item; note what is wrong with it otherwise."""
        try:
            raw = item.content if isinstance(item.content, bytes) else None
            document = item.content if raw is None else parse_json(raw)
            job_type = self._catalogue.find(name_in(document))
            form = self._forms[job_type.kind]
            order = order_of(document, job_type, form, self._caller, raw=raw, place=item.place)
        except InvalidInput as error:
            self._report(item, error.errors)
            return None
        except (BadRequest, Forbidden, TooLarge) as error:
            where = "/task_name" if isinstance(error, UnknownTask) else ""
            self._report(item, [FieldError(pointer=where, code=error.code, detail=error.message)])
            return None
        return self._only_one(item, order)

    def _only_one(self, item: _Item, order: Order) -> Order | None:
        if order.unique_key is None:
            return order
        first = self._unique_keys.setdefault(order.unique_key, item.place)
        if first == item.place:
            return order
        detail = f"The task at {first} has this unique_key already."
        self._report(item, [FieldError(pointer="/unique_key", code="unique_key_taken", detail=detail)])
        return None

    def _report(self, item: _Item, errors: list[FieldError]) -> None:
        self.error_count += len(errors)
        line = f"Line {item.line}: " if item.line else ""
        self.errors += [
            replace(error, pointer=item.place + error.pointer, detail=line + error.detail)
            for error in errors[: MAX_LISTED - len(self.errors)]
        ]


def _items_of(raw: bytes, content_type: str) -> list[_Item]:
    media_type = content_type.partition(";")[0].strip().lower()
    items = list(_lines(raw) if media_type in _NDJSON else _members(raw))
    if not items:
        raise InvalidInput([FieldError(pointer="/tasks", code="too_short", detail="Send at least one task.")])
    return items


def _lines(raw: bytes) -> Iterator[_Item]:
    number = 0
    for line, text in enumerate(raw.split(b"\n"), start=1):
        if content := text.strip():
            _check_count(number + 1)
            yield _Item(place=f"/{number}", line=line, content=content)
            number += 1


def _members(raw: bytes) -> Iterator[_Item]:
    document = parse_json(raw)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    wrong = [FieldError(pointer="/tasks", code="list_type", detail="Send an array of tasks here, or NDJSON as such.")]
    if isinstance(document, dict):
        wrong[:0] = [
            FieldError(pointer=f"/{name}", code="extra_forbidden", detail="There is no such field; only tasks.")
            for name in document
            if name != "tasks"
        ]
    if not isinstance(tasks, list) or len(wrong) > 1:
        raise InvalidInput(wrong if not isinstance(tasks, list) else wrong[:-1])
    _check_count(len(tasks))
    for number, task in enumerate(tasks):
        yield _Item(place=f"/tasks/{number}", line=0, content=task)


def _check_count(count: int) -> None:
    if count > MAX_TASKS:
        raise TooLarge(f"At most {MAX_TASKS:,} tasks are taken at once; send them in parts.")
