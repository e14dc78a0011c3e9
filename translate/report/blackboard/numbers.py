"""The numbers of one output step's attention, as the model had them, from the query to the word's probability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from translate.report.blackboard.scores import Array, ScoreNumbers, score_steps

DIGITS = 9
"""Of a number in the JSON: as many as tell two fp32 numbers apart."""


@dataclass(frozen=True)
class ScopeNumbers:
    """Which of the S keys are seen. `centre` counts positions from 0.

    For `local_p` the centre is S sigmoid(`pushed`), `pushed` = v . tanh(W q) with the `parameters` W and v, and
    `gaussian` (S) multiplies the weights; sigma is half the window.
    """

    kind: str
    window: int
    seen: npt.NDArray[np.bool_]
    centre: float | None = None
    pushed: float | None = None
    gaussian: Array | None = None
    parameters: Mapping[str, Array] | None = None

    def to_json(self) -> dict[str, Any]:
        """`centre` and what it was computed from, for local scopes only."""
        found: dict[str, Any] = {"kind": self.kind, "seen": self.seen.tolist()}
        if self.centre is not None:
            found |= {"window": self.window, "centre": rounded(self.centre)}
        if self.gaussian is not None:
            assert self.parameters is not None
            found |= {"parameters": _all_rounded(self.parameters), "pushed": rounded(self.pushed)}
            found |= {"sigma": self.window / 2, "gaussian": rounded(self.gaussian)}
        return found


@dataclass(frozen=True)
class JoinedHeads:
    """The contexts (H, d) of all heads, one after another, projected: W (D, D) [c_1; ...; c_H] + b -> attended (D)."""

    contexts: Array
    W: Array
    b: Array
    attended: Array

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return _all_rounded(vars(self))


@dataclass(frozen=True)
class Feature:
    """What the output layer multiplies, `vector` (D).

    Of an RNN it is tanh(W [c; h]) with the context, or with several heads their projection, and the decoder's `state`
    h (D); W is (D, 2 D). Of the others it is what the rest of the network makes of it: then these are None.
    """

    vector: Array
    state: Array | None = None
    W: Array | None = None

    def to_json(self) -> dict[str, Any]:
        """What there is of it."""
        return _all_rounded({name: value for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class OutputWord:
    """The word that is written: logit = row . feature + bias, and its probability by softmax over all `logits` (V).

    `candidates` are the likeliest words with their ids, the written one among them.
    """

    word: str
    id: int
    row: Array
    bias: float
    logits: Array
    candidates: Sequence[tuple[str, int]]

    @property
    def log_sum(self) -> float:
        """ln of the sum of exp(logit) over the vocabulary."""
        return float(np.logaddexp.reduce(self.logits))

    def probability(self, id: int) -> float:
        """Of any word of the vocabulary."""
        return float(np.exp(self.logits[id] - self.log_sum))

    def to_json(self) -> dict[str, Any]:
        """The logits of the whole vocabulary too, from which `log_sum` follows."""
        return {
            "word": self.word,
            "id": self.id,
            "row": rounded(self.row),
            "bias": rounded(self.bias),
            "logit": rounded(self.logits[self.id]),
            "log_sum": rounded(self.log_sum),
            "probability": rounded(self.probability(self.id)),
            "candidates": [
                {
                    "word": word,
                    "id": id,
                    "logit": rounded(self.logits[id]),
                    "probability": rounded(self.probability(id)),
                }
                for word, id in self.candidates
            ],
            "logits": rounded(self.logits),
        }


@dataclass(frozen=True)
class Worked:
    """One output step of one head. `step`, `layer` and `head` count from 1.

    `shares` are what the normalizer makes of the scores, `weights` what multiplies the values (S, d): both (S), or
    (S, d) with a weight for each feature. They differ under a local scope with a Gaussian and under hard selection.
    """

    sentence: str
    translation: str
    checkpoint: int
    src: Sequence[str]
    tgt: Sequence[str]
    reads: str
    step: int
    layer: int
    layers: int
    head: int
    heads: int
    score: ScoreNumbers
    scope: ScopeNumbers
    normalizer: str
    shares: Array
    selection: str
    weights: Array
    values: Array
    joined: JoinedHeads | None
    feature: Feature
    output: OutputWord

    @property
    def products(self) -> Array:
        """Each weight times its value (S, d)."""
        return (self.weights if self.score.per_feature else self.weights[:, None]) * self.values

    @property
    def context(self) -> Array:
        """Their sum (d)."""
        return self.products.sum(0)

    def check(self) -> None:
        """Assert that the scores put together anew are the model's own."""
        parts = score_steps(self.score).parts
        scores = np.stack([part.scores for part in parts], -1) if self.score.per_feature else parts[0].scores
        assert np.allclose(scores, self.score.scores, rtol=1e-6, atol=1e-6), "the board and the model disagree"

    def to_json(self) -> dict[str, Any]:
        """All numbers; vectors as lists, matrices as lists of rows."""
        score = self.score
        return {
            "sentence": self.sentence,
            "translation": self.translation,
            "checkpoint": self.checkpoint,
            "src": list(self.src),
            "tgt": list(self.tgt),
            "step": self.step,
            "reads": self.reads,
            "layer": self.layer,
            "layers": self.layers,
            "head": self.head,
            "heads": self.heads,
            "score": {
                "kind": score.kind,
                "formula": score_steps(score).formula,
                "features": "multi_dimensional" if score.per_feature else "scalar",
                "query": rounded(score.query),
                "keys": rounded(score.keys),
                "parameters": _all_rounded(score.parameters),
                "covered": None if score.covered is None else rounded(score.covered),
                "scores": rounded(score.scores),
            },
            "scope": self.scope.to_json(),
            "normalizer": self.normalizer,
            "shares": rounded(self.shares),
            "selection": self.selection,
            "weights": rounded(self.weights),
            "values": rounded(self.values),
            "products": rounded(self.products),
            "context": rounded(self.context),
            "joined": None if self.joined is None else self.joined.to_json(),
            "feature": self.feature.to_json(),
            "output": self.output.to_json(),
        }


def _all_rounded(numbers: Mapping[str, Array]) -> dict[str, Any]:
    return {name: rounded(array) for name, array in numbers.items()}


def rounded(numbers: Any) -> Any:
    """An array as nested lists, or a number, to DIGITS significant digits."""
    if isinstance(numbers, np.ndarray):
        numbers = numbers.tolist()
    if isinstance(numbers, list):
        return [rounded(each) for each in numbers]
    return float(f"{numbers:.{DIGITS}g}")
