"""Examples as the backends see them, and which of them are held out. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256

from app.records.training_examples import TrainingExample

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a model learns from, or is judged on."""

    id: str
    prompt: str
    answer: str
    label: str | None

    @property
    def key(self) -> int:
        """A 64-bit number that stands for its id: the order of the split, and the memory of what was seen."""
        return example_key(self.id)


def example_of(record: TrainingExample) -> Example:
    """Take from a record what a model needs."""
    return Example(id=record.example_id, prompt=record.input_text, answer=record.output_text, label=record.label)


def example_key(example_id: str) -> int:
    """Return the 64-bit number that stands for an example's id, as evenly spread as if it were drawn."""
    return int.from_bytes(blake2b(example_id.encode(), digest_size=8).digest())


def split(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Return the examples to learn from and those held out: a tenth, at least one, the lowest by key.

    The same ids give the same split, and an example that is held out once is mostly held out again.
    """
    ordered = sorted(examples, key=lambda example: (example.key, example.id))
    held_out = max(1, round(len(ordered) * HELD_OUT_SHARE)) if ordered else 0
    return ordered[held_out:], ordered[:held_out]


def fingerprint(*facts: object, examples: Sequence[Example]) -> str:
    """Return 32 hexadecimal digits that only the same facts and the same content of examples give."""
    digest = sha256(repr(facts).encode())
    for example in examples:
        parts = (example.id, example.prompt, example.answer, example.label)
        digest.update(repr(parts).encode())
    return digest.hexdigest()[:32]
