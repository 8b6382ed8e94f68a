"""The catalogue refuses at start what would be ambiguous later."""

from dataclasses import replace
from typing import Any

import pytest

from app.errors import Misconfigured, UnknownTask
from app.jobs.catalogue import AnyJobType, Catalogue, load_catalogue
from app.jobs.contract import Family, JobType, Limits, TaskType
from app.jobs.fields import Params, Result
from tests.support.house import catalogue, count, note


class Subject(Params):
    user_id: str


class MaybeSubject(Params):
    user_id: str | None = None


def job_type(kind: str = "a.one", **changes: Any) -> AnyJobType:
    facts: dict[str, Any] = {"summary": "One.", "params": Params, "result": Result, "queue": "q"}
    return JobType(kind=kind, **facts | {"task_type": TaskType.SYSTEM} | changes)


def family(name: str, *job_types: AnyJobType) -> Family:
    return Family(name=name, summary="", job_types=job_types)


def test_a_job_type_is_found_by_kind_and_by_alias() -> None:
    assert catalogue().find("test.note") is catalogue().find("note") is note


def test_a_stored_kind_is_not_looked_up_by_alias() -> None:
    assert catalogue().get("test.count") is count
    assert catalogue().get("note") is None


def test_job_types_come_in_the_order_of_their_families() -> None:
    assert list(catalogue()) == [note, count]


def test_queues_are_named_once_and_sorted() -> None:
    both = Catalogue([family("b", job_type("b.x", queue="z"), job_type("b.y", queue="a"), job_type("b.z", queue="z"))])

    assert both.queues == ("a", "z")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownTask, match=r"'test\.nope'; known are: test\.count, test\.note") as caught:
        catalogue().find("test.nope")

    assert caught.value.facts == {"name": "test.nope"}


def test_a_family_defined_twice_is_refused() -> None:
    with pytest.raises(Misconfigured, match="'a' is defined twice"):
        Catalogue([family("a", job_type("a.one")), family("a", job_type("a.two"))])


def test_an_empty_family_is_refused() -> None:
    with pytest.raises(Misconfigured, match="'a' has no job types"):
        Catalogue([family("a")])


def test_a_job_type_in_the_wrong_family_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"b\.one does not belong into the family 'a'"):
        Catalogue([family("a", job_type("b.one"))])


def test_a_kind_defined_twice_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"'a\.one' means both"):
        Catalogue([family("a", job_type("a.one"), job_type("a.one"))])


@pytest.mark.parametrize("alias", ["shared", "a.one"])
def test_an_alias_that_means_another_job_type_too_is_refused(alias: str) -> None:
    first = job_type("a.one", aliases=("shared",))

    with pytest.raises(Misconfigured, match=rf"{alias}' means both a\.one and a\.two"):
        Catalogue([family("a", first, job_type("a.two", aliases=(alias,)))])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("one", {}),
        ("A.one", {}),
        ("a.b.c", {}),
        ("a.one", {"priority": 0}),
        ("a.one", {"priority": 6, "max_priority": 5}),
        ("a.one", {"max_priority": 11}),
        ("a.one", {"limits": Limits(soft_s=2, hard_s=1)}),
        ("a.one", {"limits": Limits(soft_s=0, hard_s=1)}),
    ],
)
def test_a_job_type_that_makes_no_sense_is_refused_and_named(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=kind):
        job_type(kind, **changes)


def test_the_route_is_the_kind_as_a_path() -> None:
    assert job_type("a.two_words").route == "a/two-words"


@pytest.mark.parametrize(("params", "subject"), [(Params, "none"), (Subject, "required"), (MaybeSubject, "optional")])
def test_whom_a_job_is_about_follows_from_its_params(params: type[Params], subject: str) -> None:
    assert job_type(params=params).subject == subject


def test_the_catalogue_of_the_service_loads() -> None:
    assert {"ari.aggregate_snapshots", "system.echo"} <= {job_type.kind for job_type in load_catalogue()}


def test_a_job_type_can_be_varied_and_is_checked_again() -> None:
    with pytest.raises(Misconfigured):
        replace(note, priority=11)
