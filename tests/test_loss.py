"""The objective against F.cross_entropy on padded logits, accumulation against one large batch, and sampled choices.

What a choice costs is known only by where it led. Its gradient is held to the exact one of the expected loss: in a
model this small every sequence of choices can be gone through.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from translate.config import AttentionConfig, ModelConfig
from translate.models import build_model
from translate.models.attention import Attention
from translate.models.dropout import Noise
from translate.models.selection import Hard, Selection
from translate.models.seq2seq import Aux, Seq2Seq, Tokens
from translate.text.batches import Batch
from translate.training.loss import Objective, TensorBatch, auxiliary_loss

CPU = torch.device("cpu")
PART = {"kind": "transformer", "layers": 1, "width": 8, "heads": 2, "feed_forward": 16, "dropout": 0.0}


def model() -> Seq2Seq:
    torch.manual_seed(3)
    return build_model(ModelConfig.model_validate({"encoder": PART, "decoder": PART}), 11, 11).double()


def batch(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    """Pad [source with EOS], [target] as `text/batches.py` does."""
    src_lengths = np.array([len(src) for src, _ in pairs])
    tgt_lengths = np.array([len(tgt) + 1 for _, tgt in pairs])

    def padded(rows: list[list[int]]) -> np.ndarray:
        return np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])

    return Batch(
        src=padded([src for src, _ in pairs]),
        src_lengths=src_lengths,
        tgt_in=padded([[1, *tgt] for _, tgt in pairs]),
        tgt_out=padded([[*tgt, 2] for _, tgt in pairs]),
        tgt_lengths=tgt_lengths,
        indices=np.arange(len(pairs)),
        tokens=int(tgt_lengths.sum()),
    )


PAIRS = [([4, 5, 2], [6, 7, 8]), ([9, 2], [4]), ([4, 4, 4, 4, 2], [5, 5, 10, 10, 4]), ([3, 2], [])]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_cross_entropy_over_real_tokens(smoothing: float) -> None:
    seq2seq, given = model(), TensorBatch.of(batch(PAIRS), CPU)
    objective = Objective(seq2seq, smoothing).train()
    seq2seq.key_randomness(1, 1, 0)
    loss, tokens = objective(given)
    assert tokens == given.tokens == 4 + 2 + 6 + 1
    features, _ = seq2seq(given.src, given.tgt_in)
    logits = seq2seq.project(features)
    tgt_out = torch.from_numpy(batch(PAIRS).tgt_out)
    expected = F.cross_entropy(logits.flatten(0, 1).float(), tgt_out.flatten(), ignore_index=0, reduction="sum",
                               label_smoothing=smoothing)  # fmt: skip
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_label_smoothing_is_a_mixture_with_the_uniform_distribution() -> None:
    seq2seq, given = model(), TensorBatch.of(batch(PAIRS[:1]), CPU)
    seq2seq.key_randomness(1, 1, 0)
    features, _ = seq2seq(given.src, given.tgt_in)
    log_probs = seq2seq.project(features)[0].log_softmax(-1)
    wanted = -sum((0.9 * log_probs[t, word] + 0.1 * log_probs[t].mean()).item() for t, word in enumerate([6, 7, 8, 2]))
    loss, _ = Objective(seq2seq, 0.1).train()(given)
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_evaluation_mode_is_plain_likelihood() -> None:
    seq2seq, given = model(), TensorBatch.of(batch(PAIRS), CPU)
    smoothed, plain = Objective(seq2seq, 0.3).eval(), Objective(seq2seq, 0.0).eval()
    assert smoothed(given)[0].item() == plain(given)[0].item()


def test_accumulation_sums_losses_and_divides_once() -> None:
    def gradient(parts: list[list[tuple[list[int], list[int]]]]) -> torch.Tensor:
        seq2seq = model()
        objective = Objective(seq2seq, 0.1).train()
        batches = [TensorBatch.of(batch(part), CPU) for part in parts]
        tokens = sum(one.tokens for one in batches)
        for one in batches:
            seq2seq.key_randomness(1, 1, 0)
            (objective(one)[0] / tokens).backward()
        return torch.cat([p.grad.flatten() for p in seq2seq.parameters() if p.grad is not None])

    together = gradient([PAIRS])
    for parts in ([PAIRS[:1], PAIRS[1:]], [[pair] for pair in PAIRS], [PAIRS[:3], PAIRS[3:]]):
        torch.testing.assert_close(gradient(parts), together, rtol=1e-5, atol=1e-7)


# --- what attention that chooses adds


def test_what_is_added_equals_its_formula() -> None:
    """By loops over sentences and positions; padding adds nothing, and only the baseline learns from what came."""
    given = TensorBatch.of(batch(PAIRS), CPU)
    shape, lengths = given.tgt_in.ids.shape, given.tgt_in.lengths.tolist()
    generator = torch.Generator().manual_seed(4)
    losses = torch.rand(given.tokens, generator=generator)
    for name, layers in (("lone_choice", ()), ("choice", ()), ("choice", (2,))):
        aux = {key: torch.randn((*shape, *layers), generator=generator).requires_grad_() for key in (name, "baseline")}
        aux["penalty"] = torch.randn(shape, generator=generator).requires_grad_()
        paid, learnt, place = torch.zeros(()), torch.zeros(()), 0
        for b, length in enumerate(lengths):
            costs = [losses[place + t] + aux["penalty"][b, t].detach() for t in range(length)]
            place += length
            for t in range(length):
                led_to = costs[t] if name == "lone_choice" else sum(costs[t:], torch.zeros(()))
                paid = paid + aux["penalty"][b, t]
                choices, baselines = aux[name][b, t].view(-1), aux["baseline"][b, t].view(-1)
                for choice, baseline in zip(choices, baselines, strict=True):
                    paid = paid + choice * (led_to - baseline.detach())
                    error = (led_to - baseline).abs()
                    learnt = learnt + (error - 0.5 if error > 1 else 0.5 * error**2)
        found = auxiliary_loss(aux, losses, given)
        assert found.item() == pytest.approx((paid + learnt).item(), rel=1e-5)
        ours, theirs = (torch.autograd.grad(total, list(aux.values())) for total in (found, paid + learnt))
        torch.testing.assert_close(ours, theirs)


class Forced(Selection):
    """Takes the choices it is given, and works out how likely each sentence's are; one past the last is to average."""

    def __init__(self, choices: Tensor, config: AttentionConfig) -> None:
        super().__init__()
        self.choices = choices  # (B, T), or with heads (B, H, T)
        self.entropy_weight, self.soft_share = config.entropy_weight, config.soft_share
        self.probability = torch.ones(choices.size(0), dtype=torch.float64)
        self.at = 0

    def forward(self, weights: Tensor, query: Tensor) -> tuple[Tensor, Aux]:
        now = self.choices[..., self.at : self.at + weights.size(-2)]
        self.at += weights.size(-2)
        shares = weights / weights.sum(-1, keepdim=True)
        average, places = now == weights.size(-1), weights.size(-1)
        chosen = F.one_hot(now.clamp_max(places - 1), places).to(weights.dtype)
        probability = torch.where(average, self.soft_share, (1 - self.soft_share) * (chosen * shares).sum(-1))
        self.probability = self.probability * probability.flatten(1).prod(1)
        entropy = -(shares * torch.where(shares > 0, shares, 1.0).log()).sum(-1)
        return torch.where(average[..., None], weights, chosen), {"penalty": -self.entropy_weight * entropy}


class Scripted(Noise):
    """Noise that leaves no doubt which state is drawn."""

    def __init__(self, choices: Tensor) -> None:
        super().__init__()
        self.choices = choices
        self.at = 0
        self.average = torch.tensor(False)

    def gumbel(self, like: Tensor) -> Tensor:
        now, places = self.choices[..., self.at : self.at + like.size(-2)], like.size(-1)
        self.at += like.size(-2)
        self.average = now == places
        return 1e6 * F.one_hot(now.clamp_max(places - 1), places).to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.where(self.average[..., None], 0.0, 1.0).to(like.dtype)


SMOOTHING = 0.1
ENCODER = {"kind": "rnn", "width": 4, "dropout": 0.0}
RNN = {"kind": "rnn", "width": 4, "dropout": 0.0}
CONV = {"kind": "conv", "layers": 2, "width": 4, "dropout": 0.0}
TRANSFORMER = {"kind": "transformer", "layers": 2, "width": 4, "heads": 1, "feed_forward": 4, "dropout": 0.0}


@dataclass(frozen=True)
class Chooser:
    """A decoder whose attention chooses one of `places` source words at each of `times` outputs."""

    decoder: dict[str, object]
    attention: dict[str, object]
    places: int = 3
    times: int = 3

    def model(self, penalties: bool) -> Seq2Seq:
        """Always the same one; its baseline is as wrong as can be, which may cost variance and nothing else."""
        torch.manual_seed(2)
        weights = {"entropy_weight": 0.3, "coverage_weight": 0.8, "soft_share": 0.3} if penalties else {}
        plain = {"selection": "hard", "entropy_weight": 0.0, "coverage_weight": 0.0, "soft_share": 0.0}
        attention = plain | self.attention | weights
        parts = {"encoder": ENCODER, "decoder": self.decoder | {"attention": attention}, "tie": "none"}
        seq2seq = build_model(ModelConfig.model_validate(parts), 7, 7).double().train()
        for name, parameter in seq2seq.named_parameters():
            parameter.data.add_((1.5 if "baseline" in name else 0.5) * torch.randn_like(parameter))
        return seq2seq

    def copies(self, count: int, padding: int = 0) -> TensorBatch:
        """The same pair many times: each row is a sample, or a sequence of choices."""
        src, tgt, pad = [3, 4, 5, 6][: self.places - 1], [5, 4, 3, 6][: self.times - 1], [0] * padding
        arrays = Batch(
            src=np.tile([*src, 2], (count, 1)),
            src_lengths=np.full(count, self.places),
            tgt_in=np.tile([1, *tgt, *pad], (count, 1)),
            tgt_out=np.tile([*tgt, 2, *pad], (count, 1)),
            tgt_lengths=np.full(count, self.times),
            indices=np.arange(count),
            tokens=count * self.times,
        )
        return TensorBatch.of(arrays, CPU)

    def every_choice(self, seq2seq: Seq2Seq) -> list[Tensor]:
        """For each attention of the model its choices (N, T) or (N, H, T) in each of all N sequences of choices."""
        heads = [attention.heads for attention in attentions(seq2seq)]
        ways = self.places + (attentions(seq2seq)[0].config.soft_share > 0)
        grid = torch.tensor(list(itertools.product(range(ways), repeat=self.times * sum(heads))))
        parts = grid.split([self.times * count for count in heads], 1)
        return [
            part.unflatten(1, (count, self.times)) if count > 1 else part
            for part, count in zip(parts, heads, strict=True)
        ]


CHOOSERS = {
    "feeding": Chooser(RNN, {}),
    "alone": Chooser(RNN | {"input_feeding": False}, {"score": "additive"}),
    "before": Chooser(RNN, {"score": "dot", "placement": "before"}),
    "heads": Chooser(RNN, {"heads": 2}, places=2, times=2),
    "coverage": Chooser(RNN | {"input_feeding": False}, {"coverage": True}),
    "local": Chooser(RNN, {"scope": "local_p", "window": 2}),
    "sparsemax": Chooser(RNN | {"cell": "gru"}, {"score": "activated_general", "normalizer": "sparsemax"}),
    "conv": Chooser(CONV, {"score": "general"}, times=2),
    "transformer": Chooser(TRANSFORMER, {"score": "general", "coverage": True}, times=2),
}


def attentions(seq2seq: Seq2Seq) -> list[Attention]:
    return [module for module in seq2seq.modules() if isinstance(module, Attention)]


def gradient(loss: Tensor, seq2seq: Seq2Seq) -> Tensor:
    """Of all parameters in one row, but for those of the baseline, which has a loss of its own."""
    of = [parameter for name, parameter in seq2seq.named_parameters() if "baseline" not in name]
    found = torch.autograd.grad(loss, of, allow_unused=True)
    pairs = zip(found, of, strict=True)
    return torch.cat([(torch.zeros_like(one) if grad is None else grad).flatten() for grad, one in pairs])


def exact_gradient(case: Chooser, penalties: bool) -> tuple[Tensor, Tensor]:
    """Of the expected loss: the sum over all sequences of choices, of their probability times the loss they lead to.

    Also the probabilities (N,).
    """
    seq2seq = case.model(penalties)
    forced = []
    for attention, choices in zip(attentions(seq2seq), case.every_choice(seq2seq), strict=True):
        attention.selection = Forced(choices, attention.config)
        forced.append(attention.selection)
    count = forced[0].choices.size(0)
    given = case.copies(count)
    features, aux = seq2seq(given.src, given.tgt_in)
    log_words = seq2seq.project(features).log_softmax(-1)
    of_words = log_words.gather(-1, given.tgt_out.view(count, -1, 1)).squeeze(-1)
    losses = -(1 - SMOOTHING) * of_words - SMOOTHING * log_words.mean(-1) + aux["penalty"]
    probabilities = torch.stack([one.probability for one in forced]).prod(0)
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-10)
    return gradient((probabilities * losses.sum(1)).sum(), seq2seq), probabilities.detach()


def expected_gradient(case: Chooser, seq2seq: Seq2Seq, probabilities: Tensor) -> Tensor:
    """What training takes for each sequence of choices, weighted by how likely it is."""
    objective, given = Objective(seq2seq, SMOOTHING).train(), case.copies(1, padding=1)
    choices = [F.pad(one, (0, 1)) for one in case.every_choice(seq2seq)]
    expected = torch.zeros((), dtype=torch.float64)
    for row, probability in enumerate(probabilities):
        for attention, of_attention in zip(attentions(seq2seq), choices, strict=True):
            assert isinstance(attention.selection, Hard)
            attention.selection.noise = Scripted(of_attention[row : row + 1])
        if probability > 0:
            expected = expected + probability * gradient(objective(given)[0], seq2seq)
    return expected


@pytest.mark.parametrize("penalties", [False, True], ids=["", "penalties"])
@pytest.mark.parametrize("name", CHOOSERS)
def test_the_expected_gradient_of_choices_is_that_of_the_expected_loss(name: str, penalties: bool) -> None:
    """Exact but for the loss, which is in fp32; also for the entropy term, for repetitions that choices lead to, and
    where some of the time nothing is chosen.
    """
    case = CHOOSERS[name]
    exact, probabilities = exact_gradient(case, penalties)
    expected = expected_gradient(case, case.model(penalties), probabilities)
    assert (expected - exact).norm() < 1e-6 * exact.norm()


def test_paying_a_choice_for_its_own_word_only_would_be_wrong() -> None:
    """Where later steps know of it: the test above can fail."""
    case = CHOOSERS["feeding"]
    seq2seq = case.model(False)
    exact, probabilities = exact_gradient(case, False)
    forward = seq2seq.forward

    def short_sighted(src: Tokens, tgt_in: Tokens) -> tuple[Tensor, Aux]:
        features, aux = forward(src, tgt_in)
        aux["lone_choice"] = aux.pop("choice")
        return features, aux

    seq2seq.forward = short_sighted  # type: ignore[method-assign, assignment]
    expected = expected_gradient(case, seq2seq, probabilities)
    assert (expected - exact).norm() > 1e-2 * exact.norm()


def estimates(seq2seq: Seq2Seq, case: Chooser, count: int, batches: int) -> Tensor:
    """The mean gradient that training takes from `count` samples, for each of `batches` keys: (batches, parameters)."""
    objective, given, found = Objective(seq2seq, SMOOTHING).train(), case.copies(count, padding=1), []
    for key in range(batches):
        seq2seq.key_randomness(1, key, 0)
        found.append(gradient(objective(given)[0] / count, seq2seq))
    return torch.stack(found)


def deviation(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """How far the mean is from the exact gradient in standard errors, and how large those are beside the gradient."""
    error = (found.var(0) / len(found)).sum().sqrt()
    return float((found.mean(0) - exact).norm() / error), float(error / exact.norm())


@pytest.mark.parametrize("name", CHOOSERS)
def test_the_gradient_of_sampled_choices_is_right_in_the_mean(name: str) -> None:
    """Drawn by key as in training; what is left of the noise is a few per cent of the gradient."""
    case = CHOOSERS[name]
    exact, _ = exact_gradient(case, False)
    errors, size = deviation(estimates(case.model(False), case, 1000, 30), exact)
    assert size < 0.05
    assert errors < 2.5


def test_which_choices_are_paid_for_their_own_word_only() -> None:
    """Those that no later step can know of: less noise, and as right in the mean."""
    found = {}
    for name, case in CHOOSERS.items():
        given = case.copies(1)
        seq2seq = case.model(False)
        seq2seq.key_randomness(1, 1, 0)
        found[name] = set(seq2seq(given.src, given.tgt_in)[1]) - {"baseline", "penalty"}
    assert found == {name: {"lone_choice" if name == "alone" else "choice"} for name in CHOOSERS}


def test_evaluation_adds_nothing() -> None:
    """Validation is the likelihood under the likeliest choices, whatever the weights of penalties."""
    case = CHOOSERS["coverage"]
    losses = [Objective(case.model(penalties), SMOOTHING).eval()(case.copies(2))[0] for penalties in (False, True)]
    assert losses[0].item() == losses[1].item()
