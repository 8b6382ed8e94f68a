"""The model family: training, judging and benchmarking a user's own models. The contract; pure data.

A ``model_name`` is the name of a backend (the model before any training), or the id or name of a model
that is registered for the user; of a name, the latest version is meant. Any other is refused at submit.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt

from app.jobs.contract import LONG, Extra, Family, JobType, Reference, RetryPolicy, TaskType, Word
from app.jobs.fields import Identifier, Integer, Model, Moment, Number, Params, Result

LLM = Extra(name="llm", modules=("peft", "safetensors", "torch", "transformers"))

MODEL_NAME = Reference(
    field="model_name",
    what="model",
    records="models",
    by=("model_id", "name"),
    words=(
        Word(text="kneser-ney"),
        Word(text="sgd-classifier"),
        Word(text="gpt2-tiny", extra=LLM),
        Word(text="lora", extra=LLM, below="base_models_path"),
    ),
)

Samples = Annotated[Integer, Field(ge=1, le=10_000)]


# --- model.finetune ----------------------------------------------------------------------------


class FinetuneParams(Params):
    """Train a model on a user's own examples."""

    user_id: Identifier
    """Whose examples, and whose model it becomes."""
    model_name: Identifier
    """The backend to train from nothing, or the registered model to train on."""
    training_samples: Samples = 100
    """At most how many examples, the newest ones of quality ≥ .7; a tenth of them is held out."""
    learning_rate: Annotated[Number, Field(gt=0, le=1)] = 1e-4
    """The size of a step, for backends that take steps."""


class HeldOutMetrics(Model):
    """How a model does on examples that it never learned from."""

    loss: float
    """The mean negative log-likelihood of the truth, in nats; of each next token, or of each label."""
    accuracy: float
    """The share of next tokens, or of labels, that the model would have said, 0–1."""
    perplexity: float
    """exp(loss): among how many equally likely answers the model is undecided."""


class FinetuneResult(Result):
    """A new version of a model."""

    user_id: str
    """Whose model it is."""
    model_name: str
    """The backend or model that was asked for."""
    model_id: str
    """The id of the new version; the same training gives the same id."""
    name: str
    """What all versions of the model are called."""
    version: int
    """The number of the new version."""
    parent: str | None
    """The id of the version that training went on from; null after training from nothing."""
    kind: str
    """The backend."""
    path: str
    """The file of the new version, inside the directory for trained models."""
    sha256: str
    """The SHA-256 of the file."""
    training_samples: NonNegativeInt
    """How many examples it learned from."""
    held_out_samples: NonNegativeInt
    """How many examples were held out, and give the metrics."""
    steps: NonNegativeInt
    """After how many steps training ended."""
    stopped_early: bool
    """Whether it ended because validation got no better."""
    metrics: HeldOutMetrics
    """How the new version does on the held-out examples."""
    ignored_parameters: tuple[str, ...]
    """Parameters that the backend has no use for."""
    training_timestamp: Moment
    """When the job started."""


# --- model.evaluate ----------------------------------------------------------------------------


class EvaluateParams(Params):
    """Judge a model on examples that it never learned from."""

    user_id: Identifier
    """Whose examples and model."""
    model_name: Identifier
    """The backend or registered model to judge."""
    test_samples: Samples = 50
    """At most how many examples, the newest ones of quality ≥ .7 that the version never saw."""


class EvaluationStatus(StrEnum):
    """Whether there was anything to judge the model on."""

    EVALUATED = "evaluated"
    """There was at least one example that the version never saw."""
    INSUFFICIENT_DATA = "insufficient_data"
    """There was none, so nothing is said."""


class Latency(Model):
    """How long one example or task takes, in milliseconds."""

    median: float | None
    """Half of them take at most this long; null when there was none."""
    p95: float | None
    """95 % of them take at most this long; null when there was none."""


class EvaluationMetrics(Model):
    """How one model did; null where there was nothing to divide by."""

    loss: float | None
    """The mean negative log-likelihood of the truth, in nats."""
    perplexity: float | None
    """exp(loss)."""
    accuracy: float | None
    """The share of next tokens, or of labels, that the model would have said, 0–1."""
    precision: float | None
    """The mean over all answers the model gave of the share that was right, 0–1 (macro average)."""
    recall: float | None
    """The mean over all true answers of the share that was found, 0–1 (macro average)."""
    f1: float | None
    """The mean over all answers of the harmonic mean of precision and recall, 0–1 (macro average)."""
    latency_ms: Latency
    """How long judging one example takes."""


class Baseline(Model):
    """What the model is compared with, on the same examples in the same job."""

    model: str
    """The id of the parent version; the name of the backend, untrained, where there is none."""
    metrics: EvaluationMetrics
    """How it did."""


class EvaluateResult(Result):
    """How a model does on examples that it never saw."""

    user_id: str
    """Whose examples."""
    model_name: str
    """The backend or model that was asked for."""
    model_id: str | None
    """The id of the version that was judged; null for an untrained backend."""
    status: EvaluationStatus
    """Whether there was anything to judge it on."""
    test_samples: NonNegativeInt
    """How many examples it was judged on."""
    metrics: EvaluationMetrics
    """How it did."""
    baseline: Baseline
    """How its parent, or the untrained backend, did."""
    evaluation_timestamp: Moment
    """When the job started."""


# --- model.benchmark ---------------------------------------------------------------------------


class Scenario(StrEnum):
    """A fixed set of tasks."""

    REASONING = "reasoning"
    """What follows from what."""
    CODING = "coding"
    """How a line of code goes on."""
    WRITING = "writing"
    """Which sentence is well made."""
    ANALYSIS = "analysis"
    """What a short text says."""


def _different(scenarios: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
    if len(set(scenarios)) < len(scenarios):
        raise ValueError("each scenario is named once")
    return scenarios


class BenchmarkParams(Params):
    """Run fixed sets of tasks."""

    model_name: Identifier
    """The backend or registered model; of the user whom the job is about."""
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1), AfterValidator(_different)] = tuple(Scenario)
    """Which sets of tasks."""


class ScenarioResult(Model):
    """How the model did on one set of tasks."""

    tasks: NonNegativeInt
    """How many tasks the set has."""
    accuracy: float
    """The mean score of the tasks, 0–1; a choice among equals scores what a guess would."""
    latency_ms: Latency
    """How long one task takes."""
    tokens_per_second: float | None
    """How many tokens the model read a second; null where no time passed."""


class BenchmarkResult(Result):
    """How a model did on fixed sets of tasks."""

    model_name: str
    """The backend or model that was asked for."""
    model_id: str | None
    """The id of the version; null for an untrained backend."""
    scenarios: dict[Scenario, ScenarioResult]
    """Each set of tasks."""
    overall_accuracy: float
    """The mean of the accuracies."""
    benchmark_timestamp: Moment
    """When the job started."""


# --- the family --------------------------------------------------------------------------------


def _aliases(function: str) -> tuple[str, ...]:
    return (function, f"ai_pal.tasks.model_tasks.{function}", f"backend.app.tasks.{function}")


_QUEUE = "model_training"

finetune = JobType(
    kind="model.finetune",
    summary="Train a model on a user's own examples, and register the new version.",
    params=FinetuneParams,
    result=FinetuneResult,
    queue=_QUEUE,
    task_type=TaskType.MODEL_TRAINING,
    reference=MODEL_NAME,
    retry=RetryPolicy(max_retries=2, base_s=120.0),
    limits=LONG,
    aliases=_aliases("finetune_model"),
)
evaluate = JobType(
    kind="model.evaluate",
    summary="Judge a model on examples that it never saw, beside its parent on the same ones.",
    params=EvaluateParams,
    result=EvaluateResult,
    queue=_QUEUE,
    task_type=TaskType.MODEL_TRAINING,
    reference=MODEL_NAME,
    retry=RetryPolicy(max_retries=2, base_s=60.0),
    aliases=_aliases("evaluate_model"),
)
benchmark = JobType(
    kind="model.benchmark",
    summary="Run fixed sets of reasoning, coding, writing and analysis tasks on a model.",
    params=BenchmarkParams,
    result=BenchmarkResult,
    queue=_QUEUE,
    task_type=TaskType.MODEL_TRAINING,
    reference=MODEL_NAME,
    retry=RetryPolicy(max_retries=1, base_s=120.0),
    aliases=_aliases("benchmark_model"),
)

FAMILY = Family(
    name="model",
    summary="A user's own small models: trained, judged and benchmarked.",
    job_types=(finetune, evaluate, benchmark),
)
