"""Every way for a query to look at a memory.

A query is compared with keys (`score.py`), of which it may see some (`scope.py`); the scores become weights, which mix
values or choose one (`selection.py`). `Attention` puts any of these together, with one head or several; the
Transformer's own kind, written for speed, is in `multi_head.py`. What depends on the memory alone is computed once a
sentence, by `prepare`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from translate.config import AttentionConfig
from translate.models.dropout import Dropout
from translate.models.loop_matrix import LoopMatrix
from translate.models.scope import Visible, build_scope
from translate.models.score import Product, build_score
from translate.models.selection import build_selection, normalize
from translate.models.seq2seq import Aux, Memory, State


def compute_dtype(x: Tensor) -> torch.dtype:
    """The number format that matrix products with x come out in: autocast's where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@dataclass(frozen=True)
class Prepared:
    """What queries of a sentence look at; with several heads, a dimension H follows B."""

    keys: Tensor | LoopMatrix  # (B, D, S) or, where the score is no product, (B, S, D)
    values: Tensor | LoopMatrix  # (B, S, D)
    bias: Tensor  # (B, 1, S)
    alive: Tensor  # (B, 1, 1)
    lengths: Tensor  # (B, 1, 1)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """As entries of a decoder's State."""
        return {prefix + name: tensor for name, tensor in vars(self).items()}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], prefix: str) -> "Prepared":
        """What `tensors` made entries of."""
        return cls(*(tensors[prefix + name] for name in ("keys", "values", "bias", "alive", "lengths")))


@dataclass(frozen=True)
class Look:
    """What queries saw: context (B, Q, D), weights (B, Q, S) or by head (B, H, Q, S), and what the loss needs.

    `covered`, shaped as the weights of one query, is their sum over all queries so far; None without coverage.
    """

    context: Tensor
    weights: Tensor
    aux: Aux
    covered: Tensor | None = None

    @classmethod
    def joined(cls, looks: "Sequence[Look]") -> "Look":
        """One after another in time."""
        aux = {name: torch.cat([look.aux[name] for look in looks], -1) for name in looks[0].aux}
        context, weights = (torch.cat([getattr(look, name) for look in looks], -2) for name in ("context", "weights"))
        return cls(context, weights, aux, looks[-1].covered)


class Attention(nn.Module):
    """Weights from a score, and what they make of the values.

    With heads, queries, keys and values are projected to H subspaces (Vaswani et al. 2017), each attends by itself,
    and the contexts are joined and projected once more; the heads share the score's own parameters. With one head a
    memory of another width is brought to that of the query.
    """

    def __init__(
        self, config: AttentionConfig, width: int, memory_width: int, heads: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        self.bridge = nn.Identity() if heads > 1 or memory_width == width else linear(memory_width, width, bias=False)
        if heads > 1:
            self.query, self.output = linear(width, width), linear(width, width)
            self.value = linear(memory_width, width)
        self.score = build_score(config, width // heads)
        if heads > 1 and self.score.reads_memory:
            self.key = linear(memory_width, width)
        self.scope = build_scope(config, width // heads)
        self.selection = build_selection(config, width // heads)
        self.dropout = Dropout(dropout)

    @property
    def is_plain_product(self) -> bool:
        """Whether it is nothing but softmax over inner products of query and keys."""
        config, kind = self.config, type(self.score)
        usual = (config.scope, config.selection, config.normalizer) == ("global", "soft", "softmax")
        alone = self.heads == 1 and not self.score.per_feature and not config.coverage
        product = issubclass(kind, Product) and kind.ask is Product.ask and kind.forward is Product.forward
        return usual and alone and product

    def prepare(self, memory: Memory) -> Prepared:
        """Keys, values and what may be seen, once a sentence."""
        dtype = compute_dtype(memory.states)
        memory = memory.to(dtype)
        states = self.bridge(memory.states)
        values = states if memory.values is memory.states else self.bridge(memory.values)
        visible = Visible.real(memory.mask, dtype)
        lengths = memory.lengths[:, None, None]
        assert visible.alive is not None
        if self.heads == 1:
            return Prepared(self.score.prepare(states), values, visible.bias, visible.alive, lengths)
        values = self._split(self.value(values))
        keys = self._split(self.key(states)) if self.score.reads_memory else values
        seen = (visible.bias[:, None], visible.alive[:, None], lengths[:, None])
        return Prepared(self.score.prepare(keys), values, *seen)

    def in_loop(self, prepared: Prepared) -> Prepared:
        """The same for many calls of `attend`, with the gradient of what they multiply by taken once."""
        if self.config.features == "multi_dimensional":
            return prepared
        assert isinstance(prepared.keys, Tensor)
        assert isinstance(prepared.values, Tensor)
        dtype = prepared.values.dtype
        keys = LoopMatrix(prepared.keys, dtype) if self.score.is_product else prepared.keys
        return replace(prepared, keys=keys, values=LoopMatrix(prepared.values, dtype))

    def attend_all(self, query: Tensor, prepared: Prepared) -> Look:
        """Queries of all times, (B, T, D); one after another only where one must know what those before it saw."""
        if not self.config.coverage:
            return self.attend(query, prepared, torch.arange(query.size(1), device=query.device)[:, None])
        looks: list[Look] = []
        prepared = self.in_loop(prepared)
        for time in range(query.size(1)):
            covered = looks[-1].covered if looks else None
            looks.append(self.attend(query[:, time : time + 1], prepared, time, covered))
        return Look.joined(looks)

    def attend(self, query: Tensor, prepared: Prepared, time: Tensor | int, covered: Tensor | None = None) -> Look:
        """query (B, Q, D), all at position `time` of the target or at positions `time` (Q, 1)."""
        asked = query if self.heads == 1 else self._split(self.query(query))
        weights = self.weigh(asked, prepared, time, covered)
        aux: Aux = {}
        if self.score.per_feature:
            assert isinstance(prepared.values, Tensor)
            context = (self.dropout(weights) * prepared.values[..., None, :, :]).sum(-2).to(prepared.bias.dtype)
            weights = weights.mean(-1)
        else:
            weights, aux = self.selection(weights, asked)
            context = self.dropout(weights).to(prepared.bias.dtype) @ prepared.values
        if self.config.coverage:
            before = torch.zeros_like(weights) if covered is None else covered
            again = torch.minimum(weights, before).sum(-1) * (self.config.coverage_weight / self.heads)
            aux["penalty"] = again + aux.get("penalty", 0.0)
            covered = before + weights
        if self.heads > 1:
            context = self.output(context.transpose(1, 2).flatten(2))
            aux = {name: tensor.sum(1) for name, tensor in aux.items()}
        return Look(context, weights, aux, covered)

    def weigh(self, query: Tensor, prepared: Prepared, time: Tensor | int, covered: Tensor | None = None) -> Tensor:
        """How the states share a query's attention: (..., Q, S), or (..., Q, S, D) with a score for each feature."""
        scores = self.score(query, prepared.keys, covered)
        bias, alive = prepared.bias, prepared.alive
        hidden, factor = self.scope(query, time, prepared.lengths, bias.size(-1))
        bias = bias if hidden is None else bias + hidden
        if not self.score.per_feature:
            weights = normalize(scores + bias, self.config.normalizer, -1) * alive
            return weights if factor is None else weights * factor
        weights = normalize(scores + bias[..., None], self.config.normalizer, -2) * alive[..., None]
        return weights if factor is None else weights * factor[..., None]

    def start(self, memory: Memory, beam: int, prefix: str) -> State:
        """The entries of a decoder's State that `step` reads, for `beam` hypotheses a sentence."""
        prepared = self.prepare(memory)
        state = State({}, prepared.tensors(prefix))
        if self.config.coverage:
            heads = [self.heads] if self.heads > 1 else []
            size = (memory.states.size(0), beam, *heads, memory.longest)
            state.beams[f"{prefix}covered"] = prepared.alive.new_zeros(size)
        return state

    def step(self, query: Tensor, state: State, prefix: str, time: int) -> Look:
        """One step of each hypothesis: query (B, K, D); weights are (B, K, S), or by head (B, K, H, S)."""
        several, name = self.heads > 1, f"{prefix}covered"
        covered = state.beams.get(name)
        if covered is not None and several:
            covered = covered.transpose(1, 2)
        look = self.attend(query, Prepared.of(state.sentences, prefix), time, covered)
        if look.covered is not None:
            state.beams[name] = look.covered.transpose(1, 2) if several else look.covered
        return replace(look, weights=look.weights.transpose(1, 2)) if several else look

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def of_layers(auxes: Sequence[Aux]) -> Aux:
    """What the layers of a decoder give the loss: one penalty (B, T), and choices side by side (B, T, L).

    They are not added: the baseline of a layer knows what the layers below chose, and a choice that is compared with
    what already knows of it gets the wrong gradient.
    """
    names = {name: None for aux in auxes for name in aux}  # in order
    stacked = {name: torch.stack([aux[name] for aux in auxes], -1) for name in names}
    return {name: tensor.sum(-1) if name == "penalty" else tensor for name, tensor in stacked.items()}


def linear(inputs: int, outputs: int, parts: int = 1, bias: bool = True) -> nn.Linear:
    """Several projections in one matrix, each initialised as if it stood alone (Glorot & Bengio 2010)."""
    linear = nn.Linear(inputs, parts * outputs, bias=bias)
    for part in linear.weight.data.chunk(parts):
        nn.init.xavier_uniform_(part)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
