"""translate train --dry-run: what a training will need, by a few updates of it that are forgotten at once.

The updates, the validation and the sizes are those of the training itself, so that what is measured is what will be.
Nothing is written into the run but what the tokenize stage makes.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from translate.bar import duration
from translate.config import Config, DecodeConfig, TrainConfig
from translate.device import deterministic, same_bits, tune_allocator
from translate.errors import UsageError, is_out_of_memory
from translate.models.seq2seq import Seq2Seq
from translate.run import RunDirectory
from translate.stages.rehearsal import rehearsal
from translate.stages.training import validator_of
from translate.text.arrays import Sequences
from translate.text.batches import Update
from translate.text.encoded import EncodedSplit
from translate.training import memory
from translate.training.distributed import Ranks
from translate.training.loop import Loop
from translate.training.micro_batches import worst_case
from translate.training.progress import Progress
from translate.training.tensorfile import NO_DIGEST
from translate.training.validation import Validator

WARM = 2
"""Updates before the clock is started."""
LOSS_SAMPLE = 200
"""Validation pairs whose loss is measured."""
KEPT = 0.75
"""What is left of the speed of two processes when they exchange gradients (a Transformer of width 256)."""
SLICES = 3
"""Batches of validation sentences that are translated, of short, middling and long ones."""


@dataclass(frozen=True)
class Forecast:
    """What a training will need from where it stands."""

    step: int
    probed: int
    """Updates that were made to find out."""
    memory: int | None
    """Bytes of the process at most; None where the system does not tell."""
    gpu: int | None
    """Bytes of the GPU at most, what PyTorch keeps in reserve included; None without one."""
    batch_tokens: int
    tokens_per_second: float
    """Real target tokens learnt from."""
    processes: int | None
    """Processes of one thread each that look faster than this one with as many; None where they do not."""
    epoch_updates: int
    epoch_seconds: float
    end: str | None
    """The setting that ends the training; None if none but `train.patience` does."""
    updates: int
    """From now to the end."""
    seconds: float
    """From now to the end, validations and checkpoints included."""
    validation_seconds: float
    checkpoints: int
    """Files that lie there at once, at most."""
    checkpoint_bytes: int
    """Of one file."""

    def summary(self) -> list[str]:
        """A few lines for the user."""
        known = "unknown on this system" if self.memory is None else f"{_megabytes(self.memory)} at most"
        gpu = "" if self.gpu is None else f", {_megabytes(self.gpu)} of the GPU"
        lines = [
            f"forecast from step {self.step}, by {self.probed} updates that were not kept",
            f"memory: {known}{gpu}",
            f"speed: {self.tokens_per_second:,.0f} target tokens a second, {self.batch_tokens:,} at once",
            *self._torchrun(),
            f"an epoch: {self.epoch_updates:,} updates in {duration(self.epoch_seconds)}",
        ]
        if self.end is None:
            lines.append("to the end: unknown, since train.patience alone decides")
        else:
            lines.append(
                f"to {self.end}: {self.updates:,} updates in {duration(self.seconds)}, with validations of "
                f"{duration(self.validation_seconds)}"
            )
        disk = self.checkpoints * self.checkpoint_bytes
        lines.append(
            f"checkpoints: {self.checkpoints} of {_megabytes(self.checkpoint_bytes)}, {_megabytes(disk)} at most"
        )
        return lines

    def _torchrun(self) -> list[str]:
        if self.processes is None:
            return []
        return [f"a process a core may be faster: torchrun --nproc-per-node {self.processes} -m translate train …"]


def forecast(config: Config, run: RunDirectory, seconds: float) -> Forecast:
    """Probe a training for about `seconds`, from its newest checkpoint if it has one. Tokenizes first if need be."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--dry-run looks at one process; start it without torchrun")
    tune_allocator()
    if config.train.init_from is not None and not run.checkpoint_list.exists():
        RunDirectory.open(Path(config.train.init_from))
    with run.create().locked(), same_bits(deterministic(config)):
        loop = rehearsal(config, run)
        start = replace(loop.progress)
        memory.forget_peak()
        _make_worst_update(loop)
        rate, probed = _learning_speed(loop, seconds)
        processes = _processes(loop, rate, seconds / 4)
        return _reckoned(loop, start, rate, probed, processes, _validation_seconds(loop))


def _make_worst_update(loop: Loop) -> None:
    """As much memory as an update can take: the largest micro-batch, while gradients of another are there.

    If that is too much, they are halved, as training would halve them.
    """
    step = loop.progress.step + 1
    while loop.progress.step < step:
        tokens = loop.micro_batches.at(step)
        worst = worst_case(loop.feed.plan, tokens, packed=loop.feed.packed)
        parts = [(0, worst), (1, worst)] if tokens < loop.feed.plan.update_tokens else [(0, worst)]
        update = Update(sum(batch.tokens for _, batch in parts), parts)
        fed = loop.feed.on_device(update, loop.feed.plan.after(loop.progress.turn))
        try:
            loop.update(fed)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if loop.progress.step < step:
            loop.halve(step, fed)


def _learning_speed(loop: Loop, seconds: float) -> tuple[float, int]:
    """Target tokens a second over updates that take about `seconds`, and the number of these updates."""
    for _ in range(WARM):
        loop.next_update()
    tokens, step, started = loop.progress.tokens, loop.progress.step, _now(loop)
    while time.monotonic() - started < seconds or loop.progress.step == step:
        loop.next_update()
    return (loop.progress.tokens - tokens) / max(_now(loop) - started, 1e-9), loop.progress.step - step


def _processes(loop: Loop, rate: float, seconds: float) -> int | None:
    """As many as there are threads, if they were chosen by measuring, and one alone is fast enough for that."""
    threads = loop.machine.threads
    if loop.machine.device != "cpu" or threads == 1 or loop.config.train.threads != "auto":
        return None
    torch.set_num_threads(1)
    alone, _ = _learning_speed(loop, seconds)
    torch.set_num_threads(threads)
    return threads if KEPT * threads * alone > 1.05 * rate else None


def _now(loop: Loop) -> float:
    """The clock, when all work that was given to the device is done."""
    if loop.machine.device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def _validation_seconds(loop: Loop) -> float:
    """How long the validation will take, by a sample of it.

    A model that has learnt nothing writes on to the limit, so translations are cut where the references end.
    """
    validator = validator_of(loop.config, loop.run, loop.machine, Ranks())
    model = loop.learner.model.eval()
    with torch.no_grad():
        lengths = validator.split.tgt_lengths
        chosen = lengths.argsort(kind="stable")[:: -max(1, len(lengths) // LOSS_SAMPLE)]  # the longest is among them
        pairs = validator.split
        sample = EncodedSplit(
            Sequences.of([pairs.src(int(i)).tolist() for i in chosen], pairs.sources.items.dtype),
            Sequences.of([pairs.tgt(int(i)).tolist() for i in chosen], pairs.targets.items.dtype),
            (len(chosen),),
            (1.0,),
        )
        started = _now(loop)
        replace(validator, split=sample).loss(model, loop.check)
        of_loss = (_now(loop) - started) * float(lengths.sum() / lengths[chosen].sum())
        return of_loss + _translation_seconds(loop, validator, model)


def _translation_seconds(loop: Loop, validator: Validator, model: Seq2Seq) -> float:
    """For all sentences that are translated, by a few batches of like length."""
    tokenizer, size = loop.learner.tokenizer, DecodeConfig().batch_size
    lines = sorted(zip(validator.src, validator.refs, strict=True), key=lambda pair: len(pair[0]))
    count = min(SLICES, -(-len(lines) // size))
    taken, seconds = 0, 0.0
    for part in range(count):
        end = max(min(size, len(lines)), len(lines) * (part + 1) // count)
        batch = lines[max(0, end - size) : end]
        longest = max(len(tokenizer.encode_tgt(ref)) for _, ref in batch) + 1
        limits = loop.config.decode.model_copy(update={"max_length": min(longest, loop.config.decode.max_length)})
        cut = loop.config.model_copy(update={"decode": limits})
        part_of = replace(validator, config=cut, src=[src for src, _ in batch], refs=[ref for _, ref in batch])
        started = _now(loop)
        part_of.bleu(model, tokenizer, loop.check)
        seconds += _now(loop) - started
        taken += len(batch)
    return seconds * len(lines) / taken if taken else 0.0


@dataclass(frozen=True)
class _Costs:
    """What parts of the training take, in seconds, and what they are made of."""

    update: float
    validation: float
    save: float
    update_tokens: float
    """Real target tokens of an update, on average."""
    epoch_tokens: float

    def seconds(self, first: int, updates: int, train: TrainConfig) -> float:
        """For updates from step `first` on, with the validations and checkpoints among them and at the end."""
        last = first + updates
        validations = _multiples(train.validate_every, first, last) + (last % train.validate_every > 0)
        both = math.lcm(train.validate_every, train.save_every)
        saves = validations + _multiples(train.save_every, first, last) - _multiples(both, first, last)
        return updates * self.update + validations * self.validation + saves * self.save

    def ends(self, start: Progress, train: TrainConfig) -> Iterator[tuple[float, int, str]]:
        """Seconds, updates and setting of everything that will end the training, but for patience."""
        if train.max_steps is not None:
            updates = max(0, train.max_steps - start.step)
            yield self.seconds(start.step, updates, train), updates, f"train.max_steps ({train.max_steps})"
        if train.max_epochs is not None:
            updates = max(0, math.ceil((train.max_epochs * self.epoch_tokens - start.tokens) / self.update_tokens))
            yield self.seconds(start.step, updates, train), updates, f"train.max_epochs ({train.max_epochs})"
        if train.max_minutes is not None:
            seconds = max(0.0, 60 * train.max_minutes - start.seconds)
            among = 1000 * train.validate_every  # enough for validations and checkpoints to have their share
            updates = int(seconds / (self.seconds(0, among, train) / among))
            yield seconds, updates, f"train.max_minutes ({train.max_minutes:g})"


def _multiples(of: int, first: int, last: int) -> int:
    """How many multiples there are above `first` and up to `last`."""
    return last // of - first // of


def _reckoned(
    loop: Loop, start: Progress, rate: float, probed: int, processes: int | None, validation: float
) -> Forecast:
    """Put together what was measured; the training stands at `start`, the loop has gone on from there."""
    train, plan, device = loop.config.train, loop.feed.plan, torch.device(loop.machine.device)
    size = checkpoint_bytes(loop)
    update = (loop.progress.tokens - start.tokens) / (loop.progress.step - start.step)
    epoch = len(plan.split.pairs(plan.seed, start.turn.epoch)) * plan.split.mean_tgt_length
    costs = _Costs(update / rate, validation, _hashing_seconds(size), update, epoch)
    seconds, updates, end = min(costs.ends(start, train), default=(0.0, 0, None))
    return Forecast(
        step=start.step,
        probed=probed,
        memory=memory.peak(),
        gpu=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
        batch_tokens=loop.micro_batches.at(start.step + 1),
        tokens_per_second=rate,
        processes=processes,
        epoch_updates=round(epoch / update),
        epoch_seconds=epoch / rate,
        end=end,
        updates=updates,
        seconds=seconds,
        validation_seconds=validation,
        checkpoints=_files(train, costs, start.step + updates if end else None),
        checkpoint_bytes=size,
    )


def _files(train: TrainConfig, costs: _Costs, last: int | None) -> int:
    """Checkpoints that lie there at once, at most.

    Those that are kept, the best one, one by the clock if that is faster than `save_every`, and for a moment a new one.
    """
    due = train.keep_last if last is None else min(train.keep_last, -(-last // train.save_every))
    by_clock = costs.update * train.save_every > 60 * train.save_minutes
    return due + 1 + by_clock + 1


def checkpoint_bytes(loop: Loop) -> int:
    """Size of one checkpoint: its tensors, and the header that names each with its place and digest."""
    header: dict[str, object] = {}
    end = 0
    for name, tensor in loop.learner.tensors().items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    digests = json.dumps(dict.fromkeys(header, NO_DIGEST))
    progress = json.dumps(loop.progress.to_json())
    header["__metadata__"] = {"config": loop.config.model_dump_json(), "progress": progress, "digests": digests}
    return end + len(json.dumps(header, separators=(",", ":")))


def _hashing_seconds(size: int) -> float:
    """What a checkpoint takes without a disk that is slower than its digests."""
    piece = bytes(2**22)
    started = time.monotonic()
    hashlib.sha256(piece).digest()
    return (time.monotonic() - started) * size / len(piece)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 10e6 else f"{count / 1e6:,.2f} MB"
