"""From a goal to blocks: passes that split what is too large and find the vital part, and the one validator.

Pure. A decomposition is a list of :class:`Leaf`, whoever made it; :func:`find_flaws` decides whether it can be
planned.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.jobs.ffe import MAX_BLOCK_MINUTES, MIN_BLOCK_MINUTES, Complexity, Intent
from workers.families.ffe.network import Network
from workers.families.ffe.templates import TEMPLATES, Step

MAX_PASSES = 5
MAX_LEAVES = 500
GRAIN = 5  # minutes; estimates are whole multiples, finer ones would pretend to know
MAX_TITLE, MAX_CRITERION, MAX_TEXT = 255, 1000, 2000  # characters

PARTS = {Complexity.SIMPLE: 3, Complexity.MEDIUM: 5, Complexity.COMPLEX: 7}
PRIOR_MINUTES = {Complexity.SIMPLE: 8 * 60, Complexity.MEDIUM: 16 * 60, Complexity.COMPLEX: 24 * 60}

_VITAL_SHARE = 0.8
_MAX_FAN_OUT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of the goal on its way to become blocks: some steps in a row, or a share of one."""

    number: int  # of the 3, 5 or 7 parts of the goal, from 1
    steps: tuple[int, ...]  # places in the template, from 0
    minutes: int
    value: float  # its share of the outcome, 0–1


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A block to be. ``needs`` are keys of other leaves."""

    key: str  # names it inside its goal, and gives the block its id
    path: str
    title: str
    description: str
    criterion: str
    minutes: int
    needs: tuple[str, ...] = ()
    is_vital: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The goal after one pass."""

    number: int
    parts: tuple[Part, ...]
    vital: frozenset[int]  # places in ``parts``, from 0


def minutes_of(complexity: Complexity, factor: float = 1.0) -> int:
    """Return how long a goal takes, the prior stretched by the user's factor, in whole grains of 5 minutes."""
    return round(PRIOR_MINUTES[complexity] * factor / GRAIN) * GRAIN


def scope(intent: Intent, complexity: Complexity, minutes: int) -> Iterator[Scope]:
    """Split a goal of ``minutes`` pass by pass, at most 5 times, until nothing is longer than a block."""
    template = TEMPLATES[intent]
    parts = _top_parts(template, PARTS[complexity], minutes)
    yield Scope(number=1, parts=parts, vital=find_vital(parts))
    for number in range(2, MAX_PASSES + 1):
        finer = tuple(piece for part in parts for piece in _split(part, template))
        if len(finer) == len(parts):
            return
        parts = finer
        yield Scope(number=number, parts=parts, vital=find_vital(parts))


def find_vital(parts: Sequence[Part]) -> frozenset[int]:
    """Return the places of the parts that bring 80 % of the outcome, best value for time first, as few as that takes.

    The Pareto rule as a greedy knapsack (Dantzig 1957): the order by value density fills a share of the value in
    the least time, but for the last part.
    """
    ranked = sorted(range(len(parts)), key=lambda at: (-parts[at].value / parts[at].minutes, at))
    vital: list[int] = []
    reached = 0.0
    for at in ranked:
        if reached >= _VITAL_SHARE - 1e-9:
            break
        vital.append(at)
        reached += parts[at].value
    return frozenset(vital)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Share ``total`` minutes out in grains of 5 by largest remainder (Hamilton): the shares add up to it."""
    grains = total // GRAIN
    exact = [grains * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    neediest = sorted(range(len(weights)), key=lambda at: (shares[at] - exact[at], at))
    for at in neediest[: grains - sum(shares)]:
        shares[at] += 1
    return [share * GRAIN for share in shares]


def _top_parts(template: Sequence[Step], count: int, minutes: int) -> tuple[Part, ...]:
    efforts = apportion(minutes, [step.effort for step in template])
    size, larger = divmod(len(template), count)
    parts: list[Part] = []
    first = 0
    for number in range(1, count + 1):
        steps = tuple(range(first, first + size + (number <= larger)))
        value = sum(template[at].value for at in steps) / 100
        parts.append(Part(number=number, steps=steps, minutes=sum(efforts[at] for at in steps), value=value))
        first += len(steps)
    return tuple(parts)


def _split(part: Part, template: Sequence[Step]) -> list[Part]:
    """Split several steps into each, and one that is longer than a block into equal sessions."""
    if len(part.steps) > 1:
        minutes = apportion(part.minutes, [template[at].effort for at in part.steps])
        return [
            replace(part, steps=(at,), minutes=share, value=template[at].value / 100)
            for at, share in zip(part.steps, minutes, strict=True)
        ]
    count = math.ceil(part.minutes / MAX_BLOCK_MINUTES)
    if count > _MAX_FAN_OUT:
        count = math.ceil(math.sqrt(count))  # the next pass splits its pieces again
    return [replace(part, minutes=share, value=part.value / count) for share in apportion(part.minutes, [1.0] * count)]


# --- blocks ------------------------------------------------------------------------------------


def leaves_of(last: Scope, intent: Intent, goal_description: str) -> list[Leaf]:
    """Turn the parts of the last pass into blocks with titles, criteria and dependencies, in the template's order."""
    sessions: dict[int, list[int]] = defaultdict(list)
    for at, part in enumerate(last.parts):
        sessions[part.steps[0]].append(at)
    counts = {step: len(places) for step, places in sessions.items()}
    return [
        _leaf(last, at, session, counts, intent=intent, goal_description=goal_description)
        for places in sessions.values()
        for session, at in enumerate(places, 1)
    ]


def _leaf(
    last: Scope, at: int, session: int, counts: Mapping[int, int], *, intent: Intent, goal_description: str
) -> Leaf:
    part, place = last.parts[at], last.parts[at].steps[0]
    step, count = TEMPLATES[intent][place], counts[place]
    first_step = min(other.steps[0] for other in last.parts if other.number == part.number)
    is_last = session == count
    needs = [_key(intent, place, session - 1)] if session > 1 else []
    if session == 1:
        needs = [_key(intent, number - 1, counts[number - 1]) for number in step.needs]
    return Leaf(
        key=_key(intent, place, session),
        path=f"{part.number}.{place - first_step + 1}.{session}",
        title=step.title if count == 1 else f"{step.title} ({session} of {count})",
        description=f"{step.what} Goal: {goal_description}",
        criterion=step.criterion if is_last else "A note says how far this step is and what comes next.",
        minutes=part.minutes,
        needs=tuple(needs),
        is_vital=at in last.vital,
    )


def _key(intent: Intent, place: int, session: int) -> str:
    return f"{intent}/{place + 1}/{session}"


# --- the validator -----------------------------------------------------------------------------


def find_flaws(leaves: Sequence[Leaf]) -> list[str]:
    """Return why a decomposition cannot be planned, a sentence each; none if it can.

    It needs 1–500 leaves with keys and paths of their own, sizes of 15–90 whole minutes, texts that are there and
    fit their fields, and dependencies that exist and make no circle.
    """
    if not 1 <= len(leaves) <= MAX_LEAVES:
        return [f"A plan has 1 to {MAX_LEAVES} blocks, not {len(leaves)}."]
    flaws = [flaw for leaf in leaves for flaw in _flaws_of(leaf)]
    flaws += [f"The key {key!r} is given twice." for key in _doubles(leaf.key for leaf in leaves)]
    flaws += [f"The path {path!r} is given twice." for path in _doubles(leaf.path for leaf in leaves)]
    keys = {leaf.key for leaf in leaves}
    flaws += [
        f"{leaf.key}: there is no {need!r} to depend on." for leaf in leaves for need in leaf.needs if need not in keys
    ]
    if not flaws and (circle := network_of(leaves).find_circle()):
        flaws.append(f"These wait for each other: {', '.join(circle)}.")
    return flaws


def network_of(leaves: Sequence[Leaf]) -> Network:
    """Return the leaves as a network, in their order."""
    return Network(minutes={leaf.key: leaf.minutes for leaf in leaves}, needs={leaf.key: leaf.needs for leaf in leaves})


def _flaws_of(leaf: Leaf) -> Iterator[str]:
    if not MIN_BLOCK_MINUTES <= leaf.minutes <= MAX_BLOCK_MINUTES:
        yield f"{leaf.key}: a block takes {MIN_BLOCK_MINUTES} to {MAX_BLOCK_MINUTES} minutes, not {leaf.minutes}."
    if not leaf.title.strip() or len(leaf.title) > MAX_TITLE:
        yield f"{leaf.key}: a title has 1 to {MAX_TITLE} characters."
    if not leaf.criterion.strip() or len(leaf.criterion) > MAX_CRITERION:
        yield f"{leaf.key}: a done criterion has 1 to {MAX_CRITERION} characters."
    if len(leaf.description) > MAX_TEXT:
        yield f"{leaf.key}: a description has at most {MAX_TEXT} characters."
    if not 1 <= len(leaf.path) <= MAX_TITLE:
        yield f"{leaf.key}: a path has 1 to {MAX_TITLE} characters."


def _doubles(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
