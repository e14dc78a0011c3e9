"""AdamW over the parameters of a model, with decay for matrices only."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from translate.config import TrainConfig
from translate.training.distributed import part_of

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); vectors (biases, norms) are not decayed. Fused: one pass over memory."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), eps=1e-9, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every tensor the optimizer remembers; nothing before the first update."""
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for moment in MOMENTS:
            if moment in state:
                yield f"{moment}.{name}", state[moment]


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    """Updates that the optimizer has made; fewer than were tried, if some had to be left out."""
    return max((round(float(state["step"])) for state in optimizer.state.values()), default=0)


def restore_moments(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Tensor], step: int) -> None:
    """Put back what `moments` gave after `step` updates."""
    for name, parameter in model.named_parameters():
        if f"{MOMENTS[0]}.{name}" in saved:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                **{moment: part_of(saved[f"{moment}.{name}"], parameter) for moment in MOMENTS},
            }
