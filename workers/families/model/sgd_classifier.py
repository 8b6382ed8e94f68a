"""A linear text classifier, trained by stochastic gradient descent on hashed words and pairs of words.

One logistic regression a label against all others (scikit-learn's SGDClassifier), so that a later training
can add labels. What it reads is the question; what it says is the label.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

from app.errors import InsufficientData
from workers.families.model.backends import Arrays, Judgement, Step, pack_text, unpack_text
from workers.families.model.examples import Example, split

FEATURES = 1 << 16
EPOCHS = 100  # at most
PATIENCE = 3  # epochs in a row without a better validation loss after which training stops
LEAST = 1e-15  # the least probability that a label gets: of one it never learned, say

Floats = NDArray[np.float64]


def load(arrays: Arrays) -> "SgdClassifier":
    """Make a model from its arrays; an untrained one from none."""
    if not arrays:
        return SgdClassifier([], np.empty((0, FEATURES + 1)))
    model = SgdClassifier(unpack_text(arrays["labels"]), arrays["weights"])
    model.validation = [float(loss) for loss in arrays.get("validation", ())]
    model.best = arrays.get("best", model.weights)
    return model


class SgdClassifier:
    """Weights of hashed features for each label; the last column is the intercept."""

    def __init__(self, labels: list[str], weights: Floats) -> None:
        self.labels = labels
        self.weights = weights
        self.best = weights  # those with the least validation loss
        self.validation: list[float] = []  # the loss after each epoch
        self._features = HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2), alternate_sign=False)

    def steps(self, examples: Sequence[Example], learning_rate: float, *, first: int) -> Iterator[Step]:
        """Go through the examples once a step, and stop when a tenth kept for validation gets no better."""
        self._add_labels({example.label for example in examples if example.label is not None})
        learned, validated = split(examples)
        features, labels = self._read(learned)
        if len(set(labels)) < 2:
            raise InsufficientData("A classifier needs examples of at least two labels.")
        checked = self._read(validated)
        for epoch in range(first, EPOCHS):
            if len(self.validation) - int(np.argmin([*self.validation, np.inf])) > PATIENCE:
                break
            self._learn(features, labels, learning_rate, epoch)
            self.validation.append(self._loss(*checked))
            if self.validation[-1] == min(self.validation):
                self.best = self.weights
            message = f"validation loss {self.validation[-1]:.4f} nats"
            yield Step(done=epoch + 1, total=EPOCHS, message=message)
        self.weights, self.validation = self.best, []

    def arrays(self) -> Arrays:
        """Return labels and weights; while training goes on, also what decides when it ends."""
        kept: dict[str, NDArray[Any]] = {"labels": pack_text(self.labels), "weights": self.weights}
        if self.validation:
            kept |= {"validation": np.array(self.validation), "best": self.best}
        return kept

    def judge(self, example: Example) -> Judgement:
        """Hold an example's label against the model."""
        label = example.label or ""
        probabilities = self._probabilities(self._features.transform([example.prompt]))[0]
        at = self.labels.index(label) if label in self.labels else None
        probability = max(LEAST, float(probabilities[at])) if at is not None else LEAST
        return Judgement(loss=-float(np.log(probability)), truth=(label,), answers=(self._likeliest(probabilities),))

    def answer(self, prompt: str) -> str | None:
        """Return the likeliest label."""
        return self._likeliest(self._probabilities(self._features.transform([prompt]))[0])

    def score(self, prompt: str, choice: str) -> float:
        """Return the log-probability of a choice as a label."""
        return -self.judge(Example(id="", prompt=prompt, answer="", label=choice)).loss

    def _likeliest(self, probabilities: Floats) -> str | None:
        return self.labels[int(probabilities.argmax())] if self.labels else None

    def _add_labels(self, labels: set[str]) -> None:
        new = sorted(labels - set(self.labels))
        if new:
            self.labels = [*self.labels, *new]
            self.weights = np.vstack([self.weights, np.zeros((len(new), FEATURES + 1))])
            self.best = self.weights

    def _read(self, examples: Sequence[Example]) -> tuple[Any, list[str]]:
        return self._features.transform([one.prompt for one in examples]), [one.label or "" for one in examples]

    def _learn(self, features: Any, labels: list[str], learning_rate: float, epoch: int) -> None:
        truth, weights = np.array(labels), self.weights.copy()
        for at, label in enumerate(self.labels):
            is_label = truth == label
            if not is_label.any():  # a label of the parent's: examples of others alone would only unlearn it
                continue
            regression = SGDClassifier(
                loss="log_loss", alpha=1e-5, learning_rate="constant", eta0=learning_rate,
                max_iter=1, tol=None, random_state=epoch,
            )  # fmt: skip
            regression.fit(features, is_label, coef_init=weights[at, :-1], intercept_init=weights[at, -1:])
            weights[at, :-1], weights[at, -1] = regression.coef_[0], regression.intercept_[0]
        self.weights = weights

    def _loss(self, features: Any, labels: list[str]) -> float:
        probabilities = self._probabilities(features)
        places = [self.labels.index(label) for label in labels]
        return float(-np.log(np.maximum(probabilities[np.arange(len(places)), places], LEAST)).mean())

    def _probabilities(self, features: Any) -> Floats:
        if not self.labels:
            return np.empty((features.shape[0], 0))
        margins = features @ self.weights[:, :-1].T + self.weights[:, -1]
        odds = 1 / (1 + np.exp(-np.clip(margins, -500, 500)))
        shares: Floats = odds / np.maximum(odds.sum(axis=1, keepdims=True), LEAST)
        return shares
