"""Trainings, each with its evaluation, one after another: what is done is skipped, what was interrupted goes on."""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from options import Options
from record import Record, Result

from translate.config import Config
from translate.config.reader import load_config
from translate.device import resolve
from translate.durable import digest_bytes
from translate.errors import Interrupted
from translate.run import RunDirectory
from translate.text.batches import batches_in_order
from translate.text.encoded import load_split
from translate.training.checkpoint import load_model, newest_sound
from translate.training.loss import Objective, TensorBatch
from translate.training.signals import terminable

LOSS_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Training:
    """One run of the command line: a config, what is changed in it, and how it is scored."""

    home: str
    """The experiment it belongs to; others may use it too."""
    name: str
    config: str
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    seed: int = 1
    gold: str | None = None
    """Gold alignments of the test text."""
    program: Sequence[str] = ("-m", "translate")
    """What Python runs: the command line, or a script that changes something first."""

    @property
    def key(self) -> str:
        """Name of the run and of its result."""
        return f"{self.name}-s{self.seed}"

    def run(self, options: Options) -> RunDirectory:
        """Where it lies."""
        return RunDirectory(options.runs / self.home / self.key)

    def overrides(self, options: Options) -> list[str]:
        """The arguments of --set."""
        settings = {**self.settings, "seed": self.seed}
        if options.minutes is not None:
            settings["train.max_minutes"] = options.minutes
        return [f"{key}={value}" for key, value in settings.items()]

    def resolved(self, options: Options) -> Config:
        """All settings."""
        return load_config(Path(self.config), self.overrides(options))

    def result(self, options: Options) -> Result | None:
        """What came out, if it is finished."""
        return Record.of(options.runs, self.home).find(self.key, self._made_from(options))

    def _made_from(self, options: Options) -> list[Any]:
        # Only what differs from the defaults, and no word of where this folder lies: neither a new setting nor a move
        # makes what was measured another thing.
        dump = self.resolved(options).model_dump_json(exclude={"name"}, exclude_defaults=True)
        dump = dump.replace(f"{Path.cwd()}/", "")
        return [self.config, self.overrides(options), digest_bytes(dump.encode())]

    def carry_out(self, options: Options) -> Result:
        """Train, score, and write the result down. Raises CalledProcessError when the command line fails."""
        run = self.run(options)
        overrides = [*self.overrides(options), *number_format(self.resolved(options), options)]
        sets = [argument for override in overrides for argument in ("--set", override)]
        translate(*self.program, "train", "--config", self.config, "--run", str(run.root), *sets)
        gold = ("--gold-alignments", self.gold) if self.gold else ()
        translate(*self.program, "eval", "--run", str(run.root), *gold)
        found = measured(run, self.resolved(options))
        return Record.of(options.runs, self.home).put(self.key, self._made_from(options), found)


def carry_out_all(trainings: Sequence[Training], options: Options) -> list[str]:
    """Carry out what is not done yet, in order, and return the names of those that are not there.

    One that fails does not keep the others from their turn.
    """
    for number, training in enumerate(trainings, start=1):
        if options.table or options.only not in training.key or training.result(options) is not None:
            continue
        print(f"[{number}/{len(trainings)}] {training.home}/{training.key}", flush=True)
        try:
            training.carry_out(options)
        except Interrupted as error:
            print("stopped; the same command goes on from here", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except subprocess.CalledProcessError:
            print(f"{training.key} failed; going on with the next", file=sys.stderr)
    return [training.key for training in trainings if training.result(options) is None]


def number_format(config: Config, options: Options) -> list[str]:
    """What is chosen by measuring, as overrides: measured once for all runs, so that none differs from the others."""
    train = config.train
    machine = resolve(config.device, train.precision, train.threads, train.matmul, options.runs / "machine.json")
    return [f"train.{name}={getattr(machine, name)}" for name in ("precision", "threads", "matmul")]


def translate(*arguments: str) -> None:
    """Run Python on a command of the package as a process of its own. Raises CalledProcessError when it fails.

    A signal reaches it through us and once only: asked twice, a training would leave without saving.
    """
    command = [sys.executable, *arguments]
    with terminable(), subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def measured(run: RunDirectory, config: Config) -> Result:
    """Everything that tables are made of, from a trained and evaluated run."""
    evaluation = json.loads((run.eval / "test.json").read_text(encoding="utf-8"))
    saved, _ = newest_sound(run)
    assert saved is not None
    progress = json.loads(saved.metadata["progress"])
    chosen = json.loads(run.machine_file.read_text(encoding="utf-8"))
    events = [json.loads(line) for line in run.log_file.read_text(encoding="utf-8").split("\n") if line]
    speeds = [event["tokens_per_second"] for event in events if event["event"] == "update"]
    bleu = evaluation["together"]["bleu"]
    return {
        "bleu": bleu["value"],
        "signature": bleu["signature"],
        "perplexity": perplexity(run, config),
        "steps": progress["step"],
        "tokens": progress["tokens"],
        "train_seconds": round(progress["seconds"], 1),
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "precision": f"{chosen['precision']}, threads: {chosen['threads']}, torch {torch.__version__}",
        "alignment": evaluation.get("alignment"),
    }


@torch.no_grad()
def perplexity(run: RunDirectory, config: Config) -> float:
    """Of the test text, a piece, under the weights that were evaluated."""
    loaded = load_model(run, config.decode.weights, torch.device("cpu"))
    objective = Objective(loaded.model, 0.0).eval()
    total, tokens = 0.0, 0
    for batch in batches_in_order(load_split(run, "test"), LOSS_BATCH_TOKENS):
        loss, count = objective(TensorBatch.of(batch, torch.device("cpu")))
        total, tokens = total + loss.item(), tokens + count
    return math.exp(min(total / tokens, 50.0))
