"""What a language model may propose, and how it becomes leaves of a plan. Pure.

Nothing of it is trusted: it must have the shape below, and its leaves then pass :func:`find_flaws` as those of the
templates do.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.jobs.ffe import MAX_BLOCK_MINUTES, MIN_BLOCK_MINUTES
from workers.families.ffe.decomposition import (
    GRAIN,
    MAX_CRITERION,
    MAX_LEAVES,
    MAX_TEXT,
    MAX_TITLE,
    Leaf,
    Part,
    apportion,
    find_vital,
)

_TOLD = ("type", "description", "items", "required", "additionalProperties", "$ref")  # what every such service knows


def _has_no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a text holds no NUL: no database would take it")
    return text


Text = Annotated[str, AfterValidator(_has_no_nul)]


class ProposedBlock(BaseModel):
    """One block, as the model has to write it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[Text, Field(min_length=1, max_length=64, description="A short name, unique in the plan.")]
    part: Annotated[int, Field(ge=1, le=20, description="Which part of the goal it belongs to, from 1.")]
    title: Annotated[Text, Field(min_length=1, max_length=MAX_TITLE - 20, description="What it is called.")]
    description: Annotated[Text, Field(max_length=MAX_TEXT, description="What to do.")]
    done_criterion: Annotated[
        Text, Field(min_length=1, max_length=MAX_CRITERION, description="How to tell it is done.")
    ]
    minutes: Annotated[int, Field(description=f"How long, {MIN_BLOCK_MINUTES} to {MAX_BLOCK_MINUTES}.")]
    value: Annotated[int, Field(ge=0, le=100, description="How much of the outcome it brings, relative to others.")]
    depends_on: Annotated[list[Text], Field(description="Keys of blocks that must be done first.")]


class Proposal(BaseModel):
    """A decomposition, as the model has to write it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    blocks: Annotated[list[ProposedBlock], Field(min_length=1, max_length=MAX_LEAVES)]


def response_format() -> dict[str, Any]:
    """Return the JSON schema of a proposal as the protocol's ``response_format``."""
    schema = _plain(Proposal.model_json_schema())
    return {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": schema}}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave the shape alone: not every service takes limits, which are checked here anyway."""
    plain = {name: schema[name] for name in _TOLD if name in schema}
    if "items" in plain:
        plain["items"] = _plain(plain["items"])
    for name in ("properties", "$defs"):
        if name in schema:
            plain[name] = {key: _plain(part) for key, part in schema[name].items()}
    return plain


def leaves_of_proposal(proposal: Proposal) -> list[Leaf]:
    """Return the blocks as leaves, in their order, as long as the model says they take."""
    blocks = proposal.blocks
    total = sum(one.value for one in blocks)
    parts = [
        Part(
            number=one.part,
            steps=(),
            minutes=min(max(one.minutes, 1), MAX_BLOCK_MINUTES),  # what lies outside is the validator's to refuse
            value=one.value / max(total, 1),
        )
        for one in blocks
    ]
    vital = find_vital(parts) if total else frozenset(range(len(blocks)))
    return [
        Leaf(
            key=f"model/{one.key}",
            path=f"{one.part}.{at}.1",
            title=one.title,
            description=one.description,
            criterion=one.done_criterion,
            minutes=one.minutes,
            needs=tuple(f"model/{key}" for key in dict.fromkeys(one.depends_on)),
            is_vital=at - 1 in vital,
        )
        for at, one in enumerate(blocks, 1)
    ]


def stretched(leaves: Sequence[Leaf], factor: float) -> list[Leaf]:
    """Return sound leaves as long as they take this user; what grows beyond a block becomes several sessions."""
    pieces = {leaf.key: _sessions(leaf, factor) for leaf in leaves}
    last = {key: sessions[-1].key for key, sessions in pieces.items()}
    return [
        one if number else replace(one, needs=tuple(last[need] for need in one.needs))
        for sessions in pieces.values()
        for number, one in enumerate(sessions)
    ]


def _sessions(leaf: Leaf, factor: float) -> list[Leaf]:
    minutes = max(round(leaf.minutes * factor / GRAIN) * GRAIN, MIN_BLOCK_MINUTES)
    count = math.ceil(minutes / MAX_BLOCK_MINUTES)
    stem = leaf.path.rpartition(".")[0]
    return [
        Leaf(
            key=leaf.key if number == 1 else f"{leaf.key}/{number}",
            path=f"{stem}.{number}",
            title=leaf.title if count == 1 else f"{leaf.title} ({number} of {count})",
            description=leaf.description,
            criterion=leaf.criterion if number == count else "A note says how far this is and what comes next.",
            minutes=share,
            needs=leaf.needs if number == 1 else (leaf.key if number == 2 else f"{leaf.key}/{number - 1}",),
            is_vital=leaf.is_vital,
        )
        for number, share in enumerate(apportion(minutes, [1.0] * count), 1)
    ]
