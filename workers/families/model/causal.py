"""What the transformer backends share: a causal language model that learns in steps and is asked about texts.

Needs the extra ``llm``. Everything runs on one core in float32 without dropout, so that the same training gives
the same weights, also when it was interrupted.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax

from workers.families.model.backends import Arrays, Judgement, Step
from workers.families.model.examples import Example, split

BATCH = 8  # windows of one step
WINDOW = 256  # tokens of one window, at most
ROUND = 100  # steps after which validation looks, at most; else every time through the examples
EPOCHS = 30  # times through the examples, at most
MOST_STEPS = 3_000
PATIENCE = 3  # rounds in a row without a better validation loss after which training stops

_IGNORED = -100  # what cross_entropy leaves out
_CHECKED = 64  # windows of validation, at most
_LONGEST_WORD = 24  # tokens
_WORD = re.compile(r"\W*(\w+)")

Windows = Sequence[Sequence[int]]


class Tokenizer(Protocol):
    """How a model spells texts."""

    end: int  # the token before and after every text

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""


class Causal:
    """A model of which those weights learn that ask for a gradient; ``facts`` are kept beside them."""

    def __init__(self, model: Any, tokenizer: Tokenizer, arrays: Arrays, facts: Arrays | None = None) -> None:
        self._model = model.eval()  # without dropout
        self._tokenizer = tokenizer
        self._facts = facts or {}
        self._window = min(WINDOW, int(model.config.max_position_embeddings))
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._copy("weight", arrays)
        self._validation = [float(loss) for loss in arrays.get("validation", ())]  # after each round
        self._best = _group("best", arrays)
        self._moments = arrays if "steps" in arrays else None  # of an optimizer to go on with

    # --- learning ------------------------------------------------------------------------------

    def steps(self, examples: Sequence[Example], learning_rate: float, *, first: int) -> Iterator[Step]:
        """Learn from a batch of windows a step; stop when a tenth kept for validation gets no better."""
        learned, validated = (self._windows(some) for some in split(examples))
        epoch_steps = -(-len(learned) // BATCH)
        a_round, total = min(ROUND, epoch_steps), min(EPOCHS * epoch_steps, MOST_STEPS)
        self._optimizer = self._make_optimizer(learning_rate)
        for step in range(first, total):
            if len(self._validation) - int(np.argmin([*self._validation, np.inf])) > PATIENCE:
                break
            loss = self._learn(_batch(learned, step, epoch_steps))
            if (step + 1) % a_round == 0 or step + 1 == total:
                self._validate(validated[:_CHECKED])
            message = f"loss {loss:.4f} nats"
            if self._validation:
                message += f", validation perplexity {np.exp(self._validation[-1]):.2f}"
            yield Step(done=step + 1, total=total, message=message)
        self._copy("best", self._best)
        self._validation, self._best, self._optimizer = [], {}, None

    def arrays(self) -> Arrays:
        """Return the weights that learn; while training goes on, also what it needs to go on."""
        kept = {f"weight:{name}": _array(weight) for name, weight in self._weights.items()} | dict(self._facts)
        if self._optimizer is not None:
            kept |= self._best | {"validation": np.array(self._validation)}
            for name, weight in self._weights.items():
                moments = self._optimizer.state[weight]
                kept |= {f"mean:{name}": _array(moments["exp_avg"]), f"square:{name}": _array(moments["exp_avg_sq"])}
                kept["steps"] = _array(moments["step"])
        return kept

    _optimizer: Any = None  # while training goes on

    def _make_optimizer(self, learning_rate: float) -> Any:
        optimizer = torch.optim.AdamW(self._weights.values(), lr=learning_rate)
        if self._moments is not None:
            for name, weight in self._weights.items():
                optimizer.state[weight] = {
                    "step": torch.tensor(float(self._moments["steps"].item())),
                    "exp_avg": torch.tensor(self._moments[f"mean:{name}"]),
                    "exp_avg_sq": torch.tensor(self._moments[f"square:{name}"]),
                }
            self._moments = None
        return optimizer

    def _learn(self, windows: Windows) -> float:
        self._optimizer.zero_grad()
        loss = self._loss(windows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._weights.values()), 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def _validate(self, windows: Windows) -> None:
        with torch.no_grad():
            batches = [windows[at : at + BATCH] for at in range(0, len(windows), BATCH)]
            counts = [sum(len(window) - 1 for window in batch) for batch in batches]
            losses = [float(self._loss(batch)) for batch in batches]
        self._validation.append(float(np.average(losses, weights=counts)))
        if self._validation[-1] == min(self._validation):
            self._best = {f"best:{name}": _array(weight).copy() for name, weight in self._weights.items()}

    def _loss(self, windows: Windows) -> Any:
        longest = max(len(window) for window in windows) - 1
        inputs = torch.full((len(windows), longest), self._tokenizer.end)
        targets = torch.full((len(windows), longest), _IGNORED)
        for row, window in enumerate(windows):
            inputs[row, : len(window) - 1] = torch.tensor(window[:-1])
            targets[row, : len(window) - 1] = torch.tensor(window[1:])
        logits = self._model(input_ids=inputs).logits
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)

    def _windows(self, examples: Sequence[Example]) -> Windows:
        """Cut all texts, one after the other, into windows; the last token of one is the first of the next."""
        stream = [self._tokenizer.end]
        for example in examples:
            stream += [*self._tokenizer.encode(text_of(example)), self._tokenizer.end]
        return _cut(stream, self._window)

    def _copy(self, group: str, arrays: Arrays) -> None:
        for name, array in _group(group, arrays).items():
            self._weights[name.partition(":")[2]].data.copy_(torch.tensor(array))

    # --- asking --------------------------------------------------------------------------------

    def judge(self, example: Example) -> Judgement:
        """Hold every token of an example, and its end, against the model."""
        end = self._tokenizer.end
        tokens = [end, *self._tokenizer.encode(text_of(example)), end]
        loss, answers = 0.0, list[int]()
        for window in _cut(tokens, self._window):
            likelihoods = self._likelihoods(window[:-1])
            loss -= float(likelihoods[range(len(window) - 1), window[1:]].double().sum())
            answers += likelihoods.argmax(dim=1).tolist()
        return Judgement(loss=loss, truth=tuple(map(str, tokens[1:])), answers=tuple(map(str, answers)))

    def answer(self, prompt: str) -> str | None:
        """Return the first word of the likeliest tokens after a prompt, taken one by one."""
        before = [self._tokenizer.end, *self._tokenizer.encode(prompt)]
        said: list[int] = []
        while len(said) < _LONGEST_WORD:
            token = int(self._likelihoods([*before, *said][-self._window :])[-1].argmax())
            if token == self._tokenizer.end:
                break
            said.append(token)
            word = _WORD.match(text := self._tokenizer.decode(said))
            if word and word.end() < len(text):
                break
        word = _WORD.match(self._tokenizer.decode(said))
        return word.group(1) if word else None

    def score(self, prompt: str, choice: str) -> float:
        """Return the mean log-probability of the choice's tokens after the prompt."""
        chosen = self._tokenizer.encode(f" {choice}")
        tokens = [self._tokenizer.end, *self._tokenizer.encode(prompt), *chosen][-self._window - 1 :]
        likelihoods = self._likelihoods(tokens[:-1])
        each = likelihoods[range(len(tokens) - 1), tokens[1:]]
        return float(each[-len(chosen) :].mean()) if choice else -np.inf

    def _likelihoods(self, tokens: Sequence[int]) -> Any:
        """Return, for the place after each token, the log-probability of every token."""
        with torch.no_grad():
            return log_softmax(self._model(input_ids=torch.tensor([list(tokens)])).logits[0], dim=1)


def text_of(example: Example) -> str:
    """Return what a model reads of an example: the question, then the answer."""
    return f"{example.prompt}\n{example.answer}"


def _batch(windows: Windows, step: int, epoch_steps: int) -> Windows:
    """Return the windows of one step; every epoch has an order of its own, and the same one each time."""
    epoch, at = divmod(step, epoch_steps)
    order = np.random.default_rng(epoch).permutation(len(windows))
    return [windows[place] for place in order[at * BATCH : (at + 1) * BATCH]]


def _cut(tokens: Sequence[int], size: int) -> Windows:
    return [tokens[at : at + size + 1] for at in range(0, len(tokens) - 1, size)]


def _group(group: str, arrays: Arrays) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if name.startswith(f"{group}:")}


def _array(tensor: Any) -> Any:
    return np.ascontiguousarray(tensor.detach().numpy())
