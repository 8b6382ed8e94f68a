"""The backends: kinds of model that can be trained here, behind one protocol.

Their libraries are loaded only by the process that trains or judges (:meth:`Backend.load`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import Discard, JobNotFound
from app.jobs.contract import Extra
from app.jobs.model import LLM, MODEL_NAME
from app.references import directory_of, is_installed
from app.settings import Settings
from workers.families.model.examples import Example

Arrays = Mapping[str, NDArray[Any]]

_BOTH = frozenset({"training_samples", "learning_rate"})
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


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
    suffix: str = ".npz"  # of its files
    extra: Extra | None = None  # the libraries that it needs beyond the default install
    base: Path | None = None  # the directory of the model that it adapts

    def load(self, arrays: Arrays | None = None) -> Learner:
        """Return a trained model, or an untrained one; raise Discard without the libraries that it needs."""
        if self.extra is not None and not is_installed(self.extra):
            raise Discard(f"{self.name!r} needs the extra {self.extra.name!r} on the worker.")
        os.environ.update(_OFFLINE)  # read when the libraries are imported, which happens in the next line alone
        load = import_module(f"workers.families.model.{self.module}").load
        learner: Learner = load(arrays or {}) if self.base is None else load(arrays or {}, self.base)
        return learner


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(name="kneser-ney", uses=frozenset({"training_samples"}), needs_label=False, module="kneser_ney"),
        Backend(name="sgd-classifier", uses=_BOTH, needs_label=True, module="sgd_classifier"),
        Backend(name="gpt2-tiny", uses=_BOTH, needs_label=False, module="gpt2_tiny", suffix=".safetensors", extra=LLM),
        Backend(name="lora", uses=_BOTH, needs_label=False, module="lora", suffix=".safetensors", extra=LLM),
    )
}


def find_backend(name: str, settings: Settings) -> Backend | None:
    """Return the backend that a name means: ``lora:small`` is ``lora`` on the base model ``small``; or None."""
    word = MODEL_NAME.word(name)
    if word is None:
        return None
    backend = BACKENDS[word.text]
    if word.below is None:
        return backend
    base = directory_of(name, word, settings)
    if base is None:
        raise JobNotFound(f"The base model of {name!r} is not there.")
    return replace(backend, name=name, base=base)


def pack_text(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Write texts, none of which holds a NUL, as an array of bytes."""
    return np.frombuffer("\0".join(texts).encode(), dtype=np.uint8)


def unpack_text(packed: NDArray[Any]) -> list[str]:
    """Read what :func:`pack_text` wrote."""
    text = packed.astype(np.uint8).tobytes().decode()
    return text.split("\0") if text else []
