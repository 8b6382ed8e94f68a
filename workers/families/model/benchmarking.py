"""The work of ``model.benchmark``: fixed sets of tasks, each with the scorer that its answer asks for."""

import time
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from app.jobs import model
from app.jobs.fields import Model
from app.jobs.model import BenchmarkParams, BenchmarkResult, Scenario, ScenarioResult
from workers.context import Context
from workers.families import work
from workers.families.model.backends import Backend, Learner
from workers.families.model.files import read_arrays
from workers.families.model.registry import find
from workers.families.model.scores import latency
from workers.families.model.training import ModelFile
from workers.process import Report


class Choice(Model):
    """Which of some texts goes best with a prompt."""

    scorer: Literal["choice"]
    prompt: str
    choices: tuple[str, ...]
    answer: str

    def score(self, learner: Learner) -> float:
        """Return 1 if the right choice is the likeliest per token; an even share of it among equals.

        The comparison per token is ``acc_norm`` of the Language Model Evaluation Harness (Gao et al. 2021).
        """
        likelihoods = {choice: learner.score(self.prompt, choice) for choice in self.choices}
        best = [choice for choice, likelihood in likelihoods.items() if likelihood == max(likelihoods.values())]
        return 1 / len(best) if self.answer in best else 0.0

    def texts(self) -> list[str]:
        """Return all that the model reads."""
        return [f"{self.prompt} {choice}" for choice in self.choices]


class Cloze(Model):
    """Which word, or label, comes next."""

    scorer: Literal["cloze"]
    prompt: str
    answer: str

    def score(self, learner: Learner) -> float:
        """Return 1 if the model says the word, else 0."""
        return float((learner.answer(self.prompt) or "").casefold() == self.answer.casefold())

    def texts(self) -> list[str]:
        """Return all that the model reads."""
        return [self.prompt]


Task = Annotated[Choice | Cloze, Field(discriminator="scorer")]

_TASKS: TypeAdapter[tuple[Choice | Cloze, ...]] = TypeAdapter(tuple[Task, ...])


@work(model.benchmark)
async def benchmark(ctx: Context, params: BenchmarkParams) -> BenchmarkResult:
    """Run sets of tasks on a backend, or on a model of the user whom the job is about."""
    found = await find(ctx, ctx.user_id or "", params.model_name)
    results = await ctx.run_process(run_scenarios, found.backend, found.file, params.scenarios)
    await ctx.progress(100, f"{len(results)} scenarios", stage="done")
    return BenchmarkResult(
        model_name=params.model_name,
        model_id=found.model_id,
        scenarios=results,
        overall_accuracy=fmean(result.accuracy for result in results.values()),
        benchmark_timestamp=ctx.now,
    )


def read_tasks(scenario: Scenario) -> tuple[Choice | Cloze, ...]:
    """Return the tasks of a scenario, as they were committed with this package."""
    return _TASKS.validate_json(files(__package__).joinpath("scenarios", f"{scenario}.json").read_bytes())


def run_scenarios(
    report: Report, backend: Backend, file: ModelFile | None, scenarios: Sequence[Scenario]
) -> dict[Scenario, ScenarioResult]:
    """Run all tasks of some scenarios."""
    learner = backend.load(read_arrays(file.path, file.sha256) if file else None)
    results = {}
    for done, scenario in enumerate(scenarios, 1):
        results[scenario] = _run(learner, read_tasks(scenario))
        report.progress(5 + 90 * done / len(scenarios), f"{scenario}: {results[scenario].accuracy:.0%}", stage=scenario)
    return results


def _run(learner: Learner, tasks: Sequence[Choice | Cloze]) -> ScenarioResult:
    scores, seconds = [], []
    for task in tasks:
        before = time.perf_counter()
        scores.append(task.score(learner))
        seconds.append(time.perf_counter() - before)
    read = sum(len(text.split()) for task in tasks for text in task.texts())
    return ScenarioResult(
        tasks=len(tasks),
        accuracy=fmean(scores),
        latency_ms=latency(seconds),
        tokens_per_second=read / sum(seconds) if sum(seconds) > 0 else None,
    )
