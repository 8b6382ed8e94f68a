"""Figures of a model's answers: loss, accuracy, macro averages and latencies. Pure."""

from collections import Counter
from collections.abc import Sequence
from math import ceil, exp
from statistics import fmean, median

from app.jobs.model import EvaluationMetrics, Latency
from workers.families.model.backends import Judgement


def judge_metrics(judgements: Sequence[Judgement], seconds: Sequence[float]) -> EvaluationMetrics:
    """Sum up judgements, and the seconds that each took; all figures are null without any.

    Averages are over answers (tokens or labels), so that a long example counts for as much as it holds.
    """
    truth = [one for judgement in judgements for one in judgement.truth]
    answers = [one for judgement in judgements for one in judgement.answers]
    loss = sum(judgement.loss for judgement in judgements) / len(truth) if truth else None
    precision, recall, f1 = macro_averages(truth, answers)
    return EvaluationMetrics(
        loss=loss,
        perplexity=None if loss is None else exp(loss),
        accuracy=fmean(map(_equals, truth, answers)) if truth else None,
        precision=precision,
        recall=recall,
        f1=f1,
        latency_ms=latency(seconds),
    )


def macro_averages(
    truth: Sequence[str], answers: Sequence[str | None]
) -> tuple[float | None, float | None, float | None]:
    """Return macro precision, recall and F1: plain means over classes (Sokolova & Lapalme 2009, table 3).

    Precision is over the classes that were answered, recall over those that are true, and F1 over both
    together, where a class that is only one of them counts as 0.
    """
    hits = Counter(one for one, answer in zip(truth, answers, strict=True) if one == answer)
    given, wanted = Counter(answer for answer in answers if answer is not None), Counter(truth)
    precisions = [hits[one] / count for one, count in given.items()]
    recalls = [hits[one] / count for one, count in wanted.items()]
    f1s = [2 * hits[one] / (given[one] + wanted[one]) for one in sorted(given.keys() | wanted.keys())]
    return _mean(precisions), _mean(recalls), _mean(f1s)


def latency(seconds: Sequence[float]) -> Latency:
    """Return median and p95 (nearest rank) in milliseconds; null without any."""
    if not seconds:
        return Latency(median=None, p95=None)
    ordered = sorted(seconds)
    return Latency(median=1000 * median(ordered), p95=1000 * ordered[ceil(0.95 * len(ordered)) - 1])


def _equals(one: str, other: str | None) -> float:
    return float(one == other)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
