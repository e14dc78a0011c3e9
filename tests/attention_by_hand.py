"""Every way to attend, from the formulas of the papers, one query and one state at a time.

What the code is held to: nothing here calls it, parameters are read by name, and whatever is computed can be
differentiated.
"""

import math
from collections.abc import Mapping
from itertools import chain, combinations
from typing import NamedTuple

import torch
from torch import Tensor

from translate.config import AttentionConfig

Parameters = Mapping[str, Tensor]
ZERO = torch.zeros((), dtype=torch.float64)


def part(parameters: Parameters, name: str) -> Parameters:
    """The parameters of a submodule."""
    return {key[len(name) + 1 :]: tensor for key, tensor in parameters.items() if key.startswith(f"{name}.")}


def added(terms: list[Tensor]) -> Tensor:
    return sum(terms, ZERO)


def scores_of(
    name: str, p: Parameters, query: Tensor, state: Tensor, position: int, covered: Tensor, per_feature: bool
) -> Tensor:
    """The score of one query (D,) and one state (D,): (1,), or (D,) with a score for each feature.

    `covered` is the weight that the state has had so far; p["coverage"] is the vector it moves the key along.
    """
    width = len(query)
    moved = covered * p["coverage"] if "coverage" in p else torch.zeros(width, dtype=torch.float64)
    if name == "additive":
        return p["v.weight"] @ torch.tanh(p["query.weight"] @ query + p["key.weight"] @ state + p["key.bias"] + moved)
    if name == "concat":
        matrix = torch.cat([p["query.weight"], p["key.weight"]], 1)
        return p["v.weight"] @ torch.tanh(matrix @ torch.cat([query, state]) + moved)
    left, right = query, state
    match name:
        case "scaled_dot":
            right = state / math.sqrt(width)
        case "general" | "activated_general":
            right = p["key.weight"] @ state
        case "biased_general":
            left = p["query.weight"] @ query + p["query.bias"]
        case "location":
            right = p["positions"][position]
        case "cosine":
            beta = torch.log(1 + torch.exp(p["sharpness.weight"][0] @ query + p["sharpness.bias"][0]))
            left = beta * query / added([x * x for x in query]).sqrt()
            right = state / added([x * x for x in state]).sqrt()
        case _:
            assert name == "dot"
    terms = [left[i] * (right[i] + moved[i]) for i in range(width)]
    scores = torch.stack(terms if per_feature else [added(terms)])
    return torch.tanh(scores + p["bias"]) if name == "activated_general" else scores


def seen_by(config: AttentionConfig, p: Parameters, query: Tensor, time: int, length: int) -> dict[int, Tensor]:
    """The positions that output `time` sees of a source of `length`, and what their weights are multiplied with."""
    one = ZERO + 1
    match config.scope:
        case "global":
            return dict.fromkeys(range(length), one)
        case "local_m":
            centre = min(time, length - 1)
            return {s: one for s in range(length) if abs(s - centre) <= config.window}
        case "local_p":
            predicted = length / (1 + torch.exp(-(p["v.weight"][0] @ torch.tanh(p["hidden.weight"] @ query))))
            sigma = config.window / 2
            near = [s for s in range(length) if abs(s - predicted.item()) <= config.window]
            return {s: torch.exp(-((s - predicted) ** 2) / (2 * sigma**2)) for s in near}


def softmax_of(scores: list[Tensor]) -> list[Tensor]:
    exponentials = [score.exp() for score in scores]
    return [exponential / added(exponentials) for exponential in exponentials]


def sparsemax_of(scores: list[Tensor]) -> list[Tensor]:
    """The distribution nearest to the scores, found by trying every support.

    On a support the nearest point with sum 1 is the scores less what makes them sum to 1.
    """
    places = range(len(scores))
    best: tuple[float, list[Tensor]] | None = None
    for support in chain.from_iterable(combinations(places, size) for size in range(1, len(scores) + 1)):
        excess = (added([scores[i] for i in support]) - 1) / len(support)
        point = [scores[i] - excess if i in support else ZERO for i in places]
        distance = sum((p - z).item() ** 2 for p, z in zip(point, scores, strict=True))
        if all(p.item() >= 0 for p in point) and (best is None or distance < best[0]):
            best = distance, point
    assert best is not None
    return best[1]


class Attended(NamedTuple):
    """context (T, D), weights (H, T, S) and the coverage penalty of each output (T,)."""

    context: Tensor
    weights: Tensor
    penalty: Tensor


def attend_by_hand(
    config: AttentionConfig, heads: int, p: Parameters, query: Tensor, states: Tensor, values: Tensor, first: int = 0
) -> Attended:
    """One sentence without padding, in evaluation mode: query (T, D) of outputs first, first + 1, ...; states (S, E).

    Where a score or a weight has features, the weights that are given are their mean.
    """
    if heads == 1:
        if "bridge.weight" in p:
            states, values = states @ p["bridge.weight"].T, values @ p["bridge.weight"].T
        return _one_head(config, 1, p, query, states, values, first)
    asked = query @ p["query.weight"].T + p["query.bias"]
    held = values @ p["value.weight"].T + p["value.bias"]
    keys = states @ p["key.weight"].T + p["key.bias"] if "key.weight" in p else held
    width = query.size(1) // heads
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    found = [_one_head(config, heads, p, asked[:, at], keys[:, at], held[:, at], first) for at in parts]
    joined = torch.cat([one.context for one in found], 1)
    return Attended(
        joined @ p["output.weight"].T + p["output.bias"],
        torch.cat([one.weights for one in found]),
        added([one.penalty for one in found]),
    )


def _one_head(
    config: AttentionConfig, heads: int, p: Parameters, query: Tensor, states: Tensor, values: Tensor, first: int
) -> Attended:
    length, per_feature = len(states), config.features == "multi_dimensional"
    covered = [ZERO] * length
    contexts, rows, penalties = [], [], []
    for t in range(len(query)):
        seen = seen_by(config, part(p, "scope"), query[t], first + t, length)
        scores = {
            s: scores_of(config.score, part(p, "score"), query[t], states[s], s, covered[s], per_feature) for s in seen
        }
        features = range(query.size(1) if per_feature else 1)
        weights = [[ZERO] * len(features) for _ in range(length)]  # of each state, for each feature
        for f in features:
            normalize = softmax_of if config.normalizer == "softmax" else sparsemax_of
            for s, share in zip(seen, normalize([scores[s][f] for s in seen]), strict=True):
                weights[s][f] = share * seen[s]
        if config.selection != "soft":
            best = max(range(length), key=lambda s: weights[s][0].item())
            weights = [[ZERO + (s == best)] for s in range(length)]
        shared = [[weights[s][i if per_feature else 0] for i in range(query.size(1))] for s in range(length)]
        averages = [added([shared[s][i] * values[s, i] for s in range(length)]) for i in range(query.size(1))]
        contexts.append(torch.stack(averages))
        means = [added(weights[s]) / len(features) for s in range(length)]
        again = added([torch.minimum(mean, so_far) for mean, so_far in zip(means, covered, strict=True)])
        penalties.append(again * config.coverage_weight / heads)
        rows.append(torch.stack(means))
        if config.coverage:
            covered = [so_far + mean for mean, so_far in zip(means, covered, strict=True)]
    return Attended(torch.stack(contexts), torch.stack(rows)[None], torch.stack(penalties))
