"""Low-rank adapters (Hu et al. 2021) for a transformers model that lies in a local directory.

Only the adapters learn and are kept; the base model stays as it is. Nothing is looked for outside the
directory, weights are read from safetensors alone, and code that comes with a model is not run.
"""

from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from app.errors import Discard
from workers.families.model.backends import Arrays, pack_text, unpack_text
from workers.families.model.causal import Causal

_RANK = 8
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load(arrays: Arrays, base: Path) -> Causal:
    """Make the base model with its adapters; with adapters that change nothing from no arrays.

    Raise Discard for a base that cannot be loaded, or is not the one that the adapters were trained on.
    """
    logging.disable_progress_bar()  # nobody watches a worker's standard error
    digest = _digest_of(base)
    if arrays and unpack_text(arrays["base"]) != [digest]:
        raise Discard(f"The base model {base.name!r} is not the one that this model was trained on: its files differ.")
    try:
        model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True, dtype=torch.float32, **_LOCAL)
        tokenizer = Subwords(AutoTokenizer.from_pretrained(base, **_LOCAL))
    except (OSError, ValueError) as error:
        raise Discard(f"The base model {base.name!r} cannot be loaded: {error}") from error
    torch.manual_seed(0)
    adapters = LoraConfig(
        task_type="CAUSAL_LM", r=_RANK, lora_alpha=2 * _RANK, lora_dropout=0.0, target_modules="all-linear"
    )
    return Causal(get_peft_model(model, adapters), tokenizer, arrays, {"base": pack_text([digest])})


class Subwords:
    """Spells a text as the base model does."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("its tokenizer has no token for the end of a text")
        self.end: int = tokenizer.eos_token_id
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the subwords, without special ones."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of subwords."""
        text: str = self._tokenizer.decode(tokens)
        return text


def _digest_of(base: Path) -> str:
    digests = []
    for path in sorted([*base.glob("*.safetensors"), *base.glob("tokenizer*")]):
        with path.open("rb") as file:
            digests.append(f"{path.name} {file_digest(file, 'sha256').hexdigest()}")
    return "; ".join(digests)
