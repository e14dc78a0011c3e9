"""Checkpoints: what is saved, which ones are kept, and how a model is loaded from a run.

A checkpoint is one verified file (`tensorfile.py`). The list names every checkpoint of the run; nothing else decides
what is newest, best, or to be removed, and a file is removed only after the list that no longer names it is safe.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import ValidationError
from torch import Tensor

import translate
from translate.config import Config
from translate.durable import durable_json, remove_leftovers
from translate.errors import CheckpointError, DataError, MissingInputError
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq
from translate.run import RunDirectory
from translate.text.tokenizer import Tokenizer
from translate.training.averaging import MovingAverage, Weights, mean_of
from translate.training.distributed import part_of, whole
from translate.training.guard import LossScale
from translate.training.optimizer import moments, restore_moments, steps_of
from translate.training.progress import Progress
from translate.training.tensorfile import TensorFile, lend_tensors, write_tensors

FORMAT = "translate checkpoint 1"
Which = Literal["best", "last", "average", "ema"]


@dataclass
class Learner:
    """Everything that learning changes, and the text tools that belong to it."""

    model: Seq2Seq
    optimizer: torch.optim.AdamW
    ema: MovingAverage | None
    tokenizer: Tokenizer
    progress: Progress
    scale: LossScale | None = None
    """Of the loss, in fp16."""

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint by name; tied weights stand once."""
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in moments(self.model, self.optimizer)}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.weights.items()}
        blob = bytearray(self.tokenizer.blob())
        return tensors | {"tokenizer": torch.frombuffer(blob, dtype=torch.uint8)}

    def restore(self, saved: TensorFile) -> None:
        """Take over everything a checkpoint holds."""
        fill(self.model, saved, "model.")
        self.progress = Progress.from_json(json.loads(saved.metadata["progress"]))
        history = {name.removeprefix("optimizer."): saved.tensor(name) for name in saved.names("optimizer.")}
        steps = int(saved.metadata.get("optimizer_steps", self.progress.step))
        restore_moments(self.model, self.optimizer, history, steps)
        if self.scale is not None and "loss_scale" in saved.metadata:
            self.scale.restore(json.loads(saved.metadata["loss_scale"]))
        if self.ema is not None:
            for name, tensor in weights_of(saved, self.model, "ema.").items():
                self.ema.weights[name] = part_of(tensor, self.ema.weights[name])


@dataclass
class Entry:
    """One checkpoint in the list."""

    step: int
    file: str
    scheduled: bool
    """Due by `train.save_every`; others (a signal, the clock, a new best) never count for keeping or averaging."""


@dataclass
class CheckpointList:
    """checkpoints.json."""

    checkpoints: list[Entry] = field(default_factory=list)
    best: int | None = None
    last: int | None = None
    removing: list[str] = field(default_factory=list)
    """Files that are no longer named above and may still lie in the directory."""

    @classmethod
    def read(cls, run: RunDirectory) -> Self:
        """The list of a run, empty if it has none."""
        if not run.checkpoint_list.exists():
            return cls()
        try:
            value = json.loads(run.checkpoint_list.read_text(encoding="utf-8"))
            entries = [Entry(**entry) for entry in value.pop("checkpoints")]
            return cls(checkpoints=entries, **value)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{run.checkpoint_list}: not readable ({error}); restore it from a copy") from error

    def find(self, step: int | None) -> Entry | None:
        """The entry of a step."""
        return next((entry for entry in self.checkpoints if entry.step == step), None)

    def scheduled(self, count: int) -> list[Entry]:
        """The newest `count` checkpoints that were due, oldest first."""
        return [entry for entry in self.checkpoints if entry.scheduled][-count:]

    def note(self, entry: Entry, best: int | None, keep_last: int) -> None:
        """Take in a new checkpoint, and let go of those that need not be kept any longer."""
        entries = [other for other in self.checkpoints if other.step < entry.step] + [entry]
        newest = {other.step for other in [e for e in entries if e.scheduled][-keep_last:]}
        keep = newest | {entry.step}
        # A best step without a file of its own cannot happen: a new best is saved at once.
        if best is not None:
            keep.add(best)
        dropped = [other.file for other in self.checkpoints if other.step not in keep and other.file != entry.file]
        self.checkpoints = [other for other in entries if other.step in keep]
        self.best, self.last = best, entry.step
        self.removing = sorted({*self.removing, *dropped} - {other.file for other in self.checkpoints})

    def write(self, run: RunDirectory) -> None:
        """Make the list durable, then remove what it no longer names."""
        self.removing = [name for name in self.removing if (run.checkpoints / Path(name).name).exists()]
        durable_json(run.checkpoint_list, asdict(self))
        for name in self.removing:
            (run.checkpoints / Path(name).name).unlink(missing_ok=True)


def save_checkpoint(
    run: RunDirectory,
    learner: Learner,
    config: Config,
    facts: dict[str, str],
    *,
    scheduled: bool,
    write: bool = True,
) -> None:
    """Write a checkpoint of the present state, then the list. `facts` are further metadata (digests, log position).

    Where the weights lie in shards all ranks must come here, and all but the one that is to `write` only lend theirs.
    """
    tensors = learner.tensors()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(whole(torch.isfinite(tensor).all())):
            raise DataError(
                f"step {learner.progress.step}: {name} is not finite, so nothing was saved; go on from the last "
                "checkpoint with a lower train.lr or a longer train.warmup"
            )
    metadata = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "progress": json.dumps(learner.progress.to_json()),
        "optimizer_steps": str(steps_of(learner.optimizer)),
        "src_size": str(learner.tokenizer.src_size),
        "tgt_size": str(learner.tokenizer.tgt_size),
        "tokenizer_digest": learner.tokenizer.digest,
        "versions": json.dumps({"translate": translate.__version__, "torch": torch.__version__}),
        **facts,
    }
    if learner.scale is not None:
        metadata["loss_scale"] = json.dumps(learner.scale.to_json())
    step = learner.progress.step
    path = run.checkpoints / f"step-{step:08}.safetensors"
    if not write:
        lend_tensors(tensors)
        return
    write_tensors(path, tensors, metadata)
    listed = CheckpointList.read(run)
    listed.note(
        Entry(step, path.name, scheduled), learner.progress.best_step(config.train.best), config.train.keep_last
    )
    listed.write(run)


def open_checkpoint(path: Path) -> TensorFile:
    """Open a checkpoint and verify its header. Raises CheckpointError when it is not one of ours."""
    saved = TensorFile(path)
    found = saved.metadata.get("format", "none")
    if found != FORMAT:
        raise CheckpointError(f"{path}: format '{found}', expected '{FORMAT}'; read it with the version that wrote it")
    return saved


def newest_sound(run: RunDirectory) -> tuple[TensorFile | None, list[str]]:
    """The newest checkpoint that passes verification whole, and a warning for each newer one that does not.

    Raises CheckpointError when there are checkpoints and none is sound or listed: a run never silently starts over.
    """
    if run.checkpoints.is_dir():
        remove_leftovers(run.checkpoints)
    warnings: list[str] = []
    entries = CheckpointList.read(run).checkpoints
    for entry in reversed(entries):
        try:
            saved = open_checkpoint(run.checkpoints / Path(entry.file).name)
            for name in saved.names():
                saved.tensor(name)
            return saved, warnings
        except (CheckpointError, MissingInputError) as error:
            warnings.append(f"warning: {error}")
    if entries:
        raise CheckpointError("\n".join([f"run {run.root}: none of its checkpoints can be used", *warnings]))
    if len(list(run.checkpoints.glob("step-*"))) > 1:  # a run killed in its first save has one that is not listed yet
        raise CheckpointError(
            f"{run.checkpoint_list}: is not there, though there are checkpoints; restore it from a copy, or remove "
            f"{run.checkpoints} to start over"
        )
    return None, warnings


def fill(model: Seq2Seq, saved: TensorFile, prefix: str) -> None:
    """Load the weights under `prefix`; names and shapes come from the model, the file may only fill them."""
    load_weights(model, weights_of(saved, model, prefix))


def weights_of(saved: TensorFile, model: Seq2Seq, prefix: str) -> Weights:
    """The tensors under `prefix`, checked against the model's names and shapes. Raises CheckpointError."""
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = {name.removeprefix(prefix): tuple(saved.entries[name]["shape"]) for name in saved.names(prefix)}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        first = wrong[0]
        raise saved.damaged(
            f"does not fit the model: {len(wrong)} tensors differ, the first is {first} "
            f"(model {expected.get(first, 'has none')}, file {found.get(first, 'has none')})"
        )
    return {name: saved.tensor(prefix + name) for name in expected}


@torch.no_grad()
def load_weights(model: Seq2Seq, weights: Weights) -> None:
    """Copy weights into a model."""
    for name, parameter in model.named_parameters():
        parameter.copy_(part_of(weights[name], parameter))


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to translate, with what belongs to it."""

    model: Seq2Seq
    tokenizer: Tokenizer
    config: Config
    step: int
    identity: str
    """Digest-like name of exactly these weights."""


def load_model(run: RunDirectory, which: Which, device: torch.device) -> LoadedModel:
    """Load the weights that `which` names. Needs the run directory and nothing else."""
    files = list(_files(run, which))
    newest = files[-1]
    config = saved_config(newest)
    tokenizer = Tokenizer.from_blob(newest.tensor("tokenizer").numpy().tobytes())
    model = build_model(config.model, tokenizer.src_size, tokenizer.tgt_size)
    if which == "average":
        load_weights(model, mean_of(weights_of(saved, model, "model.") for saved in files))
    else:
        fill(model, newest, "ema." if which == "ema" else "model.")
    step = json.loads(newest.metadata["progress"])["step"]
    identity = " ".join([which, *(saved.metadata["header_sha256"] for saved in files)])
    return LoadedModel(model.to(device).eval(), tokenizer, config, step, identity)


def saved_config(saved: TensorFile) -> Config:
    """The settings a checkpoint was trained with."""
    try:
        return Config.model_validate_json(saved.metadata["config"])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise saved.damaged(f"its settings are not those of this version ({where}: {problem['msg']})") from error


def _files(run: RunDirectory, which: Which) -> Iterator[TensorFile]:
    listed = CheckpointList.read(run)
    if not listed.checkpoints:
        raise MissingInputError(
            f"run {run.root}: has no checkpoint yet; train it with: translate train --run {run.root}"
        )
    newest = listed.checkpoints[-1]
    match which:
        case "best":
            entries = [listed.find(listed.best) or newest]
        case "last":
            entries = [newest]
        case "average":
            count = _saved_train(run, newest)["average"]
            entries = listed.scheduled(count) if count else []
            if not entries:
                raise MissingInputError(f"run {run.root}: nothing to average; train with train.average above 0")
        case "ema":
            entries = [newest]
            if not _saved_train(run, newest)["ema"]:
                raise MissingInputError(f"run {run.root}: keeps no running average; train with train.ema above 0")
    for entry in entries:
        yield open_checkpoint(run.checkpoints / Path(entry.file).name)


def _saved_train(run: RunDirectory, entry: Entry) -> dict[str, Any]:
    saved = open_checkpoint(run.checkpoints / Path(entry.file).name)
    train: dict[str, Any] = json.loads(saved.metadata["config"])["train"]
    return train
