"""What a submit says, and for whom."""

from datetime import timedelta
from typing import Any

import pytest

from app.api.auth import Caller
from app.api.submissions import acceptance_of, order_of, submission_form
from app.clock import utc_now
from app.errors import BadRequest, Forbidden, InvalidInput, TooLarge
from app.jobs.catalogue import AnyJobType
from app.orders import Order
from tests.support.api import judge, sweep
from tests.support.house import count, new_job, note

ADMIN = Caller(user_id="admin", is_admin=True)
ADA = Caller(user_id="ada", is_admin=False)


def read(document: object, job_type: AnyJobType = note, caller: Caller = ADA) -> Order:
    return order_of(document, job_type, submission_form(job_type), caller)


def pointers(error: InvalidInput) -> list[tuple[str, str]]:
    return [(one.pointer, one.code) for one in error.errors]


@pytest.mark.parametrize(
    ("job_type", "caller", "document", "subject"),
    [
        (note, ADA, {"parameters": {}}, "ada"),
        (note, ADA, {"parameters": {"user_id": None}}, "ada"),
        (note, ADA, {"user_id": "ada", "parameters": {"user_id": "ada"}}, "ada"),
        (note, ADMIN, {"parameters": {}}, None),
        (note, ADMIN, {"user_id": "ada", "parameters": {}}, "ada"),
        (note, ADMIN, {"parameters": {"user_id": "ada"}}, "ada"),
        (judge, ADA, {"parameters": {}}, "ada"),
        (judge, ADMIN, {"parameters": {}}, "admin"),
        (count, ADA, {"parameters": {}}, "ada"),
        (count, ADMIN, {"user_id": "ada", "parameters": {}}, "ada"),
    ],
)
def test_a_job_is_about_the_user_named_else_the_caller_else_all(
    job_type: AnyJobType, caller: Caller, document: dict[str, Any], subject: str | None
) -> None:
    order = read(document, job_type, caller)

    assert (order.user_id, order.owner) == (subject, caller.user_id)
    assert getattr(order.params, "user_id", subject) == subject


def test_two_different_users_are_one_too_many() -> None:
    with pytest.raises(InvalidInput) as caught:
        read({"user_id": "ada", "parameters": {"user_id": "bob"}}, caller=ADMIN)

    assert pointers(caught.value) == [("/parameters/user_id", "user_id_conflict")]


@pytest.mark.parametrize("document", [{"user_id": "bob", "parameters": {}}, {"parameters": {"user_id": "bob"}}])
def test_a_user_cannot_act_for_another(document: object) -> None:
    with pytest.raises(Forbidden):
        read(document)


def test_a_user_cannot_submit_what_is_for_administrators() -> None:
    with pytest.raises(Forbidden):
        read({"parameters": {}}, sweep)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ([], [("", "model_type")]),
        ({}, [("/parameters", "missing")]),
        ({"parameters": []}, [("/parameters", "model_type")]),
        ({"parameters": {}, "priority": 11}, [("/priority", "less_than_equal")]),
        ({"parameters": {}, "priority": True}, [("/priority", "int_type")]),
        ({"parameters": {}, "unique_key": ""}, [("/unique_key", "string_too_short")]),
        (
            {"parameters": {"text": 5, "nope": 1}},
            [("/parameters/text", "string_type"), ("/parameters/nope", "extra_forbidden")],
        ),
        ({"parameters": {"text": "a\0b"}}, [("/parameters/text", "null_character")]),
        ({"parameters": {}, "user_id": 5}, [("/user_id", "string_type")]),
        ({"parameters": {"user_id": 5}}, [("/parameters/user_id", "string_type")]),
        ({"parameters": {}, "max_retries": 11}, [("/max_retries", "less_than_equal")]),
        ({"parameters": {}, "countdown": -1}, [("/countdown", "greater_than_equal")]),
        ({"parameters": {}, "countdown": 1, "eta": "2026-01-01T00:00:00Z"}, [("/eta", "conflict")]),
        ({"parameters": {}, "eta": "9999-12-31T23:59:59Z"}, [("/eta", "too_far")]),
        ({"parameters": {}, "expires_in": 0}, [("/expires_in", "greater_than")]),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(document: object, found: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(document)

    assert pointers(caught.value) == found


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"in": value}
    return value


def test_params_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    with pytest.raises(InvalidInput) as at_limit:
        read({"parameters": nested(32)})
    with pytest.raises(InvalidInput) as beyond:
        read({"parameters": nested(33)})

    assert "too_deep" not in [code for _, code in pointers(at_limit.value)]
    assert "too_deep" in [code for _, code in pointers(beyond.value)]


def test_params_beyond_64_kib_are_too_large() -> None:
    with pytest.raises(TooLarge):
        read({"parameters": {"text": "x" * 64 * 1024}})


@pytest.mark.parametrize("task_type", ["nonsense", "maintenance"])
def test_a_task_type_must_be_the_kinds_own(task_type: str) -> None:
    with pytest.raises(BadRequest, match="task_type"):
        read({"task_type": task_type, "parameters": {}})


def test_the_kinds_own_task_type_may_be_said() -> None:
    assert read({"task_type": "system", "parameters": {}}).job_type is note


def test_a_countdown_is_counted_from_now() -> None:
    due_at = read({"parameters": {}, "countdown": 60}).scheduled_for

    assert due_at is not None
    assert abs(due_at - utc_now() - timedelta(seconds=60)) < timedelta(seconds=5)


def test_no_countdown_is_no_schedule() -> None:
    assert read({"parameters": {}, "countdown": 0}).scheduled_for is None


@pytest.mark.parametrize(
    ("asked", "given", "message"),
    [
        (None, 5, "Task enqueued successfully with priority 5"),
        (7, 7, "Task enqueued successfully with priority 7"),
        (10, 9, "Task enqueued successfully with priority 9 (lowered from 10: test tasks take at most 9)"),
    ],
)
def test_the_answer_says_so_when_a_priority_was_lowered(asked: int | None, given: int, message: str) -> None:
    order = read({"parameters": {}, "priority": asked}, count)

    assert acceptance_of(new_job(priority=given), order) == message
