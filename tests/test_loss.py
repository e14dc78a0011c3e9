"""The objective against F.cross_entropy on padded logits, and accumulation against one large batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from translate.config import ModelConfig
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq
from translate.text.batches import Batch
from translate.training.loss import Objective, TensorBatch

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
