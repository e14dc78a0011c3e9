"""Time and memory of one model at one length, in a process of its own: what sequences.py runs for each point.

    python scripts/experiments/cost.py CONFIG LENGTH

Random ids; a batch has TOKENS tokens on each side whatever the length. Prints JSON: target tokens a second of a forward
and backward pass, the memory it needs in MiB (the highest resident size less that before), and greedy steps a second of
DECODED sentences, as many as the source is long. fp32, all cores.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from record import cores

from translate.config.reader import load_config
from translate.device import limit_kernel_cache, tune_allocator
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq, Tokens
from translate.training.loss import Objective, TensorBatch

TOKENS, DECODED, VOCABULARY = 2048, 8, 6000
LEAST_SECONDS, LEAST_PASSES = 3.0, 3


def ids(sentences: int, length: int) -> Tokens:
    """Random words, no padding."""
    lengths = torch.full((sentences,), length)
    return Tokens(torch.randint(4, VOCABULARY, (sentences, length)), lengths, length)


def train_pass(objective: Objective, src: Tokens) -> float:
    """Seconds of a forward and backward pass in which the target is as long as the source."""
    flat = src.ids.flatten()
    batch = TensorBatch(src, src, flat, torch.arange(len(flat)), len(flat))
    objective.zero_grad(set_to_none=True)
    objective.model.key_randomness(1, 0, 0)
    started = time.perf_counter()
    loss, _ = objective(batch)
    loss.backward()
    return time.perf_counter() - started


def resident(field: str) -> float:
    """MiB from /proc: VmRSS is now, VmHWM the most there ever was (of this program, not of the one that started it)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


@torch.no_grad()
def decode(model: Seq2Seq, src: Tokens) -> float:
    """Seconds of as many greedy steps as the source is long."""
    started = time.perf_counter()
    memory = model.encoder(src)
    state = model.decoder.start(memory, src.longest)
    token = src.ids[:, :1]
    for place in range(src.longest):
        features, state = model.decoder.step(token, memory, state, place)
        token = model.project(features).argmax(-1)
    return time.perf_counter() - started


def measure(config: Path, length: int) -> dict[str, float]:
    """All figures of one point."""
    limit_kernel_cache()
    tune_allocator()
    torch.set_num_threads(cores())
    torch.manual_seed(1)
    model = build_model(load_config(config).model, VOCABULARY, VOCABULARY)
    objective = Objective(model, 0.1).train()
    train_pass(objective, ids(1, 4))  # what is loaded once
    before = resident("VmRSS")
    src = ids(max(1, TOKENS // length), length)
    passes = [train_pass(objective, src)]
    needed = resident("VmHWM") - before
    while len(passes) < LEAST_PASSES + 1 or sum(passes) < LEAST_SECONDS:
        passes.append(train_pass(objective, src))
    model.eval()
    few = ids(DECODED, length)
    decode(model, ids(DECODED, 4))
    searches = [decode(model, few)]
    while sum(searches) < LEAST_SECONDS:
        searches.append(decode(model, few))
    return {
        "train_tokens_per_second": src.ids.numel() / statistics.median(passes[1:]),
        "memory_mib": needed,
        "steps_per_second": length / statistics.median(searches),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
