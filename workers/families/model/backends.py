"""The backends: kinds of model that can be trained here, behind one protocol.

Their libraries are loaded only by the process that trains or judges (:meth:`Backend.load`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.families.model.examples import Example

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far training is."""

    done: int
    total: int  # at most; training may stop early
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model makes of one example: of each of its tokens, or of its label."""

    loss: float  # nats, summed over the answers
    truth: tuple[str, ...]
    answers: tuple[str | None, ...]  # what the model would have said; None if it has nothing to say


class Learner(Protocol):
    """A model that can be trained, judged and asked."""

    def steps(self, examples: Sequence[Example], learning_rate: float, *, first: int) -> Iterator[Step]:
        """Learn, step by step, from step ``first`` on. Between two steps, ``arrays`` is all there is to keep."""

    def arrays(self) -> Arrays:
        """Return the model as arrays, from which :meth:`Backend.load` makes the same one."""

    def judge(self, example: Example) -> Judgement:
        """Hold an example against the model."""

    def answer(self, prompt: str) -> str | None:
        """Return the next word, or the label, that the model finds most likely."""

    def score(self, prompt: str, choice: str) -> float:
        """Return the mean log-likelihood of a choice's tokens after the prompt, or of the choice as a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One kind of model."""

    name: str
    uses: frozenset[str]  # the parameters of training that mean something to it
    needs_label: bool  # learns only from examples with a label
    module: str  # of this package; its ``load`` makes a Learner from arrays, an untrained one from none

    def load(self, arrays: Arrays | None = None) -> Learner:
        """Return a trained model, or an untrained one."""
        learner: Learner = import_module(f"workers.families.model.{self.module}").load(arrays or {})
        return learner


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(name="kneser-ney", uses=frozenset({"training_samples"}), needs_label=False, module="kneser_ney"),
        Backend(
            name="sgd-classifier",
            uses=frozenset({"training_samples", "learning_rate"}),
            needs_label=True,
            module="sgd_classifier",
        ),
    )
}


def pack_text(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Write texts, none of which holds a NUL, as an array of bytes."""
    return np.frombuffer("\0".join(texts).encode(), dtype=np.uint8)


def unpack_text(packed: NDArray[Any]) -> list[str]:
    """Read what :func:`pack_text` wrote."""
    text = packed.astype(np.uint8).tobytes().decode()
    return text.split("\0") if text else []
