"""From scores to what is looked at: how scores become weights, and whether the weights mix or choose.

`normalizer` turns scores into a distribution: softmax, or sparsemax, which has exact zeros (Martins & Astudillo 2016).
`selection` says what becomes of it. `soft` averages the values under it. `hard` looks at one state only: sampled in
training, where the loss then needs the log-probability of the choice (Xu et al. 2015), the likeliest in decoding.
`gumbel` chooses too, and sends the gradient through the softmax that the choice was taken from (Jang et al. 2017).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from translate.config import AttentionConfig
from translate.models.dropout import Noise
from translate.models.seq2seq import Aux


def normalize(scores: Tensor, normalizer: Literal["softmax", "sparsemax"], dim: int) -> Tensor:
    """Scores -> a distribution along `dim`, in fp32 at least."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    match normalizer:
        case "softmax":
            return scores.softmax(dim, dtype=dtype)
        case "sparsemax":
            return sparsemax(scores.to(dtype), dim)


def sparsemax(scores: Tensor, dim: int) -> Tensor:
    """The distribution nearest to the scores: max(z - tau, 0), tau such that it sums to 1 (Martins & Astudillo 2016).

    Of the scores in falling order, the first k are in the support for the largest k with 1 + k z_k > z_1 + ... + z_k,
    and tau is their sum less 1, divided by k.
    """
    z = (scores - scores.amax(dim, keepdim=True)).clamp_min(-2.0)  # what is 1 below the largest has no weight anyway
    z = z.transpose(dim, -1)
    falling = z.sort(-1, descending=True).values
    sums = falling.cumsum(-1)
    ranks = torch.arange(1, z.size(-1) + 1, dtype=z.dtype, device=z.device)
    count = (1 + ranks * falling > sums).sum(-1, keepdim=True)
    tau = (sums.gather(-1, count - 1) - 1) / count
    return (z - tau).clamp_min(0.0).transpose(dim, -1)


class Selection(nn.Module):
    """Average under the weights (`soft`)."""

    def forward(self, weights: Tensor, query: Tensor) -> tuple[Tensor, Aux]:
        """weights (..., Q, S), query (..., Q, D) -> what multiplies the values (..., Q, S), and aux (..., Q)."""
        return weights, {}


class Hard(Selection):
    """One state, sampled in training (Xu et al. 2015, section 4.1).

    Gives the loss the log-probability of each choice, its entropy as a negative penalty, and a baseline for what the
    choice will be worth: a learned linear function of the query, whose gradient stops there. With probability
    `soft_share` values are averaged instead, as they expect: from this the weights learn without the noise of a sample.
    """

    def __init__(self, width: int, entropy_weight: float, soft_share: float) -> None:
        super().__init__()
        self.noise = Noise()
        self.entropy_weight = entropy_weight
        self.soft_share = soft_share
        self.baseline = nn.Linear(width, 1)
        nn.init.zeros_(self.baseline.weight)
        nn.init.zeros_(self.baseline.bias)

    def forward(self, weights: Tensor, query: Tensor) -> tuple[Tensor, Aux]:
        """The chosen state as a row of zeros with one 1, or the weights where nothing is chosen."""
        if not self.training:
            return _chosen(weights, weights), {}
        log_weights = _log_share(weights)
        chosen = _chosen(log_weights.detach() + self.noise.gumbel(log_weights), weights)
        entropy = -(log_weights.exp() * log_weights).sum(-1)
        baseline = self.baseline(query.detach()).to(log_weights.dtype)
        averaged = self.noise.uniform(baseline) < self.soft_share
        aux = {
            "choice": (chosen * log_weights).sum(-1, keepdim=True).masked_fill(averaged, 0.0).squeeze(-1),
            "baseline": torch.where(averaged, baseline.detach(), baseline).squeeze(-1),
            "penalty": -self.entropy_weight * entropy,
        }
        return torch.where(averaged, weights, chosen), aux


class Gumbel(Selection):
    """One state, chosen by the straight-through Gumbel softmax (Jang et al. 2017): y = hard + soft - stopped(soft)."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.noise = Noise()
        self.temperature = temperature

    def forward(self, weights: Tensor, query: Tensor) -> tuple[Tensor, Aux]:
        """The chosen state as a row of zeros with one 1, with the gradient of the softmax in training."""
        if not self.training:
            return _chosen(weights, weights), {}
        log_weights = _log_share(weights)
        perturbed = log_weights + self.noise.gumbel(log_weights)
        soft = (perturbed / self.temperature).softmax(-1)
        return _chosen(perturbed.detach(), weights) + soft - soft.detach(), {}


def _log_share(weights: Tensor) -> Tensor:
    """log of the weights made to sum to 1, with a floor in place of log 0 (local_p does not normalise again)."""
    tiny = torch.finfo(weights.dtype).tiny
    return (weights / weights.sum(-1, keepdim=True).clamp_min(tiny)).clamp_min(tiny).log()


def _chosen(preference: Tensor, weights: Tensor) -> Tensor:
    """1 where a row prefers most, 0 elsewhere, and 0 everywhere in a row whose weights are all 0."""
    chosen = torch.zeros_like(weights).scatter_(-1, preference.argmax(-1, keepdim=True), 1.0)
    return chosen * (weights.sum(-1, keepdim=True) > 0)


def build_selection(config: AttentionConfig, width: int) -> Selection:
    """The selection that the config names."""
    match config.selection:
        case "soft":
            return Selection()
        case "hard":
            return Hard(width, config.entropy_weight, config.soft_share)
        case "gumbel":
            return Gumbel(config.temperature)
