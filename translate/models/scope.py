"""Which states a query may see: the real ones, those before it, or those in a window (Luong et al. 2015)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from translate.config import AttentionConfig


@dataclass(frozen=True)
class Visible:
    """Which keys a query may see, prepared once for all layers, heads and steps of a pass.

    `bias` (B or 1, Q or 1, S) is added to the scores: 0, or so low that the weight becomes exactly 0.
    `alive` (B, 1, 1) is multiplied with the weights: 0 for a sentence of which nothing may be seen, so that its
    weights are 0 rather than uniform over padding; None where that cannot be.
    """

    bias: Tensor
    alive: Tensor | None = None

    @classmethod
    def real(cls, mask: Tensor, dtype: torch.dtype) -> "Visible":
        """All real tokens: mask (B, S)."""
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest(dtype))
        return cls(bias[:, None], mask.any(-1)[:, None, None].to(torch.promote_types(dtype, torch.float32)))

    @classmethod
    def past(cls, length: int, dtype: torch.dtype, device: torch.device) -> "Visible":
        """Each position sees itself and what came before it (a causal mask)."""
        bias = torch.full((length, length), lowest(dtype), dtype=dtype, device=device)
        return cls(bias.triu_(1)[None])

    def heads(self, count: int) -> "Visible":
        """The same for B * count independent heads."""
        if self.bias.size(0) == 1 and self.alive is None:
            return self
        alive = None if self.alive is None else self.alive.repeat_interleave(count, 0)
        return Visible(self.bias.repeat_interleave(count, 0), alive)

    def softmax(self, biased: Tensor) -> Tensor:
        """Scores with `bias` already added (B, Q, S) -> weights; a row sums to 1, or to 0 if it sees nothing.

        In fp32 at least: that is more exact than bf16, and on CPU three times faster.
        """
        weights = biased.softmax(-1, dtype=torch.promote_types(biased.dtype, torch.float32))
        return weights if self.alive is None else weights * self.alive


def lowest(dtype: torch.dtype) -> float:
    """What hides a score, with room for a score, and for a second mask, to be added."""
    return torch.finfo(dtype).min / 4


class Scope(nn.Module):
    """The whole sentence (`global`)."""

    def forward(
        self, query: Tensor, time: Tensor | int, lengths: Tensor, longest: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """query (..., Q, D) at position `time` (an int, or (Q, 1)), lengths (..., 1, 1) of the sources.

        Returns what is added to the scores and what is multiplied with the weights, both (..., Q, S) or None.
        """
        return None, None


class LocalM(Scope):
    """Output t looks at sources t - window to t + window (`local_m`, Luong et al. 2015, monotonic alignment).

    The centre stays on the last real token when the output is longer than the source.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(
        self, query: Tensor, time: Tensor | int, lengths: Tensor, longest: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """A mask only."""
        centre = (lengths - 1).clamp(max=time)
        distance = (torch.arange(longest, device=lengths.device) - centre).abs()
        return _outside(distance > self.window, query.dtype), None


class LocalP(Scope):
    """Output t looks around a centre that it predicts (`local_p`, Luong et al. 2015, predictive alignment).

    p = S sigmoid(v . tanh(W q)) for a source of S real tokens; the weights inside the window are multiplied with the
    Gaussian exp(-(s - p)^2 / (2 sigma^2)), sigma = window / 2, and are not normalised again.
    """

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.window = window
        self.hidden = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, 1, bias=False)
        for linear in (self.hidden, self.v):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, query: Tensor, time: Tensor | int, lengths: Tensor, longest: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """A mask and a Gaussian; the centre in fp32 at least, since bf16 counts to 256 only."""
        share = torch.sigmoid(self.v(torch.tanh(self.hidden(query))))  # (..., Q, 1)
        centre = lengths * share.to(torch.promote_types(share.dtype, torch.float32))
        distance = torch.arange(longest, device=lengths.device) - centre
        sigma = self.window / 2
        return _outside(distance.abs() > self.window, query.dtype), torch.exp(-distance.square() / (2 * sigma**2))


def _outside(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, lowest(dtype))


def build_scope(config: AttentionConfig, width: int) -> Scope:
    """The scope that the config names."""
    match config.scope:
        case "global":
            return Scope()
        case "local_m":
            return LocalM(config.window)
        case "local_p":
            return LocalP(config.window, width)
