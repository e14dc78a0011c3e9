"""Is this working tree slower than an earlier version? Both train the same models in turns, on random ids.

    python scripts/bench/versions.py HEAD~1 [--pairs 12] [--threads 2]

Each version is a process of its own that stays alive; a turn is a few updates of one, then of the other, with who goes
first changing every turn. For each model: the median time of an update, the median of the paired ratios (now / before)
and a 95 % interval of their mean from the t distribution. Run it on an otherwise idle machine.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RNN = {"kind": "rnn", "width": 512}
TRANSFORMER = {"kind": "transformer", "width": 256, "layers": 3, "dropout": 0.3}
MODELS = {
    "rnn general, input feeding": {"encoder": RNN, "decoder": RNN},
    "rnn additive": {"encoder": RNN, "decoder": RNN | {"input_feeding": False, "attention": {"score": "additive"}}},
    "transformer 3 + 3": {"encoder": TRANSFORMER, "decoder": TRANSFORMER},
}
VOCABULARY, SENTENCES, LENGTH, UPDATES = 6000, 96, 16, 4
T_95 = {9: 2.262, 11: 2.201, 14: 2.145, 19: 2.093, 29: 2.045}
"""Quantiles of Student's t by degrees of freedom."""


def work(threads: int) -> None:
    """Answer each line `MODEL` on standard input with the seconds that UPDATES updates of it took."""
    import numpy as np
    import torch

    from translate.config import ModelConfig, TrainConfig
    from translate.device import resolve
    from translate.models import build_model
    from translate.text.batches import Batch
    from translate.training.loss import Objective, TensorBatch
    from translate.training.optimizer import build_optimizer

    machine = resolve("cpu", "auto", threads, "auto")
    ids = np.random.default_rng(1).integers(4, VOCABULARY, (SENTENCES, LENGTH))
    lengths = np.full(SENTENCES, LENGTH)
    batch = Batch(ids, lengths, ids, ids, lengths, np.arange(SENTENCES), SENTENCES * LENGTH)
    models = {}
    for name, parts in MODELS.items():
        torch.manual_seed(1)
        model = build_model(ModelConfig.model_validate(parts), VOCABULARY, VOCABULARY).train()
        models[name] = model, Objective(model, 0.1).train(), build_optimizer(model, TrainConfig(max_steps=1))
    print("ready", flush=True)
    for step, line in enumerate(sys.stdin):
        model, objective, optimizer = models[line.strip()]
        started = time.perf_counter()
        for number in range(UPDATES):
            model.key_randomness(1, step, number)
            optimizer.zero_grad(set_to_none=True)
            with machine.autocast():
                loss, tokens = objective(TensorBatch.of(batch, torch.device("cpu")))
            (loss / tokens).backward()
            optimizer.step()
        print(time.perf_counter() - started, flush=True)


def start(tree: Path, threads: int) -> subprocess.Popen[str]:
    """A worker that imports the package from `tree`, with its models built."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", "--threads", str(threads)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    worker = subprocess.Popen(
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    if worker.stdout.readline().strip() != "ready":
        raise SystemExit(f"the worker in {tree} did not start")
    return worker


def seconds(worker: subprocess.Popen[str], model: str) -> float:
    """One turn."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{model}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def compare(before: subprocess.Popen[str], now: subprocess.Popen[str], model: str, pairs: int) -> None:
    """Take turns and print the line of one model."""
    times: dict[str, list[float]] = {"before": [], "now": []}
    for turn in range(pairs + 2):
        order = [("before", before), ("now", now)]
        for name, worker in order if turn % 2 else reversed(order):
            taken = seconds(worker, model)
            if turn >= 2:  # the first turns warm caches up
                times[name].append(taken / UPDATES)
    ratios = [now / before for before, now in zip(times["before"], times["now"], strict=True)]
    freedom = max((known for known in T_95 if known <= pairs - 1), default=min(T_95))
    half = T_95[freedom] * statistics.stdev(ratios) / len(ratios) ** 0.5
    mean = statistics.mean(ratios)
    medians = ", ".join(f"{name} {1000 * statistics.median(taken):.0f} ms" for name, taken in times.items())
    spread = f"median {statistics.median(ratios):.3f}, mean {mean:.3f}, 95 % {mean - half:.3f} to {mean + half:.3f}"
    print(f"{model}: {medians}; now / before: {spread}", flush=True)


def main() -> None:
    """Unpack the earlier version, start both, and let them take turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", nargs="?", default="HEAD~1", help="a commit")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", arguments.before], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
            tree.extractall(folder, filter="data")
        before, now = start(Path(folder), arguments.threads), start(ROOT, arguments.threads)
        for model in MODELS:
            compare(before, now, model, arguments.pairs)
        before.kill()
        now.kill()


if __name__ == "__main__":
    main()
