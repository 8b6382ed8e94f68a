"""The small parts of the model family: split, figures, files, tasks, the classifier, and training in steps."""

import os
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from app.errors import Discard, InsufficientData, JobNotFound
from app.jobs.model import BenchmarkParams, FinetuneParams, Scenario
from workers.families.model.backends import BACKENDS, Judgement
from workers.families.model.benchmarking import Choice, read_tasks, run_scenarios
from workers.families.model.examples import Example, fingerprint, split
from workers.families.model.files import SEEN, clear_unfinished, mark_of, read_arrays, write_arrays
from workers.families.model.scores import judge_metrics, macro_averages
from workers.families.model.sgd_classifier import EPOCHS
from workers.families.model.training import Training, train
from workers.process import Report

MARK = mark_of("the job")
EMBEDDED = ["kneser-ney", "sgd-classifier"]  # what the default install has the libraries for
GREETINGS = ["hello there", "good morning to you", "hi and welcome", "good evening", "hello again my friend"]
COMPLAINTS = ["this is broken", "it never works", "the screen is broken", "nothing works at all", "this is awful"]


class Killed(Exception):
    """What ends an attempt in the middle."""


class Notes:
    """A report that keeps what it is told, and may end the attempt at a checkpoint."""

    def __init__(self, restored: JsonValue = None, *, dies_at: int | None = None) -> None:
        self.restored = restored
        self.checkpoints: list[JsonValue] = []
        self.percents: list[float] = []
        self._dies_at = dies_at

    def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.percents.append(percent)

    def checkpoint(self, state: JsonValue) -> None:
        self.checkpoints.append(state)
        if len(self.checkpoints) == self._dies_at:
            raise Killed


def as_report(notes: Notes) -> Report:
    return cast(Report, notes)


def labelled(count: int = 60) -> list[Example]:
    return [
        Example(
            id=f"e{at}",
            prompt=(GREETINGS if at % 2 else COMPLAINTS)[at // 2 % 5],
            answer=f"answer {at % 7}",
            label="greeting" if at % 2 else "complaint",
        )
        for at in range(count)
    ]


def training(tmp_path: Path, backend: str, examples: list[Example] | None = None, **changes: Any) -> Training:
    learned, held_out = split(labelled() if examples is None else examples)
    plain = Training(
        user_id="ada",
        backend=BACKENDS[backend],
        examples=tuple(learned),
        held_out=tuple(held_out),
        learning_rate=0.5,
        parent_id=None,
        parent=None,
        target=tmp_path / f"{backend}.npz",
        mark=MARK,
        keep_every_s=60,
    )
    return replace(plain, **changes)


# --- split and fingerprint ---------------------------------------------------------------------


@given(st.sets(st.text(min_size=1), min_size=10, max_size=60))
def test_a_tenth_is_held_out_whatever_the_order(ids: set[str]) -> None:
    examples = [Example(id=one, prompt="", answer="", label=None) for one in sorted(ids)]

    learned, held_out = split(examples)

    assert len(held_out) == max(1, round(len(ids) / 10))
    assert {one.id for one in learned} | {one.id for one in held_out} == ids
    assert split(examples[::-1]) == (learned, held_out)


def test_another_text_gives_another_fingerprint() -> None:
    examples = labelled(3)

    same, other = fingerprint("a", examples=examples), fingerprint("a", examples=[replace(examples[0], answer="no")])

    assert same == fingerprint("a", examples=labelled(3))
    assert len({same, other, fingerprint("b", examples=examples)}) == 3


# --- figures -----------------------------------------------------------------------------------


def test_macro_averages_are_those_by_hand() -> None:
    """a: 2 of 3 answers right, both found; b: nothing right; c: never answered."""
    precision, recall, f1 = macro_averages(["a", "a", "b", "c"], ["a", "a", "a", "b"])

    assert precision == pytest.approx((2 / 3 + 0) / 2)
    assert recall == pytest.approx((1 + 0 + 0) / 3)
    assert f1 == pytest.approx((0.8 + 0 + 0) / 3)


def test_without_anything_judged_every_figure_is_null() -> None:
    figures = judge_metrics([], []).model_dump()

    assert set(figures.pop("latency_ms").values()) == {None}
    assert set(figures.values()) == {None}


def test_perplexity_is_the_exponential_of_the_mean_loss() -> None:
    halves = Judgement(loss=2 * log(2), truth=("a", "b"), answers=("a", None))

    figures = judge_metrics([halves], [0.002])

    assert (figures.loss, figures.perplexity) == (pytest.approx(log(2)), pytest.approx(2))
    assert (figures.accuracy, figures.latency_ms.p95) == (0.5, pytest.approx(2))


# --- files -------------------------------------------------------------------------------------


def test_a_file_is_read_only_with_its_hash_and_the_same_arrays_give_the_same_one(tmp_path: Path) -> None:
    arrays = {"b": np.arange(3), "a": np.ones(2)}
    digest = write_arrays(tmp_path / "deep" / "m.npz", arrays, mark=MARK)

    assert write_arrays(tmp_path / "n.npz", dict(reversed(arrays.items())), mark=MARK) == digest
    assert read_arrays(tmp_path / "n.npz", digest)["b"].tolist() == [0, 1, 2]
    with pytest.raises(Discard, match="SHA-256 differs"):
        read_arrays(tmp_path / "n.npz", "0" * 64)
    with pytest.raises(JobNotFound):
        read_arrays(tmp_path / "none.npz", digest)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["m.npz", "n.npz"]


def test_unfinished_files_of_a_job_go_but_the_one_to_go_on_from_and_those_of_others(tmp_path: Path) -> None:
    others, old = mark_of("another job"), mark_of("a job of last year")
    for name in (f"{MARK}.npz", f"{MARK}.0123", f"{others}.npz", f"{old}.4567", "model.npz"):
        (tmp_path / name).touch()
    os.utime(tmp_path / f"{old}.4567", (0, 0))
    os.utime(tmp_path / "model.npz", (0, 0))

    clear_unfinished(tmp_path, MARK, spared=tmp_path / f"{MARK}.npz")

    assert {path.name for path in tmp_path.iterdir()} == {f"{MARK}.npz", f"{others}.npz", "model.npz"}
    clear_unfinished(tmp_path / "nowhere", MARK)


def test_the_id_of_a_job_leads_no_file_elsewhere() -> None:
    assert mark_of("../../etc/x").replace(".part", "").isalnum()


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", EMBEDDED)
def test_training_goes_on_from_a_checkpoint_to_the_same_file(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.kneser_ney.CHUNK", 10)
    monkeypatch.setattr("workers.families.model.sgd_classifier.EPOCHS", 6)
    whole = train(as_report(Notes()), training(tmp_path / "whole", backend, keep_every_s=0))
    interrupted = Notes(dies_at=3)
    with pytest.raises(Killed):
        train(as_report(interrupted), training(tmp_path / "parts", backend, keep_every_s=0))

    resumed = Notes(interrupted.checkpoints[-1])
    again = train(as_report(resumed), training(tmp_path / "parts", backend, keep_every_s=0))

    assert (again.sha256, again.steps, again.stopped_early) == (whole.sha256, whole.steps, whole.stopped_early)
    assert len(resumed.checkpoints) == whole.steps - 3
    assert resumed.percents == sorted(resumed.percents)


def test_a_checkpoint_whose_file_is_elsewhere_is_not_gone_on_from(tmp_path: Path) -> None:
    state: JsonValue = {"step": 1, "total": 2, "part": "0" * 64}

    found = train(as_report(Notes(state)), training(tmp_path / "a", "kneser-ney"))

    assert found.sha256 == train(as_report(Notes()), training(tmp_path / "b", "kneser-ney")).sha256


def test_the_classifier_learns_to_tell_labels_apart_and_stops_when_it_gets_no_better(tmp_path: Path) -> None:
    found = train(as_report(Notes()), training(tmp_path, "sgd-classifier"))
    slow = train(as_report(Notes()), training(tmp_path, "sgd-classifier", learning_rate=1e-4))

    assert found.metrics.accuracy == 1
    assert found.metrics.loss is not None
    assert slow.metrics.loss is not None
    assert found.metrics.loss < slow.metrics.loss < log(2)
    assert slow.steps == EPOCHS


def test_a_classifier_of_one_label_is_refused(tmp_path: Path) -> None:
    examples = [replace(one, label="same") for one in labelled()]

    with pytest.raises(InsufficientData, match="two labels"):
        train(as_report(Notes()), training(tmp_path, "sgd-classifier", examples))


def test_a_label_that_was_never_learned_is_wrong_and_not_infinitely_so(tmp_path: Path) -> None:
    found = train(as_report(Notes()), training(tmp_path, "sgd-classifier"))
    learner = BACKENDS["sgd-classifier"].load(read_arrays(tmp_path / "sgd-classifier.npz", found.sha256))

    judgement = learner.judge(Example(id="x", prompt="hello", answer="", label="unheard-of"))

    assert judgement.loss == pytest.approx(-log(1e-15))
    assert judgement.answers == ("greeting",)


def test_a_model_remembers_what_it_learned_from_and_not_what_was_held_out(tmp_path: Path) -> None:
    task = training(tmp_path, "kneser-ney")
    found = train(as_report(Notes()), task)

    seen = set(read_arrays(task.target, found.sha256)[SEEN].tolist())

    assert seen == {example.key for example in task.examples}


# --- tasks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", Scenario)
def test_every_task_can_be_solved(scenario: Scenario) -> None:
    tasks = read_tasks(scenario)

    assert len(tasks) == len({task.prompt for task in tasks}) == 12
    for task in tasks:
        if isinstance(task, Choice):
            assert task.choices.count(task.answer) == 1
            assert len(set(task.choices)) == len(task.choices)


@pytest.mark.parametrize("backend", EMBEDDED)
def test_an_untrained_model_scores_what_a_guess_would(backend: str) -> None:
    found = run_scenarios(as_report(Notes()), BACKENDS[backend], None, tuple(Scenario))

    for scenario, result in found.items():
        chances = [1 / len(task.choices) if isinstance(task, Choice) else 0 for task in read_tasks(scenario)]
        assert result.accuracy == pytest.approx(sum(chances) / len(chances))


@pytest.mark.parametrize("scenarios", [["juggling"], [], ["coding", "coding"]])
def test_a_scenario_that_is_unknown_or_named_twice_is_refused(scenarios: list[str]) -> None:
    with pytest.raises(ValidationError):
        BenchmarkParams.model_validate({"model_name": "kneser-ney", "scenarios": scenarios})


@pytest.mark.parametrize("wrong", [{"training_samples": 0}, {"training_samples": 10_001}, {"learning_rate": 0}])
def test_parameters_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FinetuneParams.model_validate({"user_id": "ada", "model_name": "kneser-ney"} | wrong)
