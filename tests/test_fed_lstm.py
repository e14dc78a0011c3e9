"""The decoder loop with its backward pass by hand, against the same loop in plain steps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from translate.config import RnnAttentionConfig, RnnDecoderConfig
from translate.config.architectures import ScoreName
from translate.models.dropout import Keyed
from translate.models.rnn import RnnDecoder
from translate.models.seq2seq import Memory, Record, Tokens

LENGTHS = [4, 1, 3, 6]
BY_HAND: list[ScoreName] = ["dot", "scaled_dot", "general", "location"]


def decoder_of(score: ScoreName = "general", layers: int = 1, dropout: float = 0.0) -> RnnDecoder:
    torch.manual_seed(5)
    attention = RnnAttentionConfig(score=score)
    config = RnnDecoderConfig(layers=layers, width=8, embedding=5, dropout=dropout, attention=attention)
    decoder = RnnDecoder(config, 9, 6)
    for parameter in decoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return decoder


def given(dtype: torch.dtype) -> tuple[Tokens, Memory]:
    generator = torch.Generator().manual_seed(2)
    tgt_in = Tokens(torch.randint(9, (4, 5), generator=generator), torch.tensor([5, 2, 3, 4]), 5)
    states = torch.randn((4, 6, 6), generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    summary = torch.randn((4, 6), generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return tgt_in, Memory(states, torch.tensor(LENGTHS), 6, summary, states)


def both_ways(decoder: RnnDecoder, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
    """Features, recorded weights and all gradients: by hand, and in plain steps."""
    results = []
    assert decoder.by_hand
    for decoder.by_hand in (True, False):
        for site, module in enumerate(m for m in decoder.modules() if isinstance(m, Keyed)):
            module.key, module.calls = (1, site), 0
        tgt_in, memory = given(dtype)
        record: Record = {}
        features, aux = decoder(tgt_in, memory, record)
        assert aux == {}
        pull = torch.randn(features.shape, generator=torch.Generator().manual_seed(3)).to(features.dtype)
        learnt = [memory.states, memory.summary, *decoder.parameters()]
        results.append((features, record["alignment"], list(torch.autograd.grad((features * pull).sum(), learnt))))
    return results


@pytest.mark.parametrize("score", BY_HAND)
@pytest.mark.parametrize(("layers", "dropout"), [(1, 0.0), (2, 0.0), (3, 0.4)])
def test_by_hand_equals_plain_steps_in_float64(score: ScoreName, layers: int, dropout: float) -> None:
    ours, theirs = both_ways(decoder_of(score, layers, dropout).double().train())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_by_hand_equals_plain_steps_in_fp32() -> None:
    ours, theirs = both_ways(decoder_of(layers=2).train(), torch.float32)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_by_hand_rounds_no_more_than_plain_steps() -> None:
    """Products in bf16, and everything that is carried from step to step in fp32."""
    exact = both_ways(decoder_of(layers=2).double().train())[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = both_ways(decoder_of(layers=2).train(), torch.float32)
    for mine, other, best in zip([ours[0], *ours[2]], [theirs[0], *theirs[2]], [exact[0], *exact[2]], strict=True):
        assert mine.dtype == other.dtype
        assert (mine - best).norm() < 1.5 * (other - best).norm() + 1e-3
        assert (mine - best).norm() < 0.1 * best.norm()


def test_gradients_match_finite_differences() -> None:
    decoder = decoder_of(layers=2).double().eval()
    tgt_in, memory = given(torch.float64)
    learnt = [memory.states, memory.summary, *decoder.combine.parameters(), *decoder.layers[0].parameters()]

    def features(*_: Tensor) -> Tensor:
        return decoder(tgt_in, memory)[0]

    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(features, learnt)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "gru"},
        {"input_feeding": False},
        {"attention": {"score": "additive"}},
        {"attention": {"score": "activated_general"}},
        {"attention": {"score": "biased_general"}},
        {"attention": {"heads": 2}},
        {"attention": {"coverage": True}},
        {"attention": {"scope": "local_p"}},
        {"attention": {"selection": "hard"}},
        {"attention": {"normalizer": "sparsemax"}},
        {"attention": {"features": "multi_dimensional"}},
        {"attention": {"placement": "before"}},
        {"attention": {"score": "none"}},
    ],
)
def test_everything_else_goes_in_plain_steps(settings: dict[str, object]) -> None:
    assert not RnnDecoder(RnnDecoderConfig.model_validate({"width": 8, **settings}), 9, 6).by_hand
