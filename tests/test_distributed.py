"""Several processes that train one model, against one process that does the same work alone.

In float64, so that nothing but the order of sums can differ. The processes are forked and meet over gloo, with the
environment that torchrun would give them.
"""

import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from tests.tiny import child_of, tiny_config, tiny_corpus, wait_for
from translate.config import Config
from translate.errors import EXIT_SIGTERM, TryAgainError
from translate.run import RunDirectory
from translate.stages import training
from translate.stages.training import train
from translate.text.lines import read_lines
from translate.training import checkpoint
from translate.training.checkpoint import CheckpointList, newest_sound
from translate.training.distributed import Ranks, joined
from translate.training.guard import FIRST, Guard
from translate.training.loop import Loop
from translate.training.micro_batches import Trial
from translate.training.rank_record import EXIT_KILLED
from translate.training.tensorfile import TensorFile, write_tensors
from translate.training.validation import Validator

CLOCKS = {"time", "tokens_per_second", "seconds"}
Work = Callable[[], object]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


def settings(corpus: Path, **train: object) -> Config:
    """Two micro-batches an update for one process, one for each of two."""
    return tiny_config(corpus, **({"batch_tokens": 80, "max_steps": 9} | train))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def in_ranks(count: int, work: Work, log: Path, planted: Mapping[int, Work] | None = None) -> list[int]:
    """Run `work` in `count` processes at once and return how each ended; `planted` comes first in those it names."""
    port, children = free_port(), []
    for rank in range(count):

        def begin(rank: int = rank) -> None:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
            os.environ.update(zip(names, map(str, (rank, count, rank, count, "127.0.0.1", port)), strict=True))
            torch.set_default_dtype(torch.float64)
            if planted and rank in planted:
                planted[rank]()
            work()

        children.append(child_of(begin, log.with_suffix(f".{rank}")))
    return [wait_for(child) for child in children]


def trained(config: Config, root: Path, count: int, planted: Mapping[int, Work] | None = None) -> list[int]:
    """Train in `count` processes."""
    return in_ranks(count, lambda: train(config, RunDirectory(root)), root.with_suffix(".log"), planted)


def learnt(root: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    saved, _ = newest_sound(RunDirectory(root))
    assert saved is not None
    return {name: saved.tensor(name) for name in saved.names()}


def events(root: Path) -> list[dict[str, object]]:
    """The log without its clocks."""
    found = [json.loads(line) for line in read_lines(RunDirectory(root).log_file)]
    return [{key: value for key, value in event.items() if key not in CLOCKS} for event in found]


def told(root: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(root.parent.glob(f"{root.stem}.[0-9]")))


def assert_same(one: Path, other: Path, close: float = 1e-6) -> None:
    """Weights, moments and averages, and what the log says of each update and validation."""
    torch.testing.assert_close(learnt(one), learnt(other), rtol=0, atol=close)
    assert_same_log(one, other, close)


def assert_same_log(one: Path, other: Path, close: float = 1e-6) -> None:
    for mine, theirs in zip(events(one), events(other), strict=True):
        assert mine == pytest.approx(theirs, abs=close)


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, with dropout."""
    root = tmp_path_factory.mktemp("alone") / "run"
    assert trained(settings(corpus), root, 1) == [0], told(root)
    return root


@pytest.fixture(scope="module")
def together(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, with dropout."""
    root = tmp_path_factory.mktemp("together") / "run"
    assert trained(settings(corpus), root, 2) == [0, 0], told(root)
    return root


def test_two_ranks_equal_one_with_twice_the_accumulation(alone: Path, together: Path) -> None:
    """Dropout too: a mask belongs to the place of a micro-batch in its update, whoever has it."""
    assert_same(alone, together)
    assert len(events(alone)) > 6


def test_fsdp_equals_ddp(corpus: Path, together: Path, tmp_path: Path) -> None:
    """Shards are gathered for the checkpoint, which knows nothing of them."""
    root = tmp_path / "run"
    assert trained(settings(corpus, distributed="fsdp"), root, 2) == [0, 0], told(root)
    assert_same(root, together)


def in_fp32() -> None:
    torch.set_default_dtype(torch.float32)  # autocast leaves float64 as it is


def overflow() -> None:
    """Let the third backward pass of this process come to infinity."""
    in_fp32()
    scaled, calls = Guard.scaled, 0

    def planted(self: Guard, loss: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return scaled(self, loss) * (math.inf if calls == 3 else 1.0)

    setattr(Guard, "scaled", planted)  # noqa: B010 - in the child alone


def test_a_trial_holds_whole_gradients_of_shards_as_an_update_does(corpus: Path, tmp_path: Path) -> None:
    """They are what takes most memory: exchanged only in the last pass."""

    def plant() -> None:
        original, exchanged = FSDPModule.set_requires_gradient_sync, list[bool]()

        def tell(self: FSDPModule, now: bool) -> None:
            exchanged.append(now)
            original(self, now)

        def run(self: Trial, *given: Any, **named: Any) -> None:
            exchanged.clear()
            measured(self, *given, **named)
            assert exchanged == [False, True]
            (tmp_path / "tried").touch()

        measured = Trial.run
        setattr(FSDPModule, "set_requires_gradient_sync", tell)  # noqa: B010 - in the child alone
        setattr(Trial, "run", run)  # noqa: B010

    config, root = settings(corpus, distributed="fsdp", batch_tokens="auto", max_steps=1), tmp_path / "run"
    assert trained(config, root, 2, {0: plant}) == [0, 0], told(root)
    assert (tmp_path / "tried").exists()


def test_in_fp16_all_ranks_leave_out_what_overflows_in_one(corpus: Path, tmp_path: Path) -> None:
    ddp, fsdp = tmp_path / "ddp", tmp_path / "fsdp"
    for root in (ddp, fsdp):
        config = settings(corpus, precision="fp16", distributed=root.name)
        assert trained(config, root, 2, {0: in_fp32, 1: overflow}) == [0, 0], told(root)
        saved, _ = newest_sound(RunDirectory(root))
        assert saved is not None
        assert json.loads(saved.metadata["loss_scale"]) == [FIRST / 2, 6]
        assert saved.metadata["optimizer_steps"] == "8"
    ours, theirs = (without_key_biases(learnt(root)) for root in (ddp, fsdp))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert_same_log(ddp, fsdp, close=1e-3)


def without_key_biases(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """They add the same to all energies of a query: their gradient is rounding, of which Adam makes whole steps."""
    keys = {"qkv.bias": slice(16, 32), "key_value.bias": slice(0, 16)}
    for name, tensor in tensors.items():
        for ending, part in keys.items():
            if name.endswith(ending):
                tensor[part] = 0
    return tensors


def test_three_ranks_of_a_recurrent_model(corpus: Path, tmp_path: Path) -> None:
    """More processes than some updates have work for."""
    rnn = {"kind": "rnn", "width": 16, "dropout": 0.0}
    values = settings(corpus, update_tokens=40, batch_tokens=20, max_steps=5).model_dump()
    config = Config.model_validate(values | {"model": {"encoder": rnn, "decoder": rnn}})
    for count in (1, 3):
        assert trained(config, tmp_path / f"of{count}", count) == [0] * count, told(tmp_path / f"of{count}")
    assert_same(tmp_path / "of1", tmp_path / "of3")


def signalled(step: int, number: signal.Signals) -> Work:
    """Plant a signal that the process sends to itself when it begins the update after `step`."""

    def plant() -> None:
        original = Loop.update

        def update(self: Loop, *given: Any) -> None:
            if self.progress.step == step:
                os.kill(os.getpid(), number)
            original(self, *given)

        setattr(Loop, "update", update)  # noqa: B010 - in the child alone

    return plant


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_killed_rank_ends_all_and_the_run_goes_on_exactly(
    how: str, corpus: Path, together: Path, tmp_path: Path
) -> None:
    root, config = tmp_path / "run", settings(corpus, distributed=how)
    started = time.monotonic()
    assert trained(config, root, 2, {1: signalled(6, signal.SIGKILL)}) == [TryAgainError.exit_code, -signal.SIGKILL], (
        told(root)
    )
    assert time.monotonic() - started < 60
    records = [json.loads((root / "ranks" / f"{rank}.json").read_text()) for rank in range(2)]
    assert [record["code"] for record in records] == [TryAgainError.exit_code, EXIT_KILLED]
    assert "lost contact with another process" in records[0]["cause"]
    assert "ended without a word" in records[1]["cause"]
    assert trained(config, root, 2) == [0, 0], told(root)
    assert "going on from step" in told(root)
    assert [json.loads((root / "ranks" / f"{rank}.json").read_text())["code"] for rank in range(2)] == [0, 0]
    assert_same(root, together, close=0.0 if how == "ddp" else 1e-6)


def test_a_signal_that_one_rank_gets_stops_all_at_one_step(corpus: Path, together: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert trained(settings(corpus), root, 2, {1: signalled(5, signal.SIGTERM)}) == [EXIT_SIGTERM] * 2, told(root)
    saved, _ = newest_sound(RunDirectory(root))
    assert saved is not None
    assert json.loads(saved.metadata["progress"])["step"] == 6
    assert trained(settings(corpus), root, 2) == [0, 0], told(root)
    assert_same(root, together, close=0.0)


@pytest.mark.parametrize("work", ["loss", "bleu"])
def test_a_signal_in_a_validation_ends_it_for_all(work: str, corpus: Path, together: Path, tmp_path: Path) -> None:
    """It may take longer than a scheduler waits; what was validated by then is done again."""

    def plant() -> None:
        original = getattr(Validator, work)

        def interrupted(self: Validator, *given: Any) -> float:
            os.kill(os.getpid(), signal.SIGTERM)
            found: float = original(self, *given)
            return found

        setattr(Validator, work, interrupted)

    root = tmp_path / "run"
    assert trained(settings(corpus), root, 2, {1: plant}) == [EXIT_SIGTERM] * 2, told(root)
    saved, _ = newest_sound(RunDirectory(root))
    assert saved is not None
    progress = json.loads(saved.metadata["progress"])
    assert (progress["step"], progress["validations"]) == (3, [])
    assert trained(settings(corpus), root, 2) == [0, 0], told(root)
    assert_same(root, together, close=0.0)


def test_no_rank_goes_on_before_a_checkpoint_is_written(corpus: Path, tmp_path: Path) -> None:
    """Who left earlier would have torchrun end the others, and the first one still writes."""
    root = tmp_path / "run"

    def slow() -> None:
        def write(*given: Any) -> None:
            time.sleep(1)
            write_tensors(*given)

        setattr(checkpoint, "write_tensors", write)  # noqa: B010 - in the child alone

    def look() -> None:
        original = Loop.save

        def save(self: Loop, **given: Any) -> None:
            original(self, **given)
            assert CheckpointList.read(self.run).last == self.progress.step

        setattr(Loop, "save", save)  # noqa: B010 - in the child alone

    assert trained(settings(corpus, max_steps=2), root, 2, {0: slow, 1: look}) == [0, 0], told(root)


def test_ranks_that_find_other_checkpoints_do_not_begin(corpus: Path, together: Path, tmp_path: Path) -> None:
    """A machine that cannot read the newest one must not go on from the one before."""
    root = tmp_path / "run"
    assert trained(settings(corpus, max_steps=8), root, 2) == [0, 0], told(root)

    def blind() -> None:
        def before(run: RunDirectory) -> tuple[TensorFile | None, list[str]]:
            oldest = CheckpointList.read(run).checkpoints[0]
            return checkpoint.open_checkpoint(run.checkpoints / oldest.file), []

        setattr(training, "newest_sound", before)  # noqa: B010 - in the child alone

    assert trained(settings(corpus), root, 2, {1: blind}) == [TryAgainError.exit_code] * 2, told(root)
    assert "do not all find the same newest checkpoint sound" in told(root)
    assert trained(settings(corpus), root, 2) == [0, 0], told(root)


def test_a_second_launch_leaves_the_records_alone(corpus: Path, together: Path) -> None:
    """They tell what became of those who have the run."""
    run = RunDirectory(together)
    before = {path.name: path.read_bytes() for path in run.ranks.iterdir()}
    with run.locked():
        codes = in_ranks(3, lambda: train(settings(corpus), run), together.with_suffix(".again"))
    assert codes == [TryAgainError.exit_code] * 3
    assert {path.name: path.read_bytes() for path in run.ranks.iterdir()} == before


def test_another_number_of_ranks_goes_on_with_a_warning(corpus: Path, alone: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert trained(settings(corpus, max_steps=4), root, 2) == [0, 0], told(root)
    assert trained(settings(corpus), root, 1) == [0], told(root)
    assert "warning: processes: 2 → 1; from here on the run is no longer bit-identical" in told(root)
    torch.testing.assert_close(learnt(root), learnt(alone), rtol=0, atol=1e-6)


def test_what_one_rank_finds_wrong_ends_all(corpus: Path, tmp_path: Path) -> None:
    """The first process reads the text; the others learn that it is gone."""
    values = settings(corpus).model_dump()
    values["data"]["train"][0]["src"] = str(corpus / "nothing.src")
    codes = trained(Config.model_validate(values), tmp_path / "run", 2)
    assert codes == [66, TryAgainError.exit_code], told(tmp_path / "run")
    assert "nothing.src" in json.loads((tmp_path / "run" / "ranks" / "0.json").read_text())["cause"]


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    """Whatever their number, and also empty ones."""

    def check() -> None:
        with joined("cpu") as ranks:
            for count in range(9):
                lines = ["" if number % 4 == 2 else f"줄 {number}" * number for number in range(count)]
                assert ranks.in_turn(lines[ranks.number :: ranks.count]) == lines
            assert ranks.most(ranks.number, -ranks.number) == [2, 0]
            assert ranks.total(1, 0.5) == [3, 1.5]

    assert in_ranks(3, check, tmp_path / "log") == [0, 0, 0], (tmp_path / "log.0").read_text()


def test_alone_nothing_is_asked_of_anyone() -> None:
    with joined("cpu") as ranks:
        assert ranks == Ranks()
        assert ranks.first
        assert ranks.most(3, 4) == ranks.total(3, 4) == [3, 4]
        assert ranks.in_turn(["a", ""]) == ["a", ""]


def test_other_commands_are_not_for_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from translate.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["tokenize", "--run", "nowhere"]) == 64
    assert (
        "2 processes were started, by torchrun it seems, but only `train`, `eval` and `decode` know"
        in capsys.readouterr().err
    )


@pytest.mark.skipif(sys.platform != "linux", reason="torchrun is tried on Linux")
def test_torchrun_starts_the_command(corpus: Path, tmp_path: Path) -> None:
    """As the README has it: one summary, one log, a record of each."""
    import subprocess

    from translate.config.writer import dump_config

    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(settings(corpus, max_steps=3)), encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
        "-m",
    ]
    command = [*launch, "--", "translate", "train", "--config", str(file), "--run", str(tmp_path / "run")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("training ended at step 3") == 1
    assert found.stderr.count("2 processes") == 1
    assert sorted(path.name for path in (tmp_path / "run" / "ranks").iterdir()) == ["0.json", "1.json"]
