"""A GPT-2 of 0.86 million parameters, trained from nothing on the bytes of texts: it needs no vocabulary."""

from collections.abc import Sequence

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from workers.families.model.backends import Arrays
from workers.families.model.causal import WINDOW, Causal

_END = 256  # after the bytes

_CONFIG = {
    "vocab_size": _END + 1,
    "n_positions": WINDOW,
    "n_embd": 128,
    "n_layer": 4,
    "n_head": 4,
    "bos_token_id": _END,
    "eos_token_id": _END,
}


def load(arrays: Arrays) -> Causal:
    """Make a model from its arrays; an untrained one, always the same, from none."""
    torch.manual_seed(0)
    return Causal(GPT2LMHeadModel(GPT2Config(**_CONFIG)), Bytes(), arrays)


class Bytes:
    """Spells a text as its UTF-8 bytes."""

    end = _END

    def encode(self, text: str) -> list[int]:
        """Return the bytes."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of bytes; what is no whole character is left out."""
        return bytes(tokens).decode(errors="ignore")
