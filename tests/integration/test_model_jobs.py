"""The model jobs on stored examples, where rows matter on both databases, and once through a real worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from pydantic import JsonValue

from app.database import Database
from app.errors import Discard, InsufficientData, JobNotFound, ProcessDied
from app.installation import Installation, open_installation
from app.jobs.model import (
    BenchmarkParams,
    EvaluateParams,
    EvaluateResult,
    EvaluationStatus,
    FinetuneParams,
    FinetuneResult,
    Scenario,
)
from app.jobs.model import (
    finetune as finetune_type,
)
from app.jobs.status import Status
from app.orders import Order
from app.records.models import MODELS, find_model
from app.records.store import Records
from app.records.training_examples import TRAINING_EXAMPLES, TrainingExample, read_good_examples
from app.settings import Settings
from tests.support.workplace import at_work, becomes, make_worker
from workers.context import Context
from workers.families.model import benchmark, evaluate, finetune
from workers.families.model.files import mark_of
from workers.process import Report

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
T = TypeVar("T")


@dataclass
class Place:
    """As much of an installation as the family looks at."""

    settings: Settings


@dataclass
class Run:
    """What a job is given, for one attempt without a worker or child process around it."""

    records: Records
    installation: Place
    now: datetime = NOW
    job_id: str = "the-job"
    user_id: str | None = "ada"
    restored: JsonValue = None
    reports: list[float] = field(default_factory=list)

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.reports.append(percent)

    async def checkpoint(self, state: JsonValue) -> None:
        self.restored = state

    async def run_thread(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        return await asyncio.to_thread(function, *args, **options)

    async def run_process(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, cast(Report, Silent(self.restored)), *args)

    @property
    def models(self) -> Path:
        return self.installation.settings.models_path


@dataclass
class Silent:
    """A report to nobody."""

    restored: JsonValue

    def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        pass

    def checkpoint(self, state: JsonValue) -> None:
        pass


@pytest.fixture
def run(database: Database, settings: Settings) -> Run:
    return Run(records=Records(database), installation=Place(settings))


def context(run: Run) -> Context:
    return cast(Context, run)


NOUNS, VERBS = ("cat", "dog", "bird", "child", "teacher"), ("sees", "likes", "follows")


def example(number: int, **changes: Any) -> TrainingExample:
    facts: dict[str, Any] = {
        "example_id": f"e{number:05}",
        "user_id": "ada",
        "timestamp": NOW - timedelta(minutes=number),
        "input_text": f"what does the {NOUNS[number % 5]} do",
        "output_text": f"the {NOUNS[number % 5]} {VERBS[number % 3]} the {NOUNS[number * 7 % 5]} .",
        "quality": 0.9,
        "label": "tame" if number % 5 < 2 else "wild",
    }
    return TrainingExample(**facts | changes)


async def store(run: Run, count: int, *, since: int = 0, **changes: Any) -> None:
    await run.records.upsert(TRAINING_EXAMPLES, [example(at, **changes) for at in range(since, since + count)])


async def tune(run: Run, name: str = "kneser-ney", **params: Any) -> FinetuneResult:
    return await finetune(context(run), FinetuneParams(user_id="ada", model_name=name, **params))


async def judge(run: Run, name: str, **params: Any) -> EvaluateResult:
    return await evaluate(context(run), EvaluateParams(user_id="ada", model_name=name, **params))


# --- model.finetune ----------------------------------------------------------------------------


async def test_good_examples_come_newest_first_and_only_the_users_own(run: Run, database: Database) -> None:
    await store(run, 7)
    await store(run, 1, since=7, quality=0.69)
    await store(run, 1, since=8, user_id="bob")
    await store(run, 1, since=9, label=None)

    pages = [page async for page in read_good_examples(database, "ada", labelled=True, batch=3)]

    assert [[one.example_id[-1] for one in page] for page in pages] == [list("012"), list("345"), ["6"]]


@pytest.mark.parametrize("backend", ["kneser-ney", "sgd-classifier"])
async def test_a_tuned_model_is_registered_with_a_file_that_exists(run: Run, backend: str) -> None:
    await store(run, 40)

    result = await tune(run, backend, learning_rate=0.5)

    version = await run.records.get(MODELS, result.model_id, user_id="ada")
    assert version is not None
    assert (version.name, version.version, version.kind, version.parent) == (f"{backend}-tuned", 1, backend, None)
    assert (version.path, version.sha256) == (result.path, result.sha256)
    assert sha256((run.models / version.path).read_bytes()).hexdigest() == version.sha256
    assert version.metrics == result.metrics.model_dump()
    assert (version.data_from, version.data_until) == (NOW - timedelta(minutes=39), NOW)
    assert (result.training_samples, result.held_out_samples) == (36, 4)
    assert [path.name for path in run.models.iterdir()] == [result.path]


@pytest.mark.databases("sqlite")
async def test_a_backend_names_the_parameters_it_has_no_use_for(run: Run) -> None:
    await store(run, 20)

    assert (await tune(run, "kneser-ney")).ignored_parameters == ("learning_rate",)
    assert (await tune(run, "sgd-classifier", learning_rate=0.5)).ignored_parameters == ()


@pytest.mark.databases("sqlite")
async def test_a_parameter_changes_the_model_if_and_only_if_the_backend_uses_it(run: Run) -> None:
    await store(run, 20)

    counted = [(await tune(run, "kneser-ney", learning_rate=rate)).model_id for rate in (0.1, 0.5)]
    stepped = [(await tune(run, "sgd-classifier", learning_rate=rate)).sha256 for rate in (0.1, 0.5)]

    assert len(set(counted)) == 1
    assert len(set(stepped)) == 2


@pytest.mark.databases("sqlite")
async def test_more_samples_lower_the_perplexity_and_other_texts_change_the_model(run: Run) -> None:
    await store(run, 200)

    few, many = await tune(run, training_samples=20), await tune(run, training_samples=200)
    await store(run, 1, output_text="something else")
    changed = await tune(run, training_samples=20)

    assert many.metrics.perplexity < few.metrics.perplexity
    assert many.metrics.loss < few.metrics.loss
    assert len({few.model_id, many.model_id, changed.model_id}) == 3
    assert changed.version == 3


async def test_the_same_training_again_is_the_same_version(run: Run) -> None:
    await store(run, 30)

    first, again = await tune(run), await tune(run)

    assert first == again
    assert await run.records.count(MODELS) == 1


@pytest.mark.parametrize(("count", "backend"), [(0, "kneser-ney"), (9, "kneser-ney"), (9, "sgd-classifier")])
async def test_too_few_examples_are_insufficient_data_and_leave_nothing(run: Run, count: int, backend: str) -> None:
    await store(run, count)
    await store(run, 30, since=100, quality=0.5)
    await store(run, 30, since=200, user_id="bob")

    with pytest.raises(InsufficientData, match=f"{count} examples"):
        await tune(run, backend)

    assert await run.records.count(MODELS) == 0
    assert not run.models.exists()


async def test_a_model_that_is_neither_a_backend_nor_the_users_is_not_found(run: Run) -> None:
    await store(run, 30)
    tuned = await tune(run)

    with pytest.raises(JobNotFound, match="'gpt-9' is no model of 'ada'"):
        await tune(run, "gpt-9")
    with pytest.raises(JobNotFound):
        await evaluate(context(run), EvaluateParams(user_id="bob", model_name=tuned.model_id))


async def test_tuning_a_registered_model_goes_on_from_it_with_examples_it_has_not_seen(run: Run) -> None:
    await store(run, 60, since=100)
    first = await tune(run, training_samples=60)
    await store(run, 60)

    second = await tune(run, first.name, training_samples=60)

    assert (second.version, second.parent, second.name) == (2, first.model_id, first.name)
    latest = await find_model(run.records.database, "ada", first.name)
    assert latest is not None
    assert latest.model_id == second.model_id
    judged = await judge(run, second.model_id)
    assert judged.baseline.model == first.model_id


async def test_a_retry_does_not_go_on_from_the_version_that_it_registered_itself(run: Run) -> None:
    await store(run, 60, since=100)
    first = await tune(run, training_samples=60)
    await store(run, 60)
    second = await tune(run, first.name)

    again = await tune(run, first.name)  # with the checkpoint that the first try left

    assert again == second
    assert await run.records.count(MODELS) == 2


@pytest.mark.databases("sqlite")
async def test_a_classifier_learns_labels_that_its_parent_did_not_know(run: Run) -> None:
    await store(run, 60, since=100)
    first = await tune(run, "sgd-classifier", learning_rate=0.5)
    await store(run, 30)
    await store(run, 30, since=30, input_text="how deep is the sea", label="water")

    second = await tune(run, first.model_id, learning_rate=0.5)

    assert second.parent == first.model_id
    assert second.metrics.accuracy == 1


async def test_what_an_earlier_attempt_left_unfinished_is_gone_before_the_next_one_trains(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(run, 20)
    mark = mark_of(run.job_id)
    run.models.mkdir(parents=True)
    for name in (f"{mark}.npz", f"{mark}.0123456789abcdef"):
        (run.models / name).touch()
    run.restored = {"step": 1, "total": 2, "part": "0" * 64}
    found: list[str] = []

    async def die(*_: Any) -> None:
        found.extend(path.name for path in run.models.iterdir())
        raise ProcessDied

    monkeypatch.setattr(run, "run_process", die)
    with pytest.raises(ProcessDied):
        await tune(run)

    assert found == [f"{mark}.npz"]


# --- model.evaluate ----------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("backend", ["kneser-ney", "sgd-classifier"])
async def test_a_tuned_model_beats_the_untrained_one_on_examples_it_never_saw(run: Run, backend: str) -> None:
    await store(run, 80)
    tuned = await tune(run, backend, training_samples=60, learning_rate=0.5)

    result = await judge(run, tuned.name)

    assert (result.status, result.model_id) == (EvaluationStatus.EVALUATED, tuned.model_id)
    assert result.test_samples == 80 - tuned.training_samples
    assert result.baseline.model == backend
    better, worse = result.metrics, result.baseline.metrics
    assert None not in (better.loss, worse.loss, better.accuracy, worse.accuracy, better.latency_ms.median)
    assert (better.loss or 0) < (worse.loss or 0)
    assert (better.accuracy or 0) > (worse.accuracy or 0)


async def test_a_model_and_its_baseline_are_judged_on_the_same_examples(run: Run) -> None:
    await store(run, 30)

    result = await judge(run, "kneser-ney")

    figures, its = result.metrics, result.baseline.metrics
    assert result.baseline.model == "kneser-ney"
    assert (figures.loss, figures.accuracy, figures.f1) == (its.loss, its.accuracy, its.f1)
    assert result.metrics.loss is not None


async def test_a_model_that_has_seen_everything_has_nothing_to_be_judged_on(run: Run) -> None:
    await store(run, 20)
    tuned = await tune(run)
    held_out = await judge(run, tuned.name)
    await run.records.delete_user(TRAINING_EXAMPLES, "ada")

    result = await judge(run, tuned.name)

    assert held_out.test_samples == tuned.held_out_samples == 2
    assert (result.status, result.test_samples) == (EvaluationStatus.INSUFFICIENT_DATA, 0)
    for figures in (result.metrics, result.baseline.metrics):
        assert set(figures.model_dump(exclude={"latency_ms"}).values()) == {None}
        assert set(figures.latency_ms.model_dump().values()) == {None}


async def test_a_file_that_is_gone_or_changed_or_elsewhere_is_not_loaded(run: Run) -> None:
    await store(run, 20)
    tuned = await tune(run)
    version = await run.records.get(MODELS, tuned.model_id)
    assert version is not None
    await run.records.upsert(MODELS, [version.model_copy(update={"model_id": "x", "path": "../jobs.db"})])
    (run.models / tuned.path).write_bytes(b"something else")

    with pytest.raises(Discard, match="SHA-256 differs"):
        await judge(run, tuned.model_id)
    with pytest.raises(Discard, match="outside the directory"):
        await judge(run, "x")
    (run.models / tuned.path).unlink()
    with pytest.raises(JobNotFound, match="is gone"):
        await judge(run, tuned.model_id)


# --- model.benchmark ---------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_a_model_that_learned_the_answers_scores_better_than_an_untrained_one(run: Run) -> None:
    await store(run, 40, input_text="Once upon a", output_text="time in the middle of the night neither has arrived .")
    tuned = await tune(run)

    untrained = await benchmark(context(run), BenchmarkParams(model_name="kneser-ney"))
    trained = await benchmark(context(run), BenchmarkParams(model_name=tuned.name))

    writing = Scenario.WRITING
    assert trained.scenarios[writing].accuracy > untrained.scenarios[writing].accuracy
    assert trained.model_id == tuned.model_id
    assert set(trained.scenarios) == set(Scenario)
    mean = sum(one.accuracy for one in trained.scenarios.values()) / len(Scenario)
    assert trained.overall_accuracy == pytest.approx(mean)


# --- through a worker --------------------------------------------------------------------------


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings) as installation:
        yield installation


async def test_a_worker_trains_in_a_child_process(house: Installation) -> None:
    await house.records.upsert(TRAINING_EXAMPLES, [example(at) for at in range(500)])
    params = FinetuneParams(user_id="ada", model_name="kneser-ney", training_samples=500)
    missing = params.model_copy(update={"user_id": "nobody"})
    works = {finetune_type.kind: finetune}
    orders = [Order(job_type=finetune_type, params=one, owner="ada", user_id=one.user_id) for one in (params, missing)]
    good, bad = await house.lifecycle.submit(orders)

    async with at_work(make_worker(house, cast(Any, works), queues=(finetune_type.queue,))):
        job = await becomes(house, good.id, Status.COMPLETED, within=30)
        failed = await becomes(house, bad.id, Status.FAILED, within=30)

    result = FinetuneResult.model_validate(job.result)
    assert result.training_samples == 450
    assert (house.settings.models_path / result.path).exists()
    assert await house.records.get(MODELS, result.model_id) is not None
    assert job.stage == "done"
    assert await house.reader.checkpoint(job.id) is None
    assert failed.error is not None
    assert (failed.error.code, failed.attempts) == ("insufficient_data", 1)
