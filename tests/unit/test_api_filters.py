"""From a query string to what is looked for."""

from typing import Any

import pytest

from app.api.auth import Caller
from app.api.filters import TaskQuery, filter_of, sort_of
from app.errors import BadRequest
from app.history.reader import JobFilter
from app.jobs.status import Status
from tests.support.api import api_catalogue

ADMIN = Caller(user_id="admin", is_admin=True)
ADA = Caller(user_id="ada", is_admin=False)


def wanted(caller: Caller = ADMIN, **query: Any) -> JobFilter:
    return filter_of(TaskQuery(**query), catalogue=api_catalogue(), caller=caller)


def test_a_caller_sees_their_own_and_an_administrator_everybodys() -> None:
    assert wanted(ADA).owner == "ada"
    assert wanted(ADMIN).owner is None


@pytest.mark.parametrize(
    ("words", "statuses", "was_tried"),
    [
        ((), None, None),
        (("pending",), {Status.PENDING}, None),
        (("PENDING",), {Status.PENDING}, False),
        (("RETRY",), {Status.PENDING}, True),
        (("PENDING", "RETRY"), {Status.PENDING}, None),
        (("pending", "RETRY"), {Status.PENDING}, None),
        (("STARTED",), {Status.RUNNING}, None),
        (("PROGRESS",), {Status.RUNNING}, None),
        (("SUCCESS,FAILURE", "REVOKED"), {Status.COMPLETED, Status.FAILED, Status.CANCELLED}, None),
        (("completed", "PENDING"), {Status.COMPLETED, Status.PENDING}, False),
    ],
)
def test_both_vocabularies_name_a_status(
    words: tuple[str, ...], statuses: set[Status] | None, was_tried: bool | None
) -> None:
    found = wanted(status=words)

    assert (found.statuses, found.was_tried) == (statuses, was_tried)


@pytest.mark.parametrize(
    "query",
    [
        {"status": ("nonsense",)},
        {"status": ("",)},
        {"task_type": "nonsense"},
        {"task_name": "nonsense"},
        {"family": "nonsense"},
        {"queue": "nonsense"},
        {"scheduled_by": "nonsense"},
        {"include": "nonsense"},
    ],
)
def test_a_value_that_nothing_has_is_answered_with_those_there_are(query: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"known are: .+"):
        wanted(**query)


def test_a_kind_is_found_by_its_alias() -> None:
    assert wanted(task_name="note").kind == "test.note"


@pytest.mark.parametrize(
    ("query", "origin"), [({}, "people"), ({"include": "all"}, "all"), ({"scheduled_by": "cron"}, "cron")]
)
def test_what_cron_submitted_is_left_out_unless_asked_for(query: dict[str, Any], origin: str) -> None:
    assert wanted(**query).origin == origin


@pytest.mark.parametrize("query", [{"sort": "nonsense"}, {"offset": 1, "cursor": "x"}])
def test_a_page_that_makes_no_sense_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        sort_of(TaskQuery(**query))
