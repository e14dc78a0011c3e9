"""translate train --profile: where the time of an update goes, as a table and as a trace; the run stays as it was."""

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from translate.config import Config
from translate.device import Machine, deterministic, same_bits, tune_allocator
from translate.durable import durable_text, durable_write
from translate.errors import UsageError
from translate.run import RunDirectory
from translate.stages.rehearsal import rehearsal
from translate.training.loop import Loop
from translate.training.loss import Objective
from translate.training.stopwatch import Place, Stopwatch

WARM_UP, TIMED, TRACED = 3, 10, 2
"""Updates: those before the clock runs, those of the table of parts, those of the trace and the table of operators."""
OPERATORS = 15
"""Operators in the table."""
REST = "the rest"
PARTS = ("data", "encoder", "decoder", "model", "loss", "backward", "clipping", "optimizer", "average of weights", REST)
"""In the order of an update. `model` is both sides where they are compiled as one; `loss` is projection and
cross-entropy with their gradients, which are made at once; `the rest` is bookkeeping."""


@dataclass(frozen=True)
class Line:
    """A line of a table, all of it for one update."""

    name: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class ProfilingReport:
    """Where an update goes."""

    title: str
    parts: list[Line]
    operators: list[Line]
    tokens: float
    """Real target tokens of an update."""
    directory: Path

    def markdown(self) -> list[str]:
        """Both tables."""
        seconds = sum(line.seconds for line in self.parts)
        told = f"{1000 * seconds:.1f} ms and {self.tokens:,.0f} target tokens an update"
        return [
            f"{self.title}: {told}, {self.tokens / seconds:,.0f} tokens/s",
            "",
            *_table("part", self.parts),
            "",
            f"The {OPERATORS} operators that take most, of updates that were traced, which slows many small ones down:",
            "",
            *_table("operator", self.operators)[: OPERATORS + 2],
        ]

    def summary(self) -> list[str]:
        """The tables, and where they are."""
        return [
            *self.markdown(),
            "",
            f"table: {self.directory / 'table.md'}",
            f"trace: {self.directory / 'trace.json.gz'} (open it in a trace viewer such as Perfetto)",
        ]


def profile_training(config: Config, run: RunDirectory) -> ProfilingReport:
    """Time a few updates from where the training stands, and trace some more. Does a missing or stale tokenize first.

    Writes RUN/profile/ and nothing else: no checkpoint, no log, no choice of the machine.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--profile looks at one process; start it without torchrun")
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's library would announce itself
    tune_allocator()
    with run.create().locked(), same_bits(deterministic(config)):
        loop = rehearsal(config, run)
        loop.feed.thread = None  # what a thread does meanwhile would be nobody's time
        machine, size = loop.machine, sum(parameter.numel() for parameter in loop.learner.model.parameters())
        title = f"{size / 1e6:.2f} M weights on {machine.describe()}"
        stopwatch = Stopwatch(torch.cuda.synchronize if machine.device == "cuda" else lambda: None)
        with stopwatch.timing(_places(loop)):
            _updates(loop, WARM_UP, stopwatch)
            stopwatch.reset()
            before = loop.progress.tokens
            _updates(loop, TIMED, stopwatch)
            parts = _parts(stopwatch)
            tokens = (loop.progress.tokens - before) / TIMED
            with profile(activities=_activities(machine), acc_events=True) as traced:
                _updates(loop, TRACED, stopwatch)
        report = ProfilingReport(title, parts, _operators(traced, machine), tokens, run.profile)
        _write(report, traced)
        return report


def _places(loop: Loop) -> list[Place]:
    """What is called in an update, and the part it belongs to."""
    model, learner = loop.learner.model, loop.learner
    passes = [Place(model.encoder, "forward", "encoder"), Place(model.decoder, "forward", "decoder")]
    if isinstance(loop.objective, Objective) and loop.objective.whole is not None:
        passes = [Place(loop.objective, "read", "model")]  # a look inside would make another program of it
    return [
        Place(loop.feed, "update", "data"),
        *passes,
        Place(loop.objective, "forward", "loss"),
        Place(torch.Tensor, "backward", "backward"),
        Place(loop, "gradient_norm", "clipping"),
        Place(learner.optimizer, "step", "optimizer"),
        *([Place(learner.ema, "update", "average of weights")] if learner.ema is not None else []),
    ]


def _updates(loop: Loop, count: int, stopwatch: Stopwatch) -> None:
    for _ in range(count):
        with stopwatch.part(REST):
            loop.next_update()


def _parts(stopwatch: Stopwatch) -> list[Line]:
    found = [name for name in PARTS if name in stopwatch.seconds]
    return [Line(name, stopwatch.seconds[name] / TIMED, stopwatch.calls[name] / TIMED) for name in found]


def _activities(machine: Machine) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if machine.device == "cuda" else [])]


def _operators(traced: profile, machine: Machine) -> list[Line]:
    """Every operator with its own time, that of operators within it not counted; on a GPU every kernel.

    The profiler counts a kernel under the operator that launched it as well, and under the names that it was given.
    """
    events: Sequence[Any] = traced.key_averages()
    own = "self_cpu_time_total"
    if machine.device == "cuda":
        own = "self_device_time_total"
        events = [e for e in events if e.device_type.name == "CUDA" and not e.is_user_annotation]
    lines = [Line(e.key, 1e-6 * getattr(e, own) / TRACED, e.count / TRACED) for e in events if e.key not in PARTS]
    return sorted(lines, key=lambda line: -line.seconds)


def _table(what: str, lines: Sequence[Line]) -> list[str]:
    """Markdown; a share is of all lines."""
    total = sum(line.seconds for line in lines) or math.inf  # a GPU may not let its kernels be seen
    rows = [
        f"| {line.name} | {100 * line.seconds / total:.1f} % | {1000 * line.seconds:.2f} | {line.calls:.4g} |"
        for line in lines
    ]
    return [f"| {what} | share | ms an update | calls an update |", "|---|---:|---:|---:|", *rows]


def _write(report: ProfilingReport, traced: profile) -> None:
    """table.md and trace.json.gz, each whole or not at all."""
    durable_text(report.directory / "table.md", "\n".join(report.markdown()) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trace.json.gz"
        traced.export_chrome_trace(str(file))
        durable_write(report.directory / "trace.json.gz", file.read_bytes())
