"""Each architecture must learn to copy and to reverse: the whole path from batch to translation, with no text in it."""

import numpy as np
import pytest
import torch

from translate.config import ModelConfig, TrainConfig
from translate.decoding.greedy import greedy
from translate.decoding.scorer import Scorer
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq, Tokens
from translate.text.batches import Batch
from translate.training.loss import Objective, TensorBatch
from translate.training.optimizer import build_optimizer, set_lr
from translate.training.schedule import lr_at

CPU = torch.device("cpu")
SYMBOLS, LONGEST = 10, 7
RNN = {"kind": "rnn", "width": 64, "dropout": 0.0}
TRANSFORMER = {"kind": "transformer", "layers": 2, "width": 48, "heads": 4, "feed_forward": 96, "dropout": 0.0}
CONV = {"kind": "conv", "layers": 2, "width": 48, "dropout": 0.0}
KINDS = {"rnn": RNN, "conv": CONV, "transformer": TRANSFORMER}
TASKS = {"copy": slice(None), "reverse": slice(None, None, -1)}


def sentences(draw: np.random.Generator, count: int) -> list[list[int]]:
    return [list(draw.integers(4, 4 + SYMBOLS, draw.integers(2, LONGEST + 1))) for _ in range(count)]


def padded(rows: list[list[int]]) -> np.ndarray:
    longest = max(map(len, rows))
    return np.array([row + [0] * (longest - len(row)) for row in rows])


def batch_of(rows: list[list[int]], task: slice) -> Batch:
    targets = [row[task] for row in rows]
    return Batch(
        src=padded([[*row, 2] for row in rows]),
        src_lengths=np.array([len(row) + 1 for row in rows]),
        tgt_in=padded([[1, *row] for row in targets]),
        tgt_out=padded([[*row, 2] for row in targets]),
        tgt_lengths=np.array([len(row) + 1 for row in targets]),
        indices=np.arange(len(rows)),
        tokens=sum(len(row) + 1 for row in targets),
    )


def learn(kind: str, task: slice, steps: int) -> Seq2Seq:
    torch.manual_seed(1)
    draw = np.random.default_rng(1)
    model = build_model(ModelConfig.model_validate({"encoder": KINDS[kind], "decoder": KINDS[kind]}), 14, 14)
    train = TrainConfig(lr=5e-3, schedule="linear", warmup=40, max_steps=steps)
    optimizer, objective = build_optimizer(model, train), Objective(model, 0.0).train()
    for step in range(1, steps + 1):
        model.key_randomness(1, step, 0)
        optimizer.zero_grad()
        loss, tokens = objective(TensorBatch.of(batch_of(sentences(draw, 64), task), CPU))
        (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(optimizer, lr_at(step, train, 48))
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_learns(task: str, kind: str) -> None:
    model = learn(kind, TASKS[task], 500)
    rows = sentences(np.random.default_rng(2), 200)
    given = batch_of(rows, TASKS[task])
    src = Tokens(torch.from_numpy(given.src), torch.from_numpy(given.src_lengths), given.src.shape[1])
    with torch.inference_mode():
        hyps = greedy(Scorer([model]), src, LONGEST + 3)
    right = sum(hyp is not None and hyp.ids == list(row[TASKS[task]]) for hyp, row in zip(hyps, rows, strict=True))
    assert right >= 190, f"{right} of 200"
