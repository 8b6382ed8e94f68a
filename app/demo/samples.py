"""The sample workspace: ARI snapshots of invented users, made by a model whose truth is written down here.

Everything is called sample data wherever it shows, and the same seed and last day give the same snapshots.
Each metric of a user is a known level (:meth:`Scenario.level`) plus noise: a day is off by a first-order
autoregressive process, since bad days come in runs, and each snapshot by an error of its own. Values are
clamped to the metric's range.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from app.jobs.ari import Metric
from app.records.ari_snapshots import AriSnapshot
from app.records.record import Record

DAYS = 60

# Where the metrics stand before anything happens to them.
LEVELS: dict[Metric, float] = {
    Metric.DECISION_QUALITY: 0.74,
    Metric.SKILL_DEVELOPMENT: 0.30,
    Metric.AI_RELIANCE: 0.40,
    Metric.BOTTLENECK_RESOLUTION: 0.66,
    Metric.USER_CONFIDENCE: 0.62,
    Metric.ENGAGEMENT: 0.70,
    Metric.AUTONOMY_PERCEPTION: 0.68,
    Metric.AUTONOMY_RETENTION: 0.72,
    Metric.DELTA_AGENCY: 0.25,
}
SIGNED = frozenset({Metric.SKILL_DEVELOPMENT, Metric.DELTA_AGENCY})  # −1–1; the others are 0–1

DAILY_NOISE = 0.015  # standard deviation of a day's error
PERSISTENCE = 0.3  # share of a day's error that is left on the next day
SNAPSHOT_NOISE = 0.008  # standard deviation of a snapshot's own error

_SNAPSHOTS_A_DAY = (1, 2, 1, 3)  # in turns: the ids of a user's snapshots do not depend on the seed
_FIRST_HOUR, _HOURS_APART = 9, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one metric, days counted from 0."""

    metric: Metric
    per_day: float = 0.0  # drift, from the first day on
    step: float = 0.0  # jump, once
    at: int = 0  # the first day after the jump

    def __str__(self) -> str:
        if self.step:
            return f"{self.step:+.2f} at once on day {self.at + 1}"
        return f"{self.per_day:+.4f} a day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One sample user and all that is true of them."""

    user_id: str
    story: str
    changes: tuple[Change, ...] = ()
    snapshots: int | None = None  # only the last so many; None is all

    def level(self, metric: Metric, day: int) -> float:
        """Return the true value of a metric on a day, 0–59: what the noise is added to."""
        happened = (change for change in self.changes if change.metric is metric)
        return LEVELS[metric] + sum(
            change.per_day * day + (change.step if day >= change.at else 0.0) for change in happened
        )


SCENARIOS = (
    Scenario(user_id="sample-ada", story="steady: nothing changes"),
    Scenario(
        user_id="sample-ben",
        story="decides a little worse every day",
        changes=(Change(metric=Metric.DECISION_QUALITY, per_day=-0.004),),
    ),
    Scenario(
        user_id="sample-cho",
        story="stops learning overnight",
        changes=(Change(metric=Metric.SKILL_DEVELOPMENT, step=-0.30, at=35),),
    ),
    Scenario(
        user_id="sample-dev",
        story="leans more and more on the AI",
        changes=(Change(metric=Metric.AI_RELIANCE, per_day=0.006),),
    ),
    Scenario(
        user_id="sample-eve",
        story="gets better at it",
        changes=(
            Change(metric=Metric.SKILL_DEVELOPMENT, per_day=0.004),
            Change(metric=Metric.USER_CONFIDENCE, per_day=0.003),
        ),
    ),
    Scenario(user_id="sample-fin", story="has only just begun: one snapshot", snapshots=1),
)


def sample_snapshots(*, seed: int, last_day: date) -> Iterator[AriSnapshot]:
    """Yield the snapshots of all sample users over the 60 days up to ``last_day``, user by user, oldest first.

    Ids name the user, the day's number and the snapshot of the day, so that storing a workspace again, with
    whatever seed or last day, replaces it.
    """
    for scenario in SCENARIOS:
        made = list(_snapshots_of(scenario, seed, last_day))
        yield from made[-scenario.snapshots :] if scenario.snapshots else made


def to_ndjson(records: Iterable[Record]) -> bytes:
    """Write records as the records route and the import command take them, one to a line."""
    return b"".join(record.model_dump_json(exclude_none=True).encode() + b"\n" for record in records)


def _snapshots_of(scenario: Scenario, seed: int, last_day: date) -> Iterator[AriSnapshot]:
    chance = random.Random(f"{seed} {scenario.user_id}")  # noqa: S311  # sample data, and repeatable
    errors = {metric: _daily_errors(chance) for metric in Metric}
    first_day = last_day - timedelta(days=DAYS - 1)
    for day in range(DAYS):
        for nth in range(_SNAPSHOTS_A_DAY[day % len(_SNAPSHOTS_A_DAY)]):
            scores = {
                metric.value: _clamp(metric, scenario.level(metric, day) + error[day] + chance.gauss(0, SNAPSHOT_NOISE))
                for metric, error in errors.items()
            }
            facts = {
                "snapshot_id": f"{scenario.user_id}-{day:02}-{nth}",
                "user_id": scenario.user_id,
                "timestamp": _moment(first_day + timedelta(days=day), nth),
                "metadata": {"source": "sample data", "scenario": scenario.story},
            }
            yield AriSnapshot.model_validate(facts | scores)


def _daily_errors(chance: random.Random) -> list[float]:
    """Draw one error a day, each leaning on the one before and all of the same variance."""
    errors = [chance.gauss(0, DAILY_NOISE)]
    fresh = DAILY_NOISE * math.sqrt(1 - PERSISTENCE**2)
    while len(errors) < DAYS:
        errors.append(PERSISTENCE * errors[-1] + chance.gauss(0, fresh))
    return errors


def _clamp(metric: Metric, value: float) -> float:
    return round(min(1.0, max(-1.0 if metric in SIGNED else 0.0, value)), 4)


def _moment(day: date, nth: int) -> datetime:
    return datetime(day.year, day.month, day.day, _FIRST_HOUR + _HOURS_APART * nth, tzinfo=UTC)
