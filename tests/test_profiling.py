"""Where an update goes: times add up, everything is seen, and the run is left as it was."""

import gzip
import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from tests.test_training import files
from tests.tiny import tiny_config, tiny_corpus
from translate.cli import main
from translate.config.writer import dump_config
from translate.device import Machine
from translate.errors import Interrupted, TryAgainError, UsageError
from translate.run import RunDirectory
from translate.stages import profiling
from translate.stages.profiling import PARTS, Line, ProfilingReport, profile_training
from translate.stages.rehearsal import rehearsal
from translate.stages.training import train
from translate.training.loop import Loop
from translate.training.loss import Objective
from translate.training.signals import terminable
from translate.training.stopwatch import Place, Stopwatch

SEEN = [part for part in PARTS if part != "model"]
"""Parts of a model that is not compiled."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that was trained for some updates."""
    run = RunDirectory(tmp_path_factory.mktemp("trained") / "run")
    train(tiny_config(corpus, max_steps=3), run)
    return run


@pytest.fixture(scope="module")
def report(corpus: Path, run: RunDirectory) -> ProfilingReport:
    before = files(run.root)
    report = profile_training(tiny_config(corpus, max_steps=3), run)
    after = files(run.root)
    assert {name: data for name, data in after.items() if not name.startswith("profile/")} == before
    assert sorted(after.keys() - before.keys()) == ["profile/table.md", "profile/trace.json.gz"]
    return report


# The stopwatch


def test_parts_within_a_part_are_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch(lambda: waited.append(now[0]))
    for _ in range(2):
        with watch.part("whole"):
            now[0] += 1
            with watch.part("inner"):
                now[0] += 2
                with watch.part("innermost"):
                    now[0] += 4
                with watch.part("innermost"):
                    now[0] += 8
            now[0] += 16
    assert watch.seconds == {"whole": 34, "inner": 4, "innermost": 24}
    assert watch.calls == {"whole": 2, "inner": 2, "innermost": 4}
    assert sum(watch.seconds.values()) == now[0]
    assert len(waited) == 16
    watch.reset()
    assert watch.seconds == watch.calls == {}


class Square:
    """A made-up owner of what is timed."""

    @classmethod
    def side(cls, area: float) -> float:
        return area**0.5

    def area(self, side: float = 2.0) -> float:
        return side * side


def test_timing_passes_everything_on_and_leaves_nothing_behind() -> None:
    watch, square, layer = Stopwatch(), Square(), nn.Linear(2, 3)
    before = dict(vars(Square)), dict(vars(square)), dict(vars(layer)), torch.Tensor.backward
    places = [Place(Square, "side", "a"), Place(square, "area", "b"), Place(layer, "forward", "c")]
    with watch.timing([*places, Place(torch.Tensor, "backward", "d")]):
        assert Square.side(9.0) == 3.0
        assert square.area(side=4.0) == 16.0
        layer(torch.ones(1, 2)).sum().backward()
        with pytest.raises(TypeError):
            square.area("x")  # type: ignore[arg-type]
    assert watch.calls == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert layer.weight.grad is not None
    assert (dict(vars(Square)), dict(vars(square)), dict(vars(layer)), torch.Tensor.backward) == before
    square.area()
    assert watch.calls["b"] == 2


# The report


def test_every_part_of_an_update_is_seen_as_often_as_it_is_done(report: ProfilingReport) -> None:
    calls = {line.name: line.calls for line in report.parts}
    assert list(calls) == SEEN
    micro_batches = calls["encoder"]
    assert 2 <= micro_batches <= 4
    assert {calls[name] for name in ("encoder", "decoder", "loss", "backward")} == {micro_batches}
    assert {calls[name] for name in ("data", "clipping", "optimizer", "average of weights", "the rest")} == {1}
    assert all(line.seconds > 0 for line in report.parts)


def test_a_compiled_model_is_looked_at_from_outside(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever put a clock into it would time another program."""
    loop = rehearsal(tiny_config(corpus), RunDirectory(tmp_path / "run").create())
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function.forward)
    loop.objective = Objective(loop.learner.model, 0.1, compiled=True)
    stopwatch = Stopwatch()
    with stopwatch.timing(profiling._places(loop)):
        loop.next_update()
    assert {"data", "model", "loss", "backward"} <= set(stopwatch.seconds)
    assert not {"encoder", "decoder"} & set(stopwatch.seconds)
    assert loop.objective.whole is not None  # and left as it was


def test_a_slow_part_is_found(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = Loop.gradient_norm

    def slow(loop: Loop) -> torch.Tensor:
        time.sleep(0.2)
        return norm(loop)

    monkeypatch.setattr(Loop, "gradient_norm", slow)
    monkeypatch.setattr(profiling, "TIMED", 1)
    report = profile_training(tiny_config(corpus, ema=0.0), RunDirectory(tmp_path / "run"))
    seconds = {line.name: line.seconds for line in report.parts}
    assert seconds["clipping"] > 0.2
    assert seconds["the rest"] < 0.2
    assert "average of weights" not in seconds
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert made == {"config.yaml", "data", "lock", "profile", "tokenizer"}


def test_the_tables_say_what_the_report_knows(report: ProfilingReport) -> None:
    written = (report.directory / "table.md").read_text("utf-8").split("\n")
    assert written[:-1] == report.markdown() == report.summary()[: len(written) - 1]
    title = written[0]
    assert re.fullmatch(
        r"0\.01 M weights on cpu, fp32, 1 thread, fp32 products 'highest': "
        r"[\d.]+ ms and [\d.]+ target tokens an update, [\d,]+ tokens/s",
        title,
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in written if line.startswith("| ")]
    parts, operators = rows[1 : 1 + len(SEEN)], rows[2 + len(SEEN) :]
    assert [row[0] for row in parts] == SEEN
    assert sum(float(row[1].rstrip(" %")) for row in parts) == pytest.approx(100, abs=0.5)
    assert len(operators) == 15
    assert {row[0] for row in operators} & {"aten::mm", "aten::addmm", "aten::bmm"}
    assert not {row[0] for row in operators} & set(SEEN)
    shares = [float(row[1].rstrip(" %")) for row in operators]
    assert shares == sorted(shares, reverse=True)
    assert report.summary()[-2:] == [
        f"table: {report.directory / 'table.md'}",
        f"trace: {report.directory / 'trace.json.gz'} (open it in a trace viewer such as Perfetto)",
    ]


def test_on_a_gpu_each_kernel_counts_once() -> None:
    """The profiler has it three times: by itself, with the operator that launched it, and with an annotation."""

    def event(key: str, device: str, annotation: bool, seconds: float) -> SimpleNamespace:
        time = {"self_device_time_total": 1e6 * profiling.TRACED * seconds, "self_cpu_time_total": 1e9}
        return SimpleNamespace(
            key=key,
            device_type=SimpleNamespace(name=device),
            is_user_annotation=annotation,
            count=profiling.TRACED,
            **time,
        )

    traced = SimpleNamespace(
        key_averages=lambda: [
            event("aten::mm", "CPU", False, 3),
            event("gemm", "CUDA", False, 3),
            event("add", "CUDA", False, 4),
            event("Optimizer.step", "CUDA", True, 7),
        ]
    )
    lines = profiling._operators(cast("Any", traced), Machine("cuda", "bf16", 1, "highest"))
    assert [(line.name, line.seconds, line.calls) for line in lines] == [("add", 4, 1), ("gemm", 3, 1)]


def test_what_takes_no_time_has_no_share() -> None:
    """A GPU may not let its kernels be seen."""
    assert profiling._table("operator", [Line("add", 0.0, 2)])[2:] == ["| add | 0.0 % | 0.00 | 2 |"]


def test_the_trace_names_the_parts(report: ProfilingReport) -> None:
    trace = json.loads(gzip.decompress((report.directory / "trace.json.gz").read_bytes()))
    named = [event for event in trace["traceEvents"] if event.get("name") in SEEN]
    assert {event["name"] for event in named} == set(SEEN)
    assert sum(event["name"] == "optimizer" for event in named) == profiling.TRACED
    encoder = next(event for event in named if event["name"] == "encoder")
    within = [
        event["name"]
        for event in trace["traceEvents"]
        if event.get("ph") == "X" and encoder["ts"] <= event["ts"] <= encoder["ts"] + encoder["dur"]
    ]
    assert "aten::embedding" in within


# What it does not do


def test_updates_are_those_of_training(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[list[torch.Tensor]] = []
    advance = Loop.advance

    def look(loop: Loop, *given: Any) -> None:
        advance(loop, *given)
        if loop.progress.step == 4:
            learnt.append([parameter.detach().clone() for parameter in loop.learner.model.parameters()])

    monkeypatch.setattr(Loop, "advance", look)
    profile_training(tiny_config(corpus), RunDirectory(tmp_path / "profiled"))
    train(tiny_config(corpus, max_steps=4), RunDirectory(tmp_path / "trained"))
    profiled, trained = learnt
    assert all(torch.equal(one, other) for one, other in zip(profiled, trained, strict=True))


def test_a_run_that_is_in_use_is_left_alone(corpus: Path, run: RunDirectory) -> None:
    with run.locked(), pytest.raises(TryAgainError, match="is in use by"):
        profile_training(tiny_config(corpus, max_steps=3), run)


def test_a_signal_ends_it_and_nothing_is_written(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "gradient_norm", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with terminable(), pytest.raises(Interrupted, match="stopped by SIGTERM"):
        profile_training(tiny_config(corpus), RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run" / "profile").exists()


def test_torchrun_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"^--profile looks at one process; start it without torchrun$"):
        profile_training(tiny_config(corpus), RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_tables(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(tiny_config(corpus)), encoding="utf-8")
    assert main(["train", "--config", str(file), "--run", str(tmp_path / "run"), "--profile"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith((tmp_path / "run" / "profile" / "table.md").read_text("utf-8"))
    assert "USDT" not in told.err
    assert main(["train", "--config", str(file), "--dry-run", "--profile"]) == 64
    assert "error: --profile and --dry-run are two commands: give one of them" in capsys.readouterr().err
