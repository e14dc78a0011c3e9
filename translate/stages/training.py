"""translate train: encoded text in, checkpoints out; goes on where an earlier run stopped."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from translate.bar import Bar, note
from translate.config import Config
from translate.config.rules import differences
from translate.device import Machine, deterministic, resolve_for_training, same_bits, tune_allocator
from translate.errors import CheckpointError, ConfigError, TryAgainError
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq
from translate.run import EventLog, RunDirectory
from translate.stages.tokenization import keep_config, refuse_changes, tokenize
from translate.text.batches import SETUP, BatchPlan
from translate.text.encoded import data_digest, load_split, raw_texts
from translate.text.lines import read_lines
from translate.text.tokenizer import Tokenizer
from translate.training.averaging import MovingAverage
from translate.training.checkpoint import Learner, load_model, load_weights, newest_sound, saved_config
from translate.training.compiled import kernels_in
from translate.training.curves import Curves
from translate.training.distributed import Ranks, in_contact, joined
from translate.training.feed import Feed
from translate.training.guard import LossScale
from translate.training.loop import Loop
from translate.training.loss import Objective, packs
from translate.training.micro_batches import MicroBatches, Trial, fitting
from translate.training.optimizer import build_optimizer
from translate.training.progress import Progress
from translate.training.rank_record import recorded
from translate.training.signals import Signals
from translate.training.tensorfile import TensorFile
from translate.training.validation import Validator, first_lines

WAY_ON = (
    "why each one ended stands in ranks/ of the run directory, and the same command goes on from the last checkpoint"
)
"""For who has lost the other processes."""


@dataclass(frozen=True)
class TrainingReport:
    """What training came to."""

    run: Path
    reason: str
    progress: Progress
    best: str
    ran: bool

    def summary(self) -> list[str]:
        """A few lines for the user."""
        state = "training ended" if self.ran else "nothing to do, training had ended"
        lines = [f"{state} at step {self.progress.step}: {self.reason}"]
        step = self.progress.best_step(self.best)
        for validation in self.progress.validations:
            if validation.step == step:
                bleu = "" if validation.bleu is None else f", greedy BLEU {validation.bleu:.2f}"
                lines.append(f"best checkpoint: step {step}, validation loss {validation.loss:.4f}{bleu}")
        lines.append(f"run: {self.run}")
        lines.append(f"next: translate eval --run {self.run}")
        return lines


def train(config: Config, run: RunDirectory) -> TrainingReport:
    """Train, or go on training, until the settings say stop. Does a missing or stale tokenize first.

    Under torchrun every process comes here; the first holds the run, and makes what is missing while the others wait.
    """
    tune_allocator()
    if config.train.init_from is not None and not run.checkpoint_list.exists():
        RunDirectory.open(Path(config.train.init_from))
    with (
        joined(config.device) as ranks,
        _held(run.create(), ranks),
        recorded(run, ranks),
        in_contact(ranks, WAY_ON),
    ):
        saved = _prepare(config, run, ranks) if ranks.first else None
        ranks.wait()
        if not ranks.first:
            saved, _ = newest_sound(run)
        _agree(run, saved, ranks)
        machine = resolve_for_training(config, run, ranks.on_this_machine)
        with Signals() as signals, same_bits(deterministic(config)), _kernels(run, machine, ranks):
            return _train(config, run, saved, machine, signals, ranks)


@contextlib.contextmanager
def _held(run: RunDirectory, ranks: Ranks) -> Iterator[None]:
    """Hold the run for all ranks before any of them writes there, its record too: others may be at work on the run."""
    with run.locked() if ranks.first else contextlib.nullcontext():
        with in_contact(ranks, "the message of the first one says why"):
            ranks.wait()
        yield


def _agree(run: RunDirectory, saved: TensorFile | None, ranks: Ranks) -> None:
    """Raise TryAgainError unless all ranks go on from one checkpoint. Here they also wait until all have read it."""
    if len(set(ranks.in_turn(["none" if saved is None else saved.metadata["header_sha256"]]))) > 1:
        raise TryAgainError(
            f"{run.root}: the processes do not all find the same newest checkpoint sound; make sure that every machine "
            "can read it, and run the same command again"
        )


def _prepare(config: Config, run: RunDirectory, ranks: Ranks) -> TensorFile | None:
    """Make the data, measure the machine, and say so; the checkpoint to go on from."""
    saved, lines = newest_sound(run)
    if saved is not None:
        lines += compare(saved, config, run, ranks)
    tokenized = tokenize(config, run)
    for line in lines + ([] if tokenized.skipped else tokenized.summary()[:-1]):
        note(line)
    resolve_for_training(config, run, ranks.on_this_machine)
    return saved


def _kernels(run: RunDirectory, machine: Machine, ranks: Ranks) -> contextlib.AbstractContextManager[None]:
    """Where this rank's compiled kernels are kept; to be entered before anything is compiled."""
    return kernels_in(run.compiled / str(ranks.number)) if machine.device == "cuda" else contextlib.nullcontext()


def _train(
    config: Config, run: RunDirectory, saved: TensorFile | None, machine: Machine, signals: Signals, ranks: Ranks
) -> TrainingReport:
    """Train on what is prepared."""
    learner, objective = build_learner(config, Tokenizer.open(run.tokenizer), machine, ranks, fresh=saved is None)
    log = EventLog(run.log_file, mute=not ranks.first)
    restore(learner, log, saved, run)
    reason = learner.progress.stop_reason(config.train)
    if ranks.first:
        keep_config(run, config)
    if reason is not None and learner.progress.validated():
        if not log.grown():  # killed between the last checkpoint and the last line of the log
            log.append("finished", step=learner.progress.step, reason=reason)
        return TrainingReport(run.root, reason, learner.progress, config.train.best, ran=False)
    if ranks.first:
        announce(learner, machine, saved, ranks)
    reason = _go_on(config, run, learner, objective, machine, log, signals, ranks)
    return TrainingReport(run.root, reason, learner.progress, config.train.best, ran=True)


def compare(saved: TensorFile, now: Config, run: RunDirectory, ranks: Ranks) -> list[str]:
    """Warnings for what may change when a run goes on. Raises ConfigError for what may not."""
    before = saved_config(saved)
    refuse_changes(before, now, run)
    changed = differences(before, now).warned
    if (count := saved.metadata["ranks"]) != str(ranks.count):
        changed.append(f"processes: {count} → {ranks.count}")
    return [f"warning: {line}; from here on the run is no longer bit-identical" for line in changed]


def build_learner(
    config: Config, tokenizer: Tokenizer, machine: Machine, ranks: Ranks, *, fresh: bool
) -> tuple[Learner, nn.Module]:
    """A model and its objective, spread over the ranks.

    The model comes with weights drawn from the seed, on the CPU so that every device starts alike, or from `init_from`.
    One that is not `fresh` gets its weights from a checkpoint, and the run it once started from may be gone.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model, tokenizer.src_size, tokenizer.tgt_size).to(machine.device)
    model.encoder.recompute = model.decoder.recompute = config.train.recompute
    if fresh and config.train.init_from is not None:
        _start_from(RunDirectory.open(Path(config.train.init_from)), config, model, tokenizer)
    shards = ranks.count > 1 and config.train.distributed == "fsdp"
    compiled = machine.device == "cuda" and not shards and not config.train.deterministic
    objective = ranks.spread(Objective(model, config.train.label_smoothing, compiled), config.train.distributed)
    ema = MovingAverage(model, config.train.ema) if config.train.ema else None
    scale = LossScale(torch.device(machine.device)) if machine.precision == "fp16" else None
    return Learner(model, build_optimizer(model, config.train), ema, tokenizer, Progress(), scale), objective


def _start_from(other: RunDirectory, config: Config, model: Seq2Seq, tokenizer: Tokenizer) -> None:
    """Take the best weights of another run with the same tokenizer and the same model; dropout may differ."""
    loaded = load_model(other, "best", torch.device("cpu"))
    if loaded.tokenizer.digest != tokenizer.digest:
        raise ConfigError(
            f"train.init_from: {other.root} has another tokenizer; leave out tokenizer.model, tokenizer.src_model and "
            "tokenizer.tgt_model, and copy its data.normalization"
        )
    changed = [line for line in differences(loaded.config, config).refused if line.startswith("model.")]
    if changed := [line for line in changed if "dropout" not in line.partition(":")[0]]:
        raise ConfigError(f"train.init_from: {other.root} has another model ({'; '.join(changed)}); copy its section")
    load_weights(model, {name: parameter.detach() for name, parameter in loaded.model.named_parameters()})


def restore(learner: Learner, log: EventLog, saved: TensorFile | None, run: RunDirectory) -> None:
    """Take over the checkpoint, after making sure that text, tokenizer and log are those it was trained with."""
    if saved is None:
        return
    for what, found in (("data", data_digest(run)), ("tokenizer", learner.tokenizer.digest)):
        if saved.metadata[f"{what}_digest"] != found:
            raise CheckpointError(
                f"{saved.path}: was trained with other {what} ({saved.metadata[f'{what}_digest'][:12]}) than the run "
                f"has now ({found[:12]}); restore the text as it was, or choose another --run"
            )
    learner.restore(saved)
    log.verify(json.loads(saved.metadata["log"]))


def announce(learner: Learner, machine: Machine, saved: TensorFile | None, ranks: Ranks) -> None:
    """Say what is trained, and on what."""
    size = sum(parameter.numel() for parameter in learner.model.parameters())
    begun = "" if saved is None else f", going on from step {learner.progress.step}"
    together = "" if ranks.count == 1 else f", {ranks.count} processes"
    note(f"training {size / 1e6:.2f} M weights on {machine.describe()}{together}{begun}")


def _go_on(
    config: Config,
    run: RunDirectory,
    learner: Learner,
    objective: nn.Module,
    machine: Machine,
    log: EventLog,
    signals: Signals,
    ranks: Ranks,
) -> str:
    """Run the loop from where the learner stands."""
    train, step = config.train, learner.progress.step
    log.rewind()
    feed = feed_of(config, run, learner, machine, ranks)
    micro_batches = MicroBatches(machine, run.machine_file)
    trial = Trial(learner, objective, machine, ranks)
    trial.prove(feed.plan)
    micro_batches.settle(train.batch_tokens, step + 1, lambda: fitting(trial, feed.plan, ranks))
    if ranks.first:
        micro_batches.store()
    facts = {"data_digest": data_digest(run)}
    validator = validator_of(config, run, machine, ranks)
    curves = Curves(run, train.tensorboard and ranks.first, step)
    bar = Bar(train.max_steps, "train", "steps", done=step, mute=not ranks.first)
    with bar, contextlib.closing(curves):
        parts = (learner, objective, feed, micro_batches, validator, log, facts, curves, signals, bar, ranks)
        return Loop(run, config, machine, *parts).train()


def feed_of(config: Config, run: RunDirectory, learner: Learner, machine: Machine, ranks: Ranks) -> Feed:
    """The training text, before memory is measured: where there is room, it lies on the device."""
    packed = packs(learner.model, machine)
    setup = None if packed else SETUP[machine.device]
    plan = BatchPlan(load_split(run, "train"), config.seed, config.train.update_tokens, setup)
    return Feed(plan, torch.device(machine.device), packed, ranks.number, ranks.count)


def validator_of(config: Config, run: RunDirectory, machine: Machine, ranks: Ranks) -> Validator:
    """The validation text of the run."""
    count = config.train.validate_sentences
    texts = raw_texts(run, "valid")
    src = first_lines([list(read_lines(text.src)) for text in texts], count)
    refs = first_lines([list(read_lines(text.tgt)) for text in texts], count)
    return Validator(config, machine, load_split(run, "valid"), src, refs, ranks)
