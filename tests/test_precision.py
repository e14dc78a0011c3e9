"""The loss scale against the rule it follows, played through by hand."""

import json

import pytest
import torch

from translate.training import precision
from translate.training.precision import FIRST, LossScale

CPU = torch.device("cpu")


def by_hand(overflows: list[bool], steady_needed: int) -> list[float]:
    scale, steady, scales = FIRST, 0, []
    for overflow in overflows:
        if overflow:
            scale, steady = scale / 2, 0
        else:
            steady += 1
            if steady == steady_needed:
                scale, steady = min(2 * scale, precision.LARGEST), 0
        scales.append(scale)
    return scales


def test_the_scale_follows_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "STEADY", 3)
    generator = torch.Generator().manual_seed(1)
    overflows = (torch.rand(200, generator=generator) < 0.4).tolist() + [False] * 300
    scale, found = LossScale(CPU), []
    for overflow in overflows:
        scale.note(torch.tensor(float(overflow)))
        found.append(float(scale.scale))
    assert found == by_hand(overflows, 3)
    assert max(found) == precision.LARGEST
    assert min(found) < FIRST


def test_scaling_loses_nothing_and_saves_small_gradients() -> None:
    weight = torch.tensor([1.0], dtype=torch.float16, requires_grad=True)
    (plain,) = torch.autograd.grad((weight * 1e-5).float().sum() * 1e-4, weight)
    assert plain.item() == 0  # 1e-9 is nothing in fp16
    scale = LossScale(CPU)
    (scaled,) = torch.autograd.grad(scale.apply((weight * 1e-5).float().sum() * 1e-4), weight)
    wide = scaled.float()
    scale.divide([wide])
    assert wide.item() == pytest.approx(1e-9, rel=1e-2)


def test_it_goes_on_from_a_checkpoint() -> None:
    scale = LossScale(CPU)
    for overflow in (0, 0, 1, 0):
        scale.note(torch.tensor(float(overflow)))
    again = LossScale(CPU)
    again.restore(json.loads(json.dumps(scale.to_json())))
    assert again.to_json() == scale.to_json() == [FIRST / 2, 1.0]
