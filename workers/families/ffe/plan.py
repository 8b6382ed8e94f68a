"""A plan in the making: the leaves of a decomposition as blocks, their network, their order. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import count
from uuid import UUID, uuid5

from app.jobs.ffe import BlockSize, Intent
from app.records.ffe_blocks import FfeBlock
from app.records.ffe_goals import FfeGoal
from workers.families.ffe.decomposition import Leaf, Scope
from workers.families.ffe.network import Network

_BLOCK_IDS = UUID("2f1c7c5e-93a4-5d0b-8a54-6f0f5b5c9e21")  # the namespace of planned blocks; never changed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Leaves that have passed the validator, by the ids of their blocks, in the order of the plan."""

    intent: Intent
    leaves: Mapping[str, Leaf]
    needs: Mapping[str, tuple[str, ...]]
    passes: tuple[Scope, ...]
    factor: float  # by which the prior was stretched
    finished: frozenset[str]  # ids of the goal's blocks that are done, whether in this plan or not

    @cached_property
    def network(self) -> Network:
        """The blocks that wait for each other; a finished one takes no time."""
        minutes = {key: 0 if key in self.finished else leaf.minutes for key, leaf in self.leaves.items()}
        return Network(minutes=minutes, needs=self.needs)

    @cached_property
    def critical_path(self) -> list[str]:
        """The open blocks of the longest chain."""
        return [key for key in self.network.critical_path() if key not in self.finished]

    @cached_property
    def sequence(self) -> dict[str, int]:
        """The open blocks with their minutes in one person's order.

        Vital ones come first, then what most waits for, then the order of the plan.
        """
        places = {key: at for at, key in enumerate(self.leaves)}
        tails = self.network.tails
        order = self.network.order(lambda key: (not self.leaves[key].is_vital, -tails[key], places[key]))
        return {key: self.leaves[key].minutes for key in order if key not in self.finished}


def make_plan(
    goal_id: str,
    intent: Intent,
    leaves: Sequence[Leaf],
    *,
    passes: Sequence[Scope],
    factor: float,
    finished: frozenset[str],
) -> Plan:
    """Give each leaf the id of its block: the same goal and key give the same one."""
    ids = {leaf.key: str(uuid5(_BLOCK_IDS, f"{goal_id}\n{leaf.key}")) for leaf in leaves}
    return Plan(
        intent=intent,
        leaves={ids[leaf.key]: leaf for leaf in leaves},
        needs={ids[leaf.key]: tuple(ids[need] for need in leaf.needs) for leaf in leaves},
        passes=tuple(passes),
        factor=factor,
        finished=finished,
    )


def open_blocks(
    plan: Plan, goal: FfeGoal, stored: Sequence[FfeBlock], starts: Mapping[str, datetime], now: datetime
) -> list[FfeBlock]:
    """Return the records of what is not done, with the lowest indexes that no block which stays has."""
    replaced = plan.leaves.keys() - plan.finished
    taken = {
        block.index
        for block in stored
        if block.block_id in plan.finished or (block.path is None and block.block_id not in replaced)
    }
    indexes = (index for index in count(1) if index not in taken)
    return [
        FfeBlock(
            block_id=key,
            user_id=goal.user_id,
            goal_id=goal.goal_id,
            timestamp=now,
            index=next(indexes),
            title=leaf.title,
            description=leaf.description,
            done_criterion=leaf.criterion,
            size=size_of(leaf.minutes),
            estimated_minutes=leaf.minutes,
            depends_on=plan.needs[key],
            scheduled_start=starts.get(key),
            prior_minutes=round(leaf.minutes / plan.factor, 3),
            path=leaf.path,
        )
        for key, leaf in plan.leaves.items()
        if key not in plan.finished
    ]


def size_of(minutes: int) -> BlockSize:
    """Return the word for a length: small up to 30 minutes, medium up to 60, large beyond."""
    if minutes <= 30:
        return BlockSize.SMALL
    return BlockSize.MEDIUM if minutes <= 60 else BlockSize.LARGE
