"""AdamW against its formula, written out in NumPy's float64; clipping against the norm summed by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from translate.config import TrainConfig
from translate.training.loop import Loop
from translate.training.optimizer import build_optimizer, moments, restore_moments, set_lr

TRAIN = TrainConfig(lr=0.3, beta1=0.8, beta2=0.95, weight_decay=0.1, max_steps=9)


class Tied(nn.Module):
    """A matrix that stands twice, a matrix, vectors and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.middle = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def model(seed: int = 1, dtype: torch.dtype = torch.float64) -> Tied:
    torch.manual_seed(seed)
    return Tied().to(dtype)


def gradients(step: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(step)
    return {name: draw.normal(size=tuple(p.shape)) * 10.0 ** -(step % 3) for name, p in model().named_parameters()}


def update(tied: nn.Module, optimizer: torch.optim.Optimizer, step: int, lr: float) -> None:
    for name, parameter in tied.named_parameters():
        parameter.grad = torch.as_tensor(gradients(step)[name]).to(parameter)
    set_lr(optimizer, lr)
    optimizer.step()


def values(tied: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy().copy() for name, p in tied.named_parameters()}


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_updates_follow_the_formula_and_only_matrices_decay(dtype: torch.dtype, rtol: float) -> None:
    tied = model(dtype=dtype)
    optimizer = build_optimizer(tied, TRAIN)
    weights = values(tied)
    mean = {name: np.zeros_like(value) for name, value in weights.items()}
    square = {name: np.zeros_like(value) for name, value in weights.items()}
    for step, lr in enumerate([0.3, 0.01, 0.2, 0.0, 0.05], 1):
        update(tied, optimizer, step, lr)
        for name, gradient in gradients(step).items():
            if name in ("embedding.weight", "middle.weight"):
                weights[name] -= lr * 0.1 * weights[name]
            mean[name] = 0.8 * mean[name] + 0.2 * gradient
            square[name] = 0.95 * square[name] + 0.05 * gradient**2
            unbiased, spread = mean[name] / (1 - 0.8**step), square[name] / (1 - 0.95**step)
            weights[name] -= lr * unbiased / (np.sqrt(spread) + 1e-9)
        for name, value in values(tied).items():
            np.testing.assert_allclose(value, weights[name], rtol=rtol, atol=rtol, err_msg=f"{name} at step {step}")
    assert len(weights) == 6  # the tied matrix is learnt once


def test_moments_and_weights_put_into_a_new_optimizer_go_on_with_the_same_bits() -> None:
    straight = model(dtype=torch.float32)
    optimizer = build_optimizer(straight, TRAIN)
    for step in range(1, 4):
        update(straight, optimizer, step, 0.1)
    saved = {name: tensor.clone() for name, tensor in moments(straight, optimizer)}
    names = {name for name, _ in straight.named_parameters()}
    assert saved.keys() == {f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in names}

    resumed = model(seed=7, dtype=torch.float32)
    resumed.load_state_dict(straight.state_dict())
    again = build_optimizer(resumed, TRAIN)
    restore_moments(resumed, again, saved, 3)
    assert {name: tensor.tolist() for name, tensor in moments(resumed, again)} == {
        name: tensor.tolist() for name, tensor in saved.items()
    }
    for step in range(4, 7):
        update(straight, optimizer, step, 0.1)
        update(resumed, again, step, 0.1)
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, dict(resumed.named_parameters())[name])


def test_there_are_no_moments_before_the_first_update() -> None:
    tied = model()
    optimizer = build_optimizer(tied, TRAIN)
    assert list(moments(tied, optimizer)) == []
    restore_moments(tied, optimizer, {}, 0)
    assert list(moments(tied, optimizer)) == []


def loop(tied: nn.Module, clip: float) -> Any:
    """As much of a loop as clipping looks at."""
    train = TrainConfig(clip=clip, max_steps=1)
    parts = {"learner": SimpleNamespace(model=tied), "guard": SimpleNamespace(scale=None)}
    return SimpleNamespace(config=SimpleNamespace(train=train), **parts)


@pytest.mark.parametrize("clip", [0.5, 3.0, 1e6, 0.0])
def test_the_gradient_is_clipped_to_the_norm_and_keeps_its_direction(clip: float) -> None:
    tied = model()
    given = gradients(3)
    for name, parameter in tied.named_parameters():
        parameter.grad = torch.tensor(given[name])
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in given.values()))
    assert norm > 3.0
    assert Loop.gradient_norm(loop(tied, clip)).item() == pytest.approx(norm, rel=1e-12)  # the norm before clipping
    factor = min(1.0, clip / norm) if clip else 1.0
    for name, parameter in tied.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), factor * given[name], rtol=1e-5, atol=0)
