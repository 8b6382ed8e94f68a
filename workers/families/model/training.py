"""Training in a child process: learn step by step, keep what was learned, judge on what was held out."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import Discard, JobNotFound
from app.jobs.model import EvaluationMetrics
from workers.families.model.backends import Backend, Learner
from workers.families.model.examples import Example
from workers.families.model.files import SEEN, read_arrays, write_arrays
from workers.families.model.scores import judge_metrics
from workers.process import Report

KEEP_EVERY_S = 1.0  # between two checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A version's file."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is to be learned, from what, and where it is kept."""

    user_id: str
    backend: Backend
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    learning_rate: float
    parent_id: str | None
    parent: ModelFile | None
    target: Path
    mark: str  # of the job, in the names of its unfinished files
    keep_every_s: float = KEEP_EVERY_S

    @property
    def unfinished(self) -> Path:
        """Where what was learned so far is kept."""
        return self.target.with_name(self.mark + self.target.suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it."""

    sha256: str
    steps: int
    stopped_early: bool
    metrics: EvaluationMetrics


def train(report: Report, training: Training) -> Trained:
    """Train to the end, from the last checkpoint on if there is one, and write the model's file.

    The same training gives the same file, also after an interruption.
    """
    learner, done, total = _begin(report, training)
    kept_at = time.monotonic()
    for step in learner.steps(training.examples, training.learning_rate, first=done):
        done, total = step.done, step.total
        report.progress(10 + 70 * done / total, f"step {done} of {total}: {step.message}", stage="training")
        if time.monotonic() - kept_at >= training.keep_every_s:
            part = write_arrays(training.unfinished, learner.arrays(), mark=training.mark)
            report.checkpoint({"parent": training.parent_id, "step": done, "total": total, "part": part})
            kept_at = time.monotonic()
    metrics = judge_all(report, learner, training.held_out, since=80, until=95)
    digest = write_arrays(training.target, {**learner.arrays(), SEEN: _seen(training)}, mark=training.mark)
    return Trained(sha256=digest, steps=done, stopped_early=done < total, metrics=metrics)


def judge_all(
    report: Report, learner: Learner, examples: tuple[Example, ...], *, since: float, until: float
) -> EvaluationMetrics:
    """Judge examples one by one, and how long each takes; progress goes from ``since`` to ``until`` percent."""
    judgements, seconds = [], []
    for number, example in enumerate(examples, 1):
        before = time.perf_counter()
        judgements.append(learner.judge(example))
        seconds.append(time.perf_counter() - before)
        percent = since + (until - since) * number / len(examples)
        report.progress(percent, f"judged {number} of {len(examples)} examples", stage="judging")
    return judge_metrics(judgements, seconds)


def _begin(report: Report, training: Training) -> tuple[Learner, int, int]:
    """Return the model as the last checkpoint has it, else as its parent left it, and the steps done and in all."""
    backend = training.backend
    match report.restored:
        case {"step": int(step), "total": int(total), "part": str(part)}:
            try:
                return backend.load(read_arrays(training.unfinished, part)), step, total
            except (JobNotFound, Discard):  # made on another machine, or of other examples
                report.progress(10, "the checkpoint's file is not here: training from the start", stage="training")
    parent = training.parent
    return backend.load(read_arrays(parent.path, parent.sha256) if parent else None), 0, 0


def _seen(training: Training) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    keys = np.array([example.key for example in training.examples], dtype=np.uint64)
    if training.parent is None:
        return np.unique(keys)
    return np.unique(np.concatenate([keys, read_arrays(training.parent.path, training.parent.sha256)[SEEN]]))
