"""A score taken apart: which two vectors are multiplied, and what is done with the product.

The formulas are those of `models/score.py`, written once more with plain vectors: q is the query, m a state of the
memory, D their width, e the score. What is written on the board is computed here, and compared with the model's own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
TINY = 1e-12
"""Least length of a vector that something is divided by."""


@dataclass(frozen=True)
class ScoreNumbers:
    """What a score was computed from, and what it was.

    `query` (D) and `keys` (S, D) are q and m, of one head where there are several; for `location` the keys are the
    vectors of the positions. `parameters` have the letters of the formula; with coverage, `w_c` is its vector and
    `covered` (S) are the weights of all steps before this one. `scores` are (S), or (S, D) with one for each feature.
    """

    kind: str
    query: Array
    keys: Array
    parameters: Mapping[str, Array]
    scores: Array
    covered: Array | None = None

    @property
    def per_feature(self) -> bool:
        """Whether each feature has a score of its own."""
        return self.scores.ndim == 2


@dataclass(frozen=True)
class Part:
    """One score for each key: left (n) times right (S, n), summed over the n, then the columns of `finish` (S) in
    order, of which the last is the score; without any, the sum is the score. `constants` are lines that say with
    which numbers."""

    left: Array
    right: Array
    finish: Sequence[tuple[str, Array]] = ()
    constants: Sequence[str] = ()

    @property
    def products(self) -> Array:
        """(S, n), before they are summed."""
        return self.right * self.left

    @property
    def scores(self) -> Array:
        """(S,)."""
        return self.finish[-1][1] if self.finish else self.products.sum(-1)


@dataclass(frozen=True)
class ScoreSteps:
    """How a score is put together. What is compared are `query` (D) and `keys` (S, D), under names of the formula.

    `inner` (S, D) is what an additive score multiplies with v, a function of the two. There is one part, or one for
    each feature that has a score of its own.
    """

    formula: str
    query: tuple[str, Array]
    keys: tuple[str, Array]
    parts: Sequence[Part]
    inner: tuple[str, Array] | None = None


def score_steps(numbers: ScoreNumbers) -> ScoreSteps:
    """Take a score apart. The last column of its parts is the score."""
    if numbers.kind in ("additive", "concat"):
        return _additive_steps(numbers)
    q, m, given = numbers.query, numbers.keys, numbers.parameters
    match numbers.kind:
        case "dot":
            return _product_steps(numbers, "q · m", ("q", q), ("m", m))
        case "scaled_dot":
            return _product_steps(numbers, "q · m / √D", ("q", q), ("m", m))
        case "general":
            return _product_steps(numbers, "q · W m", ("q", q), ("W m", m @ given["W"].T))
        case "biased_general":
            return _product_steps(numbers, "(W q + b) · m", ("W q + b", given["W"] @ q + given["b"]), ("m", m))
        case "activated_general":
            return _product_steps(numbers, "tanh(q · W m + b)", ("q", q), ("W m", m @ given["W"].T))
        case "cosine":
            return _product_steps(numbers, "β q · m / (|q| |m|) with β = softplus(w · q + b)", ("q", q), ("m", m))
        case "location":
            return _product_steps(numbers, "q · w, with a vector w of each position", ("q", q), ("w", m))
    raise AssertionError(f"no formula for the score {numbers.kind}")


def _additive_steps(numbers: ScoreNumbers) -> ScoreSteps:
    q, m, given = numbers.query, numbers.keys, numbers.parameters
    if numbers.kind == "additive":
        formula, names = "v · tanh(W q + U m + b)", ("W q", "U m + b")
        query, keys = given["W"] @ q, m @ given["U"].T + given["b"]
    else:
        formula, names = "v · tanh(W [q; m]) = v · tanh(W₁ q + W₂ m), with the halves W₁ and W₂ of W", ("W₁ q", "W₂ m")
        query, keys = given["W"][:, : len(q)] @ q, m @ given["W"][:, len(q) :].T
    summed, name = query + keys, f"{names[0]} + {names[1]}"
    if numbers.covered is not None:
        summed = summed + numbers.covered[:, None] * given["w_c"]
        name, formula = f"{name} + w_c c", f"{formula}, with w_c c added inside the tanh for coverage"
    inner = np.tanh(summed)
    rows = given["v"] if numbers.per_feature else given["v"][None]
    parts = [Part(row, inner) for row in rows]
    return ScoreSteps(formula, (names[0], query), (names[1], keys), parts, (f"tanh({name})", inner))


def _product_steps(
    numbers: ScoreNumbers, formula: str, query: tuple[str, Array], keys: tuple[str, Array]
) -> ScoreSteps:
    """A score that is an inner product, or the terms of one."""
    left, right = query[1], keys[1]
    if numbers.covered is not None:
        formula = f"{formula}, with u c added for coverage"
    places = [slice(d, d + 1) for d in range(len(left))] if numbers.per_feature else [slice(None)]
    parts = [Part(left[place], right[:, place], *_finish(numbers, query[0], left, right, place)) for place in places]
    return ScoreSteps(formula, query, keys, parts)


def _finish(
    numbers: ScoreNumbers, name: str, left: Array, right: Array, place: slice
) -> tuple[list[tuple[str, Array]], list[str]]:
    """What becomes of the products of the features `place`: columns (S) ending in the score, and what they need."""
    found = right[:, place] @ left[place]
    columns: list[tuple[str, Array]] = []
    constants: list[str] = []
    if numbers.kind == "scaled_dot":
        constants.append(f"√D = √{len(left)} = {number(math.sqrt(len(left)))}")
        found = found / math.sqrt(len(left))
        columns.append(("/ √D", found))
    if numbers.kind == "cosine":
        constants.append(f"|q| = {number(_length(left))}")
        lengths = np.maximum(np.linalg.norm(right, axis=-1), TINY)
        found = found / (_length(left) * lengths)
        columns += [("|m|", lengths), ("/ (|q| |m|)", found)]
    if numbers.covered is not None:
        along = float(left[place] @ numbers.parameters["w_c"][place])
        constants.append(f"u = {name} · w_c = {number(along)}")
        found = found + along * numbers.covered / (_length(left) if numbers.kind == "cosine" else 1.0)
        columns += [("c", numbers.covered), ("+ u c / |q|" if numbers.kind == "cosine" else "+ u c", found)]
    if numbers.kind == "activated_general":
        bias = float(numbers.parameters["b"][place if numbers.per_feature else slice(None)][0])
        constants.append(f"b = {number(bias)}")
        columns += [("+ b", found + bias), ("tanh", np.tanh(found + bias))]
    if numbers.kind == "cosine":
        pushed = float(numbers.parameters["w"] @ numbers.query + numbers.parameters["b"][0])
        sharpness = float(np.logaddexp(0.0, pushed))  # softplus
        constants.append(f"β = softplus(w · q + b) = ln(1 + exp({number(pushed)})) = {number(sharpness)}")
        columns.append(("· β", sharpness * found))
    return columns, constants


def _length(vector: Array) -> float:
    """|x|, never 0."""
    return max(float(np.linalg.norm(vector)), TINY)


def number(x: float) -> str:
    """As it is printed: four decimals."""
    return f"{x:.4f}" if abs(x) >= 0.00005 else "0.0000"
