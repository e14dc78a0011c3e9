"""How well a key answers a query: every score function of classical attention, one small class each.

The names and most formulas are those of the table of score functions in Niu, Zhong & Yu (2021), A review on the
attention mechanism of deep learning; `q` is a query, `m` a state of the memory, both of width D. Leading dimensions
`...` are the batch, and the heads where there are several.

Every score is a sum over D features. With `per_feature` that sum is left out, so that each feature has a score of its
own (multi-dimensional attention, Shen et al. 2018); for `additive` and `concat` the vector v becomes a matrix instead,
as there.

Coverage, the weights that a memory's states have had so far (Tu et al. 2016, See et al. 2017), moves each key along a
learned vector w: m becomes m + w c. Where the key enters through a product that adds (q . w) c to the score, and
inside tanh for `additive`, which is then formula 11 of See et al.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.config import AttentionConfig
from translate.errors import DataError
from translate.models.loop_matrix import LoopMatrix

NEARLY_NONE = 0.05
"""Size of the matrices between query and key at first, as a share of the usual: learning starts from weights that are
about equal, and not from sharp ones that mean nothing."""


class Score(nn.Module):
    """query (..., Q, D), keys -> scores (..., Q, S), or (..., Q, S, D) with `per_feature`.

    A new score is a subclass, a case in `build_score` and a name in the config.
    """

    is_product = False
    """Whether the keys enter only by `query @ keys`, so that a loop may put off their gradient."""
    reads_memory = True
    """Whether what the memory says matters, and not only how long it is."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__()
        self.per_feature = config.features == "multi_dimensional"
        self.coverage = nn.Parameter(torch.empty(width)) if config.coverage else None
        if self.coverage is not None:
            nn.init.normal_(self.coverage, std=width**-0.5)

    def prepare(self, memory: Tensor) -> Tensor:
        """The part that knows only the memory (..., S, D), computed once a sentence."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix, covered: Tensor | None = None) -> Tensor:
        """query (..., Q, D), what `prepare` gave, and the weights so far (..., Q, S) -> scores."""
        raise NotImplementedError


class Product(Score):
    """Scores that are an inner product of something of the query with something of the key (..., D, S)."""

    is_product = True

    def ask(self, query: Tensor) -> Tensor:
        """What of the query is multiplied: (..., Q, D) -> (..., Q, D)."""
        return query

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix, covered: Tensor | None = None) -> Tensor:
        """The inner product, or its terms."""
        asked = self.ask(query)
        if self.per_feature:
            assert isinstance(keys, Tensor)
            moved = keys.transpose(-1, -2)[..., None, :, :]  # (..., 1, S, D)
            if self.coverage is not None and covered is not None:
                moved = moved + covered[..., None] * self.coverage
            return asked[..., None, :] * moved
        scores = asked @ keys
        if self.coverage is not None and covered is not None:
            scores = scores + (asked @ self.coverage)[..., None] * covered
        return scores


class Dot(Product):
    """q . m (Luong et al. 2015)."""

    def prepare(self, memory: Tensor) -> Tensor:
        """(..., S, D) -> (..., D, S)."""
        return memory.transpose(-1, -2)


class ScaledDot(Product):
    """q . m / sqrt(D) (Vaswani et al. 2017): the variance of a sum of D products does not grow with D."""

    def prepare(self, memory: Tensor) -> Tensor:
        """(..., S, D) -> (..., D, S)."""
        return memory.transpose(-1, -2) / math.sqrt(memory.size(-1))


class General(Product):
    """q . W m (Luong et al. 2015): queries and keys need not be of one language."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.key = _matrix(width, width, gain=NEARLY_NONE)

    def prepare(self, memory: Tensor) -> Tensor:
        """(..., S, D) -> (..., D, S)."""
        keys: Tensor = self.key(memory)
        return keys.transpose(-1, -2)


class BiasedGeneral(Dot):
    """(W q + b) . m (Sordoni et al. 2016): b . m is how interesting a state is to whoever asks."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.query = _matrix(width, width, bias=True, gain=NEARLY_NONE)

    def ask(self, query: Tensor) -> Tensor:
        """W q + b."""
        asked: Tensor = self.query(query)
        return asked


class ActivatedGeneral(General):
    """tanh(q . W m + b) with one number b (Ma et al. 2017): no state can win by more than e squared to one."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.bias = nn.Parameter(torch.zeros(width if self.per_feature else 1))

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix, covered: Tensor | None = None) -> Tensor:
        """The general score, squeezed; per feature each term is squeezed and has a number of its own."""
        return torch.tanh(super().forward(query, keys, covered) + self.bias)


class Cosine(Product):
    """beta cos(q, m) with sharpness beta = softplus(w . q + b) from the query (Graves et al. 2014)."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.sharpness = _matrix(width, 1, bias=True)
        nn.init.constant_(self.sharpness.bias, 10.0)  # cosines lie within -1 and 1: at 1 the weights would be all alike

    def prepare(self, memory: Tensor) -> Tensor:
        """m / |m|: (..., S, D) -> (..., D, S)."""
        return F.normalize(memory, dim=-1).transpose(-1, -2)

    def ask(self, query: Tensor) -> Tensor:
        """beta q / |q|."""
        return F.normalize(query, dim=-1) * F.softplus(self.sharpness(query))


class Location(Product):
    """w_s . q with a learned vector w_s for each position s: what is there does not matter (Luong et al. 2015)."""

    reads_memory = False

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.positions = nn.Parameter(torch.empty(config.max_positions, width))
        nn.init.normal_(self.positions, std=width**-0.5)

    def prepare(self, memory: Tensor) -> Tensor:
        """(..., S, D) -> (..., D, S). Raises DataError for a source with more positions than there are vectors."""
        length, limit = memory.size(-2), self.positions.size(0)
        if length > limit:
            raise DataError(
                f"a source has {length} pieces, but model.decoder.attention.max_positions is {limit} and the score is "
                "location: shorten the text, or train with a larger max_positions or with another score"
            )
        return self.positions[:length].t().to(memory.dtype).expand(*memory.shape[:-2], -1, -1)


class Additive(Score):
    """v . tanh(W q + U m + b) (Bahdanau et al. 2015): a network of one hidden layer."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.v = nn.Linear(width, width if self.per_feature else 1, bias=False)
        for linear in (self.query, self.key, self.v):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.key.bias)

    def prepare(self, memory: Tensor) -> Tensor:
        """(..., S, D) -> (..., S, D)."""
        keys: Tensor = self.key(memory)
        return keys

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix, covered: Tensor | None = None) -> Tensor:
        """(..., Q, D), (..., S, D) -> (..., Q, S); Q * S * D numbers in between."""
        assert isinstance(keys, Tensor)
        inner = self.query(query)[..., None, :] + keys[..., None, :, :]
        if self.coverage is not None and covered is not None:
            inner = inner + covered[..., None] * self.coverage
        scores: Tensor = self.v(torch.tanh(inner))
        return scores if self.per_feature else scores.squeeze(-1)


class Concat(Additive):
    """v . tanh(W [q; m]) with one matrix W (Luong et al. 2015): `additive` without b, initialised as a whole."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__(config, width)
        both = _matrix(2 * width, width).weight.detach()
        self.query.weight = nn.Parameter(both[:, :width].clone())
        self.key = nn.Linear(width, width, bias=False)
        self.key.weight = nn.Parameter(both[:, width:].clone())


def build_score(config: AttentionConfig, width: int) -> Score:
    """The score that the config names, for queries and memories of one width."""
    match config.score:
        case "dot":
            return Dot(config, width)
        case "scaled_dot":
            return ScaledDot(config, width)
        case "general":
            return General(config, width)
        case "biased_general":
            return BiasedGeneral(config, width)
        case "activated_general":
            return ActivatedGeneral(config, width)
        case "additive":
            return Additive(config, width)
        case "concat":
            return Concat(config, width)
        case "location":
            return Location(config, width)
        case "cosine":
            return Cosine(config, width)
        case "none":
            raise AssertionError("a decoder without attention has no score")


def _matrix(inputs: int, outputs: int, bias: bool = False, gain: float = 1.0) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(linear.weight, gain)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
