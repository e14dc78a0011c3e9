"""Dropout: its statistics, and that it depends on its key and nothing else."""

import pytest
import torch

from translate.config import ModelConfig, RnnDecoderConfig, TransformerEncoderConfig
from translate.models import build_model
from translate.models.dropout import Dropout
from translate.models.seq2seq import Tokens


def dropout(p: float, *key: int) -> Dropout:
    module = Dropout(p).train()
    module.key = key
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.003])
def test_rate_and_scale(p: float, dtype: torch.dtype) -> None:
    count = 400_000
    y = dropout(p, 1, 2)(torch.ones(count, dtype=dtype))
    dropped = float((y == 0).double().mean())
    assert abs(dropped - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1 / 65536
    kept = y[y != 0].double()
    assert (kept == kept[0]).all()
    assert float(kept[0]) == pytest.approx(1 / (1 - p), rel=2**-8 if dtype == torch.bfloat16 else 2e-5)


def test_a_bf16_scale_is_right_on_average() -> None:
    """Rounding the scale itself to bf16 would make everything 0.16 % too small."""
    x = torch.rand(400_000, generator=torch.Generator().manual_seed(0)).bfloat16() + 1
    y = dropout(0.1, 1)(x)
    kept = y != 0
    assert float(y[kept].double().sum() / x[kept].double().sum()) == pytest.approx(1 / 0.9, rel=3e-4)


def test_the_mask_is_a_function_of_the_key() -> None:
    x = torch.ones(1000)
    torch.manual_seed(1)
    first = dropout(0.5, 1, 2, 3)(x)
    torch.manual_seed(2)
    torch.testing.assert_close(dropout(0.5, 1, 2, 3)(x), first, rtol=0, atol=0)
    for other in [(1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2, 3, 0)]:
        agreement = float((dropout(0.5, *other)(x) == first).float().mean())
        assert 0.4 < agreement < 0.6, other


def test_each_call_draws_anew() -> None:
    module, x = dropout(0.5, 1), torch.ones(1000)
    first, second = module(x), module(x)
    assert 0.4 < float((first == second).float().mean()) < 0.6


def test_neighbouring_elements_are_independent() -> None:
    kept = dropout(0.5, 9)(torch.ones(400_000)) != 0
    for distance in (1, 2, 3, 4, 5, 64):
        assert abs(float((kept[distance:] == kept[:-distance]).float().mean()) - 0.5) < 0.005


def test_the_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = dropout(0.4, 1)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_odd_sizes_and_loops() -> None:
    assert dropout(0.5, 1)(torch.ones(7)).shape == (7,)
    assert dropout(0.5, 1)(torch.ones(0, 3)).shape == (0, 3)
    scaled = dropout(0.5, 1).draw_scaled(torch.ones(2, 3), 4)
    assert scaled is not None
    assert scaled.shape == (4, 2, 3)
    assert set(scaled.unique().tolist()) == {0.0, 2.0}


def test_nothing_happens_in_evaluation_mode_or_at_zero() -> None:
    x = torch.randn(5)
    assert dropout(0.5, 1).eval()(x) is x
    assert dropout(0.0, 1)(x) is x
    assert dropout(0.5, 1).eval().draw_scaled(x, 2) is None


def test_a_pass_without_a_key_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="key_randomness"):
        Dropout(0.5).train()(torch.ones(3))


def test_a_models_pass_is_a_function_of_its_key_and_sites_differ() -> None:
    config = ModelConfig(
        encoder=TransformerEncoderConfig(width=8, heads=2, layers=2, feed_forward=8, dropout=0.5),
        decoder=RnnDecoderConfig(width=8, layers=2, dropout=0.5),
    )
    torch.manual_seed(0)
    model = build_model(config, 9, 9).train()
    src = Tokens(torch.randint(0, 9, (2, 4)), torch.tensor([4, 2]), 4)
    found = []
    for key in [(1, 0, 0), (1, 1, 0), (1, 0, 0), (1, 0, 1)]:
        model.key_randomness(*key)
        found.append(model(src, src)[0])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[3])
    model.key_randomness(1, 0, 0)
    masks = [m.draw(torch.Size([64]), torch.ones(1)) for m in model.modules() if isinstance(m, Dropout) and m.p > 0]
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks) > 6
