"""The work of ``model.evaluate``: a version and its baseline, judged in a child process on the same examples."""

from dataclasses import dataclass

from app.jobs import model
from app.jobs.model import Baseline, EvaluateParams, EvaluateResult, EvaluationMetrics, EvaluationStatus
from workers.context import Context
from workers.families import work
from workers.families.model.backends import Backend
from workers.families.model.examples import Example
from workers.families.model.files import read_arrays
from workers.families.model.registry import find, find_parent, read_unseen
from workers.families.model.training import ModelFile, judge_all
from workers.process import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Two models of one backend, and what they are judged on; a model without a file is untrained."""

    backend: Backend
    file: ModelFile | None
    baseline: ModelFile | None
    examples: tuple[Example, ...]


@work(model.evaluate)
async def evaluate(ctx: Context, params: EvaluateParams) -> EvaluateResult:
    """Judge a version on the user's newest good examples that it never learned from."""
    found = await find(ctx, params.user_id, params.model_name)
    baseline = await find_parent(ctx, found)
    unseen = await read_unseen(ctx, found, params.user_id, params.test_samples)
    examples = tuple(example for example, _ in unseen)
    contest = Contest(backend=found.backend, file=found.file, baseline=baseline.file, examples=examples)
    metrics, its_metrics = await ctx.run_process(judge_both, contest)
    await ctx.progress(100, f"judged on {len(examples)} examples", stage="done")
    return EvaluateResult(
        user_id=params.user_id,
        model_name=params.model_name,
        model_id=found.model_id,
        status=EvaluationStatus.EVALUATED if examples else EvaluationStatus.INSUFFICIENT_DATA,
        test_samples=len(examples),
        metrics=metrics,
        baseline=Baseline(model=baseline.model_id or baseline.backend.name, metrics=its_metrics),
        evaluation_timestamp=ctx.now,
    )


def judge_both(report: Report, contest: Contest) -> tuple[EvaluationMetrics, EvaluationMetrics]:
    """Return the figures of the model and of its baseline."""
    figures = []
    for place, file in enumerate((contest.file, contest.baseline)):
        learner = contest.backend.load(read_arrays(file.path, file.sha256) if file else None)
        since = 10 + 45 * place
        figures.append(judge_all(report, learner, contest.examples, since=since, until=since + 45))
    model_figures, baseline_figures = figures
    return model_figures, baseline_figures
