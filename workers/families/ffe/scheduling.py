"""Blocks get their times: by the rule of thumb's order first, by a better one where the optimizer finds it.

The optimizer proposes an order and no times: those are given by the agenda alone, one block after the other. For
an order of one person's blocks that is the earliest there is, so it ends no later than the optimizer's own times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from app.errors import MemoryExceeded, ProcessDied, SoftTimeLimitExceeded
from app.jobs.ffe_planning import ScheduleSearch, SearchVerdict
from workers.context import Context
from workers.families.ffe import optimizer
from workers.families.ffe.agenda import LONGEST_WINDOW, Agenda, Stretch
from workers.families.ffe.optimizer import Calendar, Project, Resource, Solution, solve
from workers.families.ffe.plan import Plan

MAX_DAYS = 400  # that a search looks at

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the open blocks begin, by id, but for those that do not fit before the deadline."""

    starts: Mapping[str, datetime]
    search: ScheduleSearch
    p80_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Within what blocks are placed."""

    agenda: Agenda
    since: datetime
    deadline: datetime | None

    def place(self, order: Sequence[str], minutes: Mapping[str, int]) -> dict[str, datetime]:
        """Return when the blocks begin in this order, up to the first that has no place."""
        starts = self.agenda.place([minutes[key] for key in order], self.since, self.deadline)
        return dict(zip(order, starts, strict=False))


async def schedule(ctx: Context, plan: Plan, frame: Frame, *, p80_minutes: float) -> Schedule:
    """Place the open blocks of a plan; no order that the optimizer found ends later than the rule of thumb's."""
    minutes = plan.sequence
    order = list(minutes)
    starts = frame.place(order, minutes)
    solution, reason = await _search(ctx, plan, frame, starts)
    is_improved = False
    if solution is not None and solution.starts is not None:
        times = dict(zip(minutes, solution.starts, strict=True))
        better = sorted(minutes, key=lambda key: times[key])
        proposed = frame.place(better, minutes)
        is_improved = _ends(proposed, minutes) < _ends(starts, minutes)
        if is_improved:
            order, starts = better, proposed
    search = _tell(solution, reason, is_improved=is_improved, frame=frame, end=_last_end(starts, minutes))
    return Schedule(starts=starts, search=search, p80_end=_p80_end(frame, order, minutes, p80_minutes))


def project_of(plan: Plan, frame: Frame, starts: Mapping[str, datetime]) -> Project | None:
    """Return the open blocks as the optimizer takes them; None where no search makes sense."""
    minutes, zero = plan.sequence, _midnight(frame.since)
    has_all = len(starts) == len(minutes)
    until = _last_end(starts, minutes) if has_all else frame.deadline
    if until is None or not timedelta() < until - frame.since <= timedelta(days=MAX_DAYS):
        return None
    stretches, rooms = frame.agenda.free_time(frame.since, until)
    if not _can_hold(stretches, minutes):
        return None
    places = {key: at for at, key in enumerate(minutes)}
    return Project(
        durations=tuple(minutes.values()),
        needs=tuple(tuple(places[need] for need in plan.needs[key] if need in places) for key in minutes),
        resources=(Resource(capacity=1, demands=(1,) * len(minutes)),),
        horizon=_minute(until, zero),
        calendar=Calendar(
            stretches=tuple((_minute(one.start, zero), _minute(one.end, zero)) for one in stretches),
            rooms=tuple(rooms.values()),
        ),
        hint=tuple(_minute(starts[key], zero) for key in minutes) if has_all else None,
        vital=frozenset(at for key, at in places.items() if plan.leaves[key].is_vital),
    )


async def _search(
    ctx: Context, plan: Plan, frame: Frame, starts: Mapping[str, datetime]
) -> tuple[Solution | None, str | None]:
    """Return what the optimizer found, or why it did not run or what became of it."""
    limit_s = ctx.installation.settings.ffe_optimizer_s
    if not limit_s:
        return None, "FFE_OPTIMIZER_S is 0"
    if not optimizer.is_installed():
        return None, "the extra “optimizer” is not installed"
    project = project_of(plan, frame, starts) if len(plan.sequence) > 1 else None
    if project is None:
        return None, "there is nothing to put in another order"
    try:
        return await ctx.run_process(solve, project, limit_s), None
    except SoftTimeLimitExceeded:
        return None, "the job's time was up"
    except (ProcessDied, MemoryExceeded) as error:
        ctx.log.warning("optimizer_failed", reason=str(error))
        return None, str(error)


def _tell(
    solution: Solution | None, reason: str | None, *, is_improved: bool, frame: Frame, end: datetime | None
) -> ScheduleSearch:
    if solution is None:
        return ScheduleSearch(
            verdict=SearchVerdict.NOT_RUN, reason=reason, is_improved=False, bound_at=None, gap_percent=None
        )
    bound_at = None if solution.bound is None else _midnight(frame.since) + solution.bound * _MINUTE
    gap = None
    if bound_at is not None and end is not None:
        gap = round(max(0.0, 100 * ((end - bound_at) / (end - frame.since))), 4)
    return ScheduleSearch(
        verdict=SearchVerdict(solution.verdict.value),
        reason=None,
        is_improved=is_improved,
        bound_at=bound_at,
        gap_percent=gap,
    )


def _p80_end(frame: Frame, order: Sequence[str], minutes: Mapping[str, int], p80_minutes: float) -> datetime | None:
    total = sum(minutes.values())
    if not total:
        return None
    longer = {key: -(-round(minutes[key] * p80_minutes) // total) for key in order}
    if max(longer.values()) * _MINUTE > LONGEST_WINDOW:
        return None
    starts = Frame(agenda=frame.agenda, since=frame.since, deadline=None).place(order, longer)
    return _last_end(starts, longer) if len(starts) == len(order) else None


def _ends(starts: Mapping[str, datetime], minutes: Mapping[str, int]) -> tuple[int, datetime]:
    """Return how many blocks have no place, and when the last one ends: what is to be small, in that order."""
    return len(minutes) - len(starts), _last_end(starts, minutes) or datetime.max.replace(tzinfo=UTC)


def _last_end(starts: Mapping[str, datetime], minutes: Mapping[str, int]) -> datetime | None:
    return max((start + minutes[key] * _MINUTE for key, start in starts.items()), default=None)


def _can_hold(stretches: Sequence[Stretch], minutes: Mapping[str, int]) -> bool:
    """Whether each block has a stretch that it would fit into: what the optimizer's model takes for granted."""
    longest = max((one.end - one.start for one in stretches), default=timedelta())
    return max(minutes.values()) * _MINUTE <= longest


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.date(), time(tzinfo=UTC))


def _minute(moment: datetime, zero: datetime) -> int:
    return (moment - zero) // _MINUTE
