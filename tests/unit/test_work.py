"""Where the work of a kind is found, and that every kind has it."""

import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeVar, cast

import pytest

from app.errors import Misconfigured
from app.jobs.catalogue import AnyJobType, load_catalogue
from tests.support.workplace import give_back, trial_type
from workers.families import find_work, work

F = TypeVar("F", bound=Callable[..., Any])
KIND = trial_type("job")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("workers.families.trial")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("job_type", load_catalogue().all, ids=lambda job_type: job_type.kind)
def test_every_kind_has_one_work(job_type: AnyJobType) -> None:
    assert find_work(job_type).__name__


def test_a_family_without_the_work_is_told_of(family: ModuleType) -> None:
    with pytest.raises(Misconfigured, match="No function in workers/families/trial is"):
        find_work(KIND)


def test_two_functions_for_one_kind_are_told_of(family: ModuleType) -> None:
    vars(family).update(one=work(KIND)(copy_of(give_back)), two=work(KIND)(copy_of(give_back)))

    with pytest.raises(Misconfigured, match="2 functions claim"):
        find_work(KIND)


def test_one_function_under_two_names_is_one(family: ModuleType) -> None:
    one = work(KIND)(copy_of(give_back))
    vars(family).update(one=one, again=one)

    assert find_work(KIND) is one


def copy_of(function: F) -> F:
    return cast(F, FunctionType(cast(FunctionType, function).__code__, globals()))
