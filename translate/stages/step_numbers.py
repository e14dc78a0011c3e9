"""From what the modules of an attention were called with to the numbers of one head, as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from translate.models.attention import Attention
from translate.models.multi_head import CrossAttention
from translate.models.rnn import RnnDecoder
from translate.models.scope import LocalM, LocalP
from translate.models.score import ActivatedGeneral, Additive, BiasedGeneral, Concat, Cosine, General, Location, Score
from translate.models.selection import normalize
from translate.models.seq2seq import Decoder, Memory, State
from translate.report.blackboard.numbers import Feature, JoinedHeads, OutputWord, ScopeNumbers
from translate.report.blackboard.scores import Array, ScoreNumbers
from translate.training.checkpoint import LoadedModel

CANDIDATES = 5
"""Likeliest words that are shown beside the one that is written."""


@dataclass(frozen=True)
class Call:
    """What a module was called with, and what it gave."""

    inputs: tuple[Any, ...]
    output: Any


@dataclass(frozen=True)
class Place:
    """One layer's attention to the source, and the prefix of its entries in the decoder's State."""

    attention: Attention | CrossAttention
    prefix: str


@dataclass(frozen=True)
class Seen:
    """One output step `time`, from 0: what it read, the last call of each of the attention's modules, what came out.

    `covered`, the weights so far, is (1, 1, S), or by head (1, 1, H, S); None without coverage.
    """

    time: int
    memory: Memory
    state: State
    covered: Tensor | None
    calls: dict[str, Call]
    feature: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Looking:
    """How one head looked: see `report.blackboard.numbers.Worked`, which has fields of these names."""

    score: ScoreNumbers
    scope: ScopeNumbers
    normalizer: str
    shares: Array
    selection: str
    weights: Array
    values: Array
    joined: JoinedHeads | None

    @classmethod
    def of(cls, place: Place, seen: Seen, head: int) -> "Looking":
        """Of head number `head`, from 0."""
        attention = place.attention
        if isinstance(attention, CrossAttention):
            return cls._of_multi_head(attention, place.prefix, seen, head)
        return cls._of_any(attention, place.prefix, seen, head)

    @classmethod
    def _of_multi_head(cls, attention: CrossAttention, prefix: str, seen: Seen, head: int) -> "Looking":
        """The Transformer's own attention: all heads in one product, as rows of a batch."""
        (queries,) = attention.split(seen.calls["query"].output, 1)  # (H, 1, d)
        keys, values = (seen.state.sentences[f"{prefix}{name}"][0, head] for name in ("keys", "values"))
        query, weights = queries[head, 0], _array(seen.calls["dropout"].inputs[0][head, 0])
        score = ScoreNumbers("scaled_dot", _array(query), _array(keys), {}, _array(keys @ query * attention.scale))
        scope = ScopeNumbers("global", 0, np.ones(len(weights), dtype=bool))
        return cls(score, scope, "softmax", weights, "soft", weights, _array(values), _joined(attention, seen))

    @classmethod
    def _of_any(cls, attention: Attention, prefix: str, seen: Seen, head: int) -> "Looking":
        config, calls, heads = attention.config, seen.calls, attention.heads
        query, scores, weights = (
            _of_head(x, heads, head)[0]
            for x in (calls["score"].inputs[0], calls["score"].output, calls["dropout"].inputs[0])
        )
        covered = None if seen.covered is None else _of_head(seen.covered[:, 0], heads, head)
        keys = _keys(attention, seen.memory, head)
        score = ScoreNumbers(config.score, query, keys, _parameters(attention.score), scores, covered)
        scope = _scope(attention, calls["scope"], query, head, seen.time, len(scores))
        visible = np.where(scope.seen, 0.0, -np.inf)
        biased = scores + (visible[:, None] if scores.ndim == 2 else visible)
        shares = _array(normalize(torch.from_numpy(biased), config.normalizer, 0))
        values = _of_head(seen.state.sentences[f"{prefix}values"], heads, head)
        joined = _joined(attention, seen) if heads > 1 else None
        return cls(score, scope, config.normalizer, shares, config.selection, weights, values, joined)


def _keys(attention: Attention, memory: Memory, head: int) -> Array:
    """What the score compares a query with (S, d): states of the memory, or the vectors of their positions."""
    if isinstance(attention.score, Location):
        return _array(attention.score.positions[: memory.longest])
    states = attention.bridge(memory.states)
    if attention.heads == 1:
        return _array(states[0])
    return _of_head(attention.key(states).unflatten(-1, (attention.heads, -1)).transpose(1, 2), attention.heads, head)


def _parameters(score: Score) -> dict[str, Array]:
    """What a score has learned, under the letters of its formula."""
    found: dict[str, Tensor] = {}
    match score:
        case Concat():
            found = {"W": torch.cat([score.query.weight, score.key.weight], 1), "v": score.v.weight}
        case Additive():
            found = {"W": score.query.weight, "U": score.key.weight, "b": score.key.bias, "v": score.v.weight}
        case BiasedGeneral():
            found = {"W": score.query.weight, "b": score.query.bias}
        case ActivatedGeneral():
            found = {"W": score.key.weight, "b": score.bias}
        case General():
            found = {"W": score.key.weight}
        case Cosine():
            found = {"w": score.sharpness.weight[0], "b": score.sharpness.bias}
    if "v" in found and not score.per_feature:
        found["v"] = found["v"][0]
    if score.coverage is not None:
        found["w_c"] = score.coverage
    return {name: _array(tensor) for name, tensor in found.items()}


def _scope(attention: Attention, call: Call, query: Array, head: int, time: int, length: int) -> ScopeNumbers:
    """Which keys the scope lets be seen, and why."""
    scope, heads = attention.scope, attention.heads
    shape = (1, heads, 1, length) if heads > 1 else (1, 1, length)
    hidden, factor = (None if part is None else _of_head(part.expand(shape), heads, head)[0] for part in call.output)
    seen = np.ones(length, dtype=bool) if hidden is None else hidden == 0
    match scope:
        case LocalM():
            return ScopeNumbers("local_m", scope.window, seen, float(min(time, length - 1)))
        case LocalP():
            W, v = _array(scope.hidden.weight), _array(scope.v.weight[0])
            pushed = float(v @ np.tanh(W @ query))
            centre = length / (1 + np.exp(-pushed))
            return ScopeNumbers("local_p", scope.window, seen, centre, pushed, factor, {"W": W, "v": v})
    return ScopeNumbers("global", 0, seen)


def _joined(attention: Attention | CrossAttention, seen: Seen) -> JoinedHeads:
    """The projection of all heads."""
    assert isinstance(attention.output, nn.Linear)
    call = seen.calls["output"]
    contexts = _array(call.inputs[0][0, 0]).reshape(attention.heads, -1)
    return JoinedHeads(
        contexts, _array(attention.output.weight), _array(attention.output.bias), _array(call.output[0, 0])
    )


def feature_of(decoder: Decoder, seen: Seen) -> Feature:
    """What came out of the decoder, and for an RNN from what."""
    vector = _array(seen.feature[0, 0])
    if not isinstance(decoder, RnnDecoder):
        return Feature(vector)
    state = _array(seen.calls["combine"].inputs[0][0, 0])[-decoder.width :]
    return Feature(vector, state, _array(decoder.combine.weight))


def output_of(loaded: LoadedModel, seen: Seen, word: int) -> OutputWord:
    """The id `word` and those that were likelier or nearly so."""
    output, logits = loaded.model.output, _array(seen.logits[0, 0])
    bias = 0.0 if output.bias is None else output.bias[word].item()
    best = np.argsort(-logits, kind="stable")[:CANDIDATES].tolist()
    ids = best if word in best else [*best, word]
    pieces = loaded.tokenizer.pieces_tgt([word, *ids])
    candidates = list(zip(pieces[1:], ids, strict=True))
    return OutputWord(pieces[0], word, _array(output.weight[word]), bias, logits, candidates)


def _of_head(x: Tensor, heads: int, head: int) -> Array:
    """(1, H, ...), or (1, ...) where there is one head only and no dimension for it -> (...) of one head."""
    return _array(x[0, head] if heads > 1 else x[0])


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()
