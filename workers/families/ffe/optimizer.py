"""Finding a better order of work by OR-Tools CP-SAT, where the extra is installed. Pure; meant for a child process.

One model for whatever shares resources: tasks with durations and predecessors, resources with a capacity each
(the resource-constrained project scheduling problem, Pritsker et al. 1969), and, for a person, when work may be
done at all and how many tasks a day takes. A plan is the case of one resource, the person, of whom there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from workers.process import Report

DAY = 1_440  # minutes
_SEED = 1
_POLISH_SHARE = 0.3  # of the time, for putting vital tasks first once nothing ends earlier
_MOST = 0.5  # of the time until the job's soft limit, which the solver does not hear; the rest is for what follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something of which so much is there at any moment, and of which each task takes so much."""

    capacity: int
    demands: tuple[int, ...]  # by task


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When a person works, in minutes from a midnight, and how many more tasks each day takes."""

    stretches: tuple[tuple[int, int], ...]  # free time, each inside one day; a task lies whole in one of them
    rooms: tuple[int, ...]  # by day


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What is to be put in order. Tasks go by their place; ``horizon`` is when all must have ended."""

    durations: tuple[int, ...]
    needs: tuple[tuple[int, ...], ...]
    resources: tuple[Resource, ...]
    horizon: int
    calendar: Calendar | None = None
    hint: tuple[int, ...] | None = None  # starts that are known to do
    vital: frozenset[int] = field(default_factory=frozenset)


class Verdict(StrEnum):
    """How a search ended."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What a search found."""

    verdict: Verdict
    starts: tuple[int, ...] | None = None
    finish: int | None = None
    bound: int | None = None  # nothing can end earlier


def is_installed() -> bool:
    """Whether the extra ``optimizer`` is there. Imports nothing of it."""
    return find_spec("ortools") is not None


def solve(report: Report, project: Project, limit_s: float) -> Solution:
    """Search for the earliest end of all tasks for at most ``limit_s`` seconds, then put vital ones first.

    A job that has less than twice that left until its soft limit gets half of what is left.

    One thread, a fixed seed and a limit on deterministic time too: on a machine at rest the same project gives
    the same answer. Anytime: what was found when the time is up is returned, with the bound proven so far.
    """
    model = _Model(project)
    limit_s = min(limit_s, _MOST * report.time_left_s)
    report.progress(0, f"looking for a better order of {len(project.durations)} blocks")
    found = model.minimise(model.finish, limit_s * (1 - _POLISH_SHARE), hint=project.hint)
    if found.starts is None or found.finish is None or not project.vital:
        return found
    report.progress(100 * (1 - _POLISH_SHARE), f"an order that ends at {found.finish} min; now the vital blocks")
    polished = model.put_first(project.vital, found, limit_s * _POLISH_SHARE)
    return Solution(verdict=found.verdict, starts=polished or found.starts, finish=found.finish, bound=found.bound)


class _Model:
    """A project as CP-SAT sees it."""

    def __init__(self, project: Project) -> None:
        from ortools.sat.python import cp_model  # noqa: PLC0415  # an extra, and only in the child

        self._cp = cp_model
        self._project = project
        self._model: Any = cp_model.CpModel()
        self._starts = [self._start(at, minutes) for at, minutes in enumerate(project.durations)]
        self._intervals = [
            self._model.new_fixed_size_interval_var(start, minutes, f"task {at}")
            for at, (start, minutes) in enumerate(zip(self._starts, project.durations, strict=True))
        ]
        self.finish = self._model.new_int_var(0, project.horizon, "finish")
        for start, minutes, needs in zip(self._starts, project.durations, project.needs, strict=True):
            self._model.add(self.finish >= start + minutes)
            for need in needs:
                self._model.add(start >= self._starts[need] + project.durations[need])
        for resource in project.resources:
            self._share(resource)
        if project.calendar:
            self._fill_days(project.calendar)

    def minimise(self, goal: Any, limit_s: float, *, hint: Sequence[int] | None) -> Solution:
        """Solve for the least ``goal``."""
        self._model.minimize(goal)
        self._model.clear_hints()
        for start, known in zip(self._starts, hint or (), strict=False):
            self._model.add_hint(start, known)
        solver = self._cp.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = _SEED
        solver.parameters.max_time_in_seconds = limit_s
        solver.parameters.max_deterministic_time = limit_s
        status = solver.solve(self._model)
        verdict = Verdict(solver.status_name(status).lower())
        if verdict not in (Verdict.OPTIMAL, Verdict.FEASIBLE):
            return Solution(verdict=verdict)
        starts = tuple(int(solver.value(start)) for start in self._starts)
        ends = (start + minutes for start, minutes in zip(starts, self._project.durations, strict=True))
        bound = int(-(-solver.best_objective_bound // 1))
        return Solution(verdict=verdict, starts=starts, finish=max(ends, default=0), bound=bound)

    def put_first(self, chosen: frozenset[int], found: Solution, limit_s: float) -> tuple[int, ...] | None:
        """Return starts that end no later and have the chosen tasks earlier, if there is time to find some."""
        self._model.add(self.finish <= found.finish)
        early = sum(self._starts[at] for at in sorted(chosen))
        return self.minimise(early, limit_s, hint=found.starts).starts

    def _start(self, at: int, minutes: int) -> Any:
        calendar, horizon = self._project.calendar, self._project.horizon
        if calendar is None:
            return self._model.new_int_var(0, horizon - minutes, f"start {at}")
        fits = [
            [opens, min(closes, horizon) - minutes]
            for opens, closes in calendar.stretches
            if opens + minutes <= min(closes, horizon)
        ]
        return self._model.new_int_var_from_domain(self._cp.Domain.from_intervals(fits), f"start {at}")

    def _share(self, resource: Resource) -> None:
        takers = [(self._intervals[at], demand) for at, demand in enumerate(resource.demands) if demand]
        if resource.capacity == 1:
            self._model.add_no_overlap([interval for interval, _ in takers])
        else:
            self._model.add_cumulative(*map(list, zip(*takers, strict=True)), resource.capacity)

    def _fill_days(self, calendar: Calendar) -> None:
        """Let no day take more tasks than it has room for: a day is a moment that tasks pass together."""
        days: list[Any] = []
        for at, start in enumerate(self._starts):
            day = self._model.new_int_var(0, len(calendar.rooms) - 1, f"day {at}")
            minute = self._model.new_int_var(0, DAY - 1, f"minute {at}")
            self._model.add(start == DAY * day + minute)
            days.append(self._model.new_fixed_size_interval_var(day, 1, f"on day {at}"))
        most = max(calendar.rooms)
        full = [
            (self._model.new_fixed_size_interval_var(day, 1, f"day {day} is taken"), most - room)
            for day, room in enumerate(calendar.rooms)
            if room < most
        ]
        demands = [1] * len(days) + [taken for _, taken in full]
        self._model.add_cumulative([*days, *(interval for interval, _ in full)], demands, most)
