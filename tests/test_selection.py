"""From scores to weights, and from weights to what is looked at: formulas, brute force, and statistics of the draws."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.attention_by_hand import sparsemax_of
from translate.config import AttentionConfig
from translate.models.dropout import Noise
from translate.models.scope import lowest
from translate.models.selection import Gumbel, Hard, Selection, build_selection, normalize, sparsemax

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-12)
D = 4


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- normalizers


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_sparsemax_is_the_nearest_distribution(length: int, spread: float) -> None:
    """Found by trying every support; its gradient is that of the support's formula."""
    scores, against = (spread * random(8, length)).requires_grad_(), random(8, length, seed=2)
    found = sparsemax(scores, -1)
    expected = torch.stack([torch.stack(sparsemax_of(list(row))) for row in scores])
    assert_equal(found, expected)
    ours = torch.autograd.grad((found * against).sum(), scores)[0]
    theirs = torch.autograd.grad((expected * against).sum(), scores)[0]
    assert_equal(ours, theirs)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_sparsemax_equals_the_entmax_package(dim: int) -> None:
    """An implementation that others keep well."""
    entmax = pytest.importorskip("entmax")
    for spread in (0.1, 1.0, 10.0):
        scores = (spread * random(7, 6, 5)).requires_grad_()
        against = random(7, 6, 5, seed=2)
        results = []
        for function in (sparsemax, entmax.sparsemax):
            weights = function(scores, dim=dim)
            results.append((weights, torch.autograd.grad((weights * against).sum(), scores)[0]))
        assert_equal(results[0], results[1])


def test_sparsemax_of_equal_scores_is_uniform_and_of_distant_ones_a_choice() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0], [5.0, 3.9, -2.0], [1e30, 1e30, 0.0]], dtype=torch.float64)
    expected = [[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    assert_equal(sparsemax(scores, -1), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("normalizer", ["softmax", "sparsemax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_hidden_has_no_weight_and_no_gradient(normalizer: str, dtype: torch.dtype) -> None:
    scores = random(3, 5).to(dtype).requires_grad_()
    hidden = torch.tensor([[0.0, 1, 0, 2, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]).to(dtype) * lowest(dtype)
    weights = normalize(scores + hidden, normalizer, -1)  # type: ignore[arg-type]
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert (weights[hidden < 0] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=weights.dtype))
    (weights * random(3, 5, seed=2)).sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[hidden < 0] == 0).all()


def test_softmax_equals_its_formula_along_any_dimension() -> None:
    scores = random(2, 3, 4)
    weights = normalize(scores, "softmax", -2)
    for b, s, i in product(range(2), range(3), range(4)):
        assert_equal(weights[b, s, i], scores[b, s, i].exp() / scores[b, :, i].exp().sum())


# --- selections


def weights_of(count: int = 1) -> Tensor:
    """Shares of five states of which the last is hidden, `count` times."""
    return torch.tensor([0.1, 0.4, 0.15, 0.35, 0.0], dtype=torch.float64).expand(count, 1, 5)


def hard(entropy_weight: float = 0.0, soft_share: float = 0.0) -> Hard:
    module = Hard(D, entropy_weight, soft_share).double()
    module.baseline.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    module.baseline.bias.data.fill_(0.3)
    return module


def keyed(module: Hard | Gumbel, *key: int) -> Hard | Gumbel:
    module.train()
    module.noise.key, module.noise.calls = key, 0
    return module


def chosen(module: Selection, weights: Tensor, query: Tensor | None = None) -> Tensor:
    return module(weights, torch.zeros(*weights.shape[:-1], D, dtype=torch.float64) if query is None else query)[0]


def test_soft_takes_the_weights_as_they_are() -> None:
    weights = weights_of()
    picked, aux = build_selection(AttentionConfig(), D)(weights, random(1, 1, D))
    assert picked is weights
    assert aux == {}


@pytest.mark.parametrize("module", [Hard(D, 0.5, 0.5).double(), Gumbel(0.5)])
def test_the_likeliest_is_chosen_in_evaluation(module: Selection) -> None:
    weights = torch.stack([weights_of()[0], torch.tensor([[0.0, 0.0, 0.7, 0.2, 0.1]], dtype=torch.float64)])
    picked, aux = module.eval()(weights, random(2, 1, D))
    assert picked.tolist() == [[[0, 1, 0, 0, 0]], [[0, 0, 1, 0, 0]]]
    assert aux == {}


@pytest.mark.parametrize("module", [hard(), Gumbel(0.5)])
@pytest.mark.parametrize("training", [False, True])
def test_where_nothing_is_visible_nothing_is_chosen(module: Hard | Gumbel, training: bool) -> None:
    weights = torch.zeros(1, 1, 5, dtype=torch.float64, requires_grad=True)
    module = keyed(module, 1) if training else module.eval()
    picked, aux = module(weights, random(1, 1, D))
    assert_equal(picked, torch.zeros_like(picked))
    assert all(tensor.isfinite().all() for tensor in aux.values())
    if training:
        sum(tensor.sum() for tensor in [picked, *aux.values()]).backward()
        assert weights.grad is not None
        assert weights.grad.isfinite().all()


@pytest.mark.parametrize("module", [hard(), Gumbel(0.5)])
def test_states_are_drawn_as_often_as_their_weights_say(module: Hard | Gumbel) -> None:
    """Frequencies within five standard deviations, from weights that need not sum to 1; one state at a time."""
    count, shares = 200_000, weights_of()[0, 0]
    picked = chosen(keyed(module, 7), 0.6 * weights_of(count)).detach().round()
    assert ((picked == 0) | (picked == 1)).all()
    assert (picked.sum(-1) == 1).all()
    frequency = picked.mean((0, 1))
    deviation = (shares * (1 - shares) / count).sqrt()
    assert ((frequency - shares).abs() <= 5 * deviation).all()
    assert frequency[4].item() == 0.0


@pytest.mark.parametrize("module", [hard(), Gumbel(0.5)])
def test_draws_are_a_function_of_the_key(module: Hard | Gumbel) -> None:
    weights = weights_of(200)
    first = chosen(keyed(module, 1, 2), weights)
    assert not torch.equal(chosen(module, weights), first)  # the second call of the same pass
    assert torch.equal(chosen(keyed(module, 1, 2), weights), first)
    assert not torch.equal(chosen(keyed(module, 1, 3), weights), first)


def test_neighbours_are_drawn_independently() -> None:
    picked = chosen(keyed(hard(), 3), weights_of(100_000)).argmax(-1).flatten()
    joint = torch.zeros(5, 5, dtype=torch.float64)
    joint.index_put_((picked[:-1], picked[1:]), torch.ones(len(picked) - 1, dtype=torch.float64), accumulate=True)
    shares = weights_of()[0, 0]
    expected = shares[:, None] * shares
    deviation = (expected / len(picked)).sqrt()
    assert ((joint / (len(picked) - 1) - expected).abs() <= 5 * deviation).all()


def test_noise_has_the_gumbel_distribution() -> None:
    """P(noise <= x) = exp(-exp(-x)); mean is Euler's constant, variance pi^2 / 6."""
    noise = Noise()
    noise.key = (1, 2)
    count = 400_000
    drawn = noise.gumbel(torch.empty(count, dtype=torch.float64))
    assert drawn.mean().item() == pytest.approx(0.5772156649, abs=5 * math.pi / math.sqrt(6 * count))
    assert drawn.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)
    for x in (-2.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        share = math.exp(-math.exp(-x))
        deviation = math.sqrt(share * (1 - share) / count)
        assert (drawn <= x).double().mean().item() == pytest.approx(share, abs=5 * deviation)


def test_what_hard_tells_the_loss() -> None:
    """log p of the choice, the weighted negative entropy, and a baseline that is linear in the query."""
    module, query = keyed(hard(0.7), 5), random(6, 1, D).requires_grad_()
    assert isinstance(module, Hard)
    weights = (0.6 * weights_of(6)).requires_grad_()
    picked, aux = module(weights, query)
    assert set(aux) == {"choice", "penalty", "baseline"}
    shares = [share.item() for share in weights_of()[0, 0]]
    entropy = -sum(share * math.log(share) for share in shares if share > 0)
    for b in range(6):
        place = int(picked[b, 0].argmax())
        assert aux["choice"][b, 0].item() == pytest.approx(math.log(shares[place]), abs=1e-12)
        assert aux["penalty"][b, 0].item() == pytest.approx(-0.7 * entropy, abs=1e-12)
        expected = sum((module.baseline.weight[0, i] * query[b, 0, i]).item() for i in range(D)) + 0.3
        assert aux["baseline"][b, 0].item() == pytest.approx(expected, abs=1e-12)
    assert not torch.autograd.grad(picked.sum(), weights)[0].any()
    aux["baseline"].sum().backward()
    assert query.grad is None  # what the baseline learns changes nothing else
    assert weights.grad is None


def test_gradients_of_what_hard_tells_the_loss() -> None:
    """Of log p of the choice and of the entropy, with respect to scores, against the same written out."""
    scores = random(5, 1, 4).requires_grad_()
    picked, aux = keyed(hard(0.7), 5)(scores.softmax(-1), random(5, 1, D))
    total = torch.zeros((), dtype=torch.float64)
    for b in range(5):
        exponentials = [scores[b, 0, s].exp() for s in range(4)]
        shares = [exponential / sum(exponentials) for exponential in exponentials]
        total = total + shares[int(picked[b, 0].argmax())].log()
        total = total + 0.7 * sum((share * share.log() for share in shares), torch.zeros(()))
    ours = torch.autograd.grad(aux["choice"].sum() + aux["penalty"].sum(), scores)[0]
    assert_equal(ours, torch.autograd.grad(total, scores)[0])


def test_now_and_then_hard_averages() -> None:
    """As often as it says, whatever would have been chosen; the loss then pays no choice, and no baseline learns."""
    count = 100_000
    module, weights = hard(0.7, soft_share=0.3), weights_of(count).clone().requires_grad_()
    keyed(module, 5)
    picked, aux = module(weights, torch.zeros(count, 1, D, dtype=torch.float64))
    averaged = (picked == weights).all(-1)
    assert averaged.double().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / count))
    assert ((picked == 1).sum(-1) == 1)[~averaged].all()
    assert (aux["choice"] == 0)[averaged].all()
    assert (aux["choice"] < 0)[~averaged].all()
    frequency = picked.detach()[~averaged].mean(0)
    torch.testing.assert_close(frequency, weights_of()[0, 0], rtol=0, atol=0.01)
    bias = torch.autograd.grad(aux["baseline"].sum(), module.baseline.bias, retain_graph=True)[0]
    assert bias.item() == (~averaged).sum()
    through = torch.autograd.grad(picked.sum(), weights)[0]
    assert_equal(through, averaged[..., None].double().expand_as(through))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_gumbel_chooses_and_sends_back_the_gradient_of_a_softmax(temperature: float) -> None:
    """The noise is drawn once more by the same key; from there on everything is written out."""
    module = keyed(Gumbel(temperature), 4, 2)
    weights, against = random(6, 3, 5).softmax(-1).requires_grad_(), random(6, 3, 5, seed=2)
    noise = Noise()
    noise.key = (4, 2)
    drawn = noise.gumbel(weights)
    picked = chosen(module, weights)
    total = torch.zeros((), dtype=torch.float64)
    for b, q in product(range(6), range(3)):
        perturbed = [weights[b, q, s].log() + drawn[b, q, s] for s in range(5)]
        best = max(range(5), key=lambda s: perturbed[s].item())
        assert_equal(picked[b, q], torch.eye(5, dtype=torch.float64)[best])
        exponentials = [(value / temperature).exp() for value in perturbed]
        total = total + sum(against[b, q, s] * exponentials[s] / sum(exponentials) for s in range(5))
    ours = torch.autograd.grad((picked * against).sum(), weights)[0]
    assert_equal(ours, torch.autograd.grad(total, weights)[0])


def test_each_selection_is_built_from_its_own_settings() -> None:
    built = build_selection(AttentionConfig(selection="hard", entropy_weight=0.25, soft_share=0.75), D)
    assert isinstance(built, Hard)
    assert (built.entropy_weight, built.soft_share) == (0.25, 0.75)
    built = build_selection(AttentionConfig(selection="gumbel", temperature=0.25), D)
    assert isinstance(built, Gumbel)
    assert built.temperature == 0.25
    assert list(built.parameters()) == []
