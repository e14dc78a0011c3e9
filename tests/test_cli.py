"""The command line: what reaches the stages, what is printed where, exit codes, and that help costs nothing."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import translate
import translate.stages.aligning
import translate.stages.decoding
import translate.stages.evaluation
import translate.stages.tokenization
import translate.stages.training
from translate.__main__ import main
from translate.config import Config
from translate.config.reader import load_config
from translate.config.writer import dump_config
from translate.errors import ConfigError, DataError, Interrupted, TranslateError, TryAgainError, escaped, explain
from translate.run import RunDirectory
from translate.stages.settings import refuse_unclear

CONFIG = """\
data:
  train: [{src: train.de, tgt: train.en}]
  valid: [{src: valid.de, tgt: valid.en}]
train: {max_steps: 10, ema: 0.9}
"""
COMMANDS = [
    "run",
    "tokenize",
    "train",
    "eval",
    "decode",
    "inspect attention",
    "inspect steps",
    "inspect alignments",
    "config show",
    "config check",
    "config schema",
]


@dataclass
class Report:
    """What a stage would have returned."""

    lines: list[str] = field(default_factory=lambda: ["done", "next: something"])

    def summary(self) -> list[str]:
        return self.lines


@dataclass
class Calls:
    """Stages that only note what they were called with, or fail in a given way."""

    seen: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    failure: BaseException | None = None

    def stage(self, name: str) -> Callable[..., Report]:
        def stub(*arguments: Any) -> Report:
            self.seen.append((name, arguments))
            if self.failure is not None:
                raise self.failure
            return Report([f"{name} done", f"next: after {name}"])

        return stub

    def config(self) -> Config:
        return next(argument for argument in self.seen[-1][1] if isinstance(argument, Config))

    def run(self) -> Path:
        return next(argument.root for argument in self.seen[-1][1] if isinstance(argument, RunDirectory))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(translate.stages.tokenization, "tokenize", found.stage("tokenize"))
    monkeypatch.setattr(translate.stages.training, "train", found.stage("train"))
    monkeypatch.setattr(translate.stages.evaluation, "evaluate", found.stage("eval"))
    monkeypatch.setattr(translate.stages.decoding, "decode", found.stage("decode"))
    monkeypatch.setattr(translate.stages.aligning, "inspect_alignments", found.stage("alignments"))
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with c.yaml, and with a run that was made from it and is then left alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    run = tmp_path / "runs" / "c"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(load_config(Path("c.yaml"))), encoding="utf-8")
    return tmp_path


# --- help


@pytest.mark.parametrize("command", ["", "config", "inspect", *COMMANDS])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert "Usage: translate" in out
    assert err == ""
    if command not in ("config", "inspect"):
        assert f"Example: translate {command}".strip() in out


def test_help_is_grouped_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.index("From text to a model") < out.index("From a model to results") < out.index("Settings")
    for command in {command.split()[0] for command in COMMANDS}:
        assert re.search(rf"│ {command}\s", out)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"translate {translate.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["decode", "--help"],
        ["inspect", "--help"],
        ["inspect", "steps", "--example"],
        ["--version"],
        ["config", "schema"],
    ],
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from translate.__main__ import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'datasets', 'matplotlib', 'sentencepiece', 'sacrebleu'} & sys.modules.keys()), code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[] 0"


def test_no_stage_loads_the_compiler_before_it_is_needed() -> None:
    code = "import sys, translate.stages.training, translate.stages.decoding; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what reaches the stages


def test_run_calls_the_stages_in_order(calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", "c.yaml", "--set", "train.lr=0.5", "--set", "name=other"]) == 0
    assert [name for name, _ in calls.seen] == ["tokenize", "train", "eval"]
    assert (calls.config().train.lr, calls.run()) == (0.5, Path("runs/other"))
    out, err = capsys.readouterr()
    assert out.split("\n") == ["tokenize done", "train done", "eval done", "next: after eval", ""]
    assert err == ""


@pytest.mark.parametrize(("test", "split"), [("[{src: test.de, tgt: test.en}]", "test"), ("[]", "valid")])
def test_run_scores_the_test_text_if_there_is_any(test: str, split: str, calls: Calls, here: Path) -> None:
    assert main(["run", "--config", "c.yaml", "--set", f"data.test={test}"]) == 0
    assert calls.seen[-1][1][2] == split


@pytest.mark.parametrize("command", ["tokenize", "train"])
def test_stages_of_making_a_run(command: str, calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--config", "c.yaml", "--run", "elsewhere"]) == 0
    assert calls.seen[-1][0] == command
    assert calls.run() == Path("elsewhere")
    assert calls.config() == load_config(here / "c.yaml")
    assert capsys.readouterr().out == f"{command} done\nnext: after {command}\n"


def test_training_goes_on_from_the_run_alone(calls: Calls, here: Path) -> None:
    assert main(["train", "--run", "runs/c", "--set", "train.max_steps=20"]) == 0
    assert (calls.run(), calls.config().train.max_steps) == (Path("runs/c"), 20)


@pytest.mark.parametrize("place", [["--run", "runs/c"], ["--config", "c.yaml"]])
def test_decode(place: list[str], calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--input in.txt --output out.txt --beam 7 --n-best 3 --length-penalty -0.5 --max-length 50 --batch-size 2"
    options += " --alignments links.txt"
    assert main(["decode", *place, *options.split(), "--weights", "ema", "--scores", "--set", "device=cpu"]) == 0
    run, source, target, config, scores, alignments = calls.seen[-1][1]
    assert (run.root, source, target, scores) == (Path("runs/c"), Path("in.txt"), Path("out.txt"), True)
    assert alignments == Path("links.txt")
    assert config.decode.model_dump() == {
        **{"beam": 7, "n_best": 3, "length_penalty": -0.5, "max_length": 50, "batch_size": 2, "weights": "ema"}
    }
    assert config.device == "cpu"
    out, err = capsys.readouterr()
    assert out == "", "standard output is for translations"
    assert err == "decode done\nnext: after decode\n"


def test_decode_filters_standard_input(calls: Calls, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["decode", "--run", "runs/c"]) == 0
    _, source, target, config, scores, alignments = calls.seen[-1][1]
    assert (source, target) == (sys.stdin.buffer, sys.stdout.buffer)
    assert not scores
    assert alignments is None
    assert config == load_config(here / "c.yaml")


def test_eval(calls: Calls, here: Path) -> None:
    arguments = "eval --run runs/c --split valid --weights last --beam 1 --lowercase --tokenize intl"
    assert main(arguments.split()) == 0
    run, config, split, source, reference, gold = calls.seen[-1][1]
    assert (run.root, split, source, reference, gold) == (Path("runs/c"), "valid", None, None, None)
    assert (config.decode.weights, config.decode.beam) == ("last", 1)
    assert (config.evaluate.lowercase, config.evaluate.tokenize) == (True, "intl")
    arguments = "eval --config c.yaml --source a.de --reference a.en --gold-alignments a.align"
    assert main(arguments.split()) == 0
    assert calls.seen[-1][1][3:] == (Path("a.de"), Path("a.en"), Path("a.align"))


def test_inspect_alignments(calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "inspect alignments --run runs/c --source a.de --target a.en --output a.links --weights last --beam 2"
    assert main(arguments.split()) == 0
    run, source, target, output, config = calls.seen[-1][1]
    assert (run.root, source, target, output) == (Path("runs/c"), Path("a.de"), Path("a.en"), Path("a.links"))
    assert (config.decode.weights, config.decode.beam) == ("last", 2)
    out, err = capsys.readouterr()
    assert out == "", "standard output is for links"
    assert err.startswith("alignments done\n")
    assert main(["inspect", "alignments", "--config", "c.yaml", "--source", "a.de"]) == 0
    assert calls.seen[-1][1][2:4] == (None, sys.stdout.buffer)


def test_a_config_file_says_how_to_translate_but_not_what_was_trained(calls: Calls, here: Path) -> None:
    changed = CONFIG.replace("max_steps: 10", "max_steps: 10, lr: 0.7")
    (here / "c.yaml").write_text(changed + "decode: {beam: 2}\nevaluate: {lowercase: true}\n", encoding="utf-8")
    assert main(["eval", "--config", "c.yaml", "--set", "train.threads=1"]) == 0
    config = calls.config()
    assert (config.decode.beam, config.evaluate.lowercase, config.train.threads) == (2, True, 1)
    assert config.train.lr == 1e-3


# --- settings


def test_config_show_reads_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", "c.yaml", "--set", "train.lr=0.25"]) == 0
    (here / "shown.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(here / "shown.yaml") == load_config(here / "c.yaml", ["train.lr=0.25"])


def test_config_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", "c.yaml"]) == 0
    assert capsys.readouterr().out == "c.yaml: sound; its run is runs/c\n"


def test_config_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert "train" in json.loads(capsys.readouterr().out)["properties"]


# --- failures


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (ConfigError("two\nlines"), 78, "error: two\nlines\n"),
        (DataError("a.de:3: bad"), 65, "error: a.de:3: bad\n"),
        (TryAgainError("in use"), 75, "error: in use\n"),
        (Interrupted(143, "stopped by SIGTERM"), 143, "error: stopped by SIGTERM\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 75, "error: out of memory; lower "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 75, "error: out of memory; lower "),
        (RuntimeError("CUDA error: out of memory"), 75, "error: out of memory; lower "),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), 75, "error: out of memory; lower "),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 74, "error: x: No space left on device; make room"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 66, "error: x: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 73, "error: x: Permission denied; choose another"),
        (OSError(errno.EIO, "Input/output error"), 74, "error: Input/output error"),
        (ZeroDivisionError("division by zero"), 70, "error: ZeroDivisionError: division by zero; this is a fault of"),
        (DataError("odd \x1b[31m name\udcff"), 65, "error: odd \\x1b[31m name\\udcff\n"),
    ],
)
def test_whatever_goes_wrong_is_one_message(
    failure: BaseException, code: int, message: str, calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.failure = failure
    assert main(["train", "--config", "c.yaml"]) == code
    out, err = capsys.readouterr()
    assert err.startswith(message)
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("decode --run runs/c --beam 2 --beam 3", "--beam is given twice: give it once"),
        ("decode --run=runs/c --run runs/d", "--run is given twice"),
        ("decode --run= --beam 2", "--run: is empty"),
        ("eval --run runs/c --source a", "--source and --reference go together"),
        ("train", "--config FILE is missing"),
        ("decode", "--run DIR is missing"),
        ("decode --run", "Option '--run' requires an argument"),
        ("decode --rum x", "No such option: --rum"),
        ("decod", "No such command 'decod'. Did you mean 'decode'? (see: translate --help)"),
        ("decode --run runs/c extra", "unexpected extra argument"),
        ("config", "Missing command (see: translate config --help)"),
        ("inspect attention --run runs/c", "Missing argument 'SENTENCE'"),
        ("inspect alignments --run runs/c", "Missing option '--source'"),
    ],
)
def test_wrong_usage(
    arguments: str, message: str, calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 64
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert message in err
    assert out == ""
    assert not calls.seen


def test_set_may_be_repeated_and_what_follows_two_dashes_is_text() -> None:
    refuse_unclear(["train", "--set", "a=1", "--set", "b=2", "--", "--run", "--run", ""])


def test_debug_shows_where(calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls.failure = ZeroDivisionError("division by zero")
    for arguments in (["--debug", "train", "--config", "c.yaml"], ["train", "--config", "c.yaml", "--debug"]):
        assert main(arguments) == 70
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert "test_cli.py" in err


def test_memory_of_a_gpu_is_recognised_by_name() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    assert explain(OutOfMemoryError("CUDA out of memory"))[0] == 75
    assert explain(RuntimeError("shape mismatch"))[0] == 70


def test_every_failure_has_its_own_code() -> None:
    def all_kinds(kind: type[TranslateError]) -> Iterator[type[TranslateError]]:
        for child in kind.__subclasses__():
            yield child
            yield from all_kinds(child)

    for kind in all_kinds(TranslateError):
        if kind is not Interrupted:
            assert explain(kind("x")) == (kind.exit_code, "x")


def test_messages_keep_their_lines_and_lose_control_characters() -> None:
    assert escaped("한국어\nb\tc\x00\u2028") == "한국어\nb\\tc\\x00\\u2028"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m translate config schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")
    assert done.returncode in (0, 141)  # 0 if the pipe took everything before its reader went away


@pytest.mark.parametrize("arguments", [["config", "schema"], ["--version"]])
def test_a_closed_pipe_is_silent(arguments: list[str]) -> None:
    """Whether it shows while much is written, or only when the little that was written is flushed."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "translate", *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=buffered, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("stdin", 66, "error: standard input is closed; give --input FILE\n"),
        ("stdout", 73, "error: standard output is closed; give --output FILE\n"),
    ],
)
def test_a_closed_stream_is_said(
    name: str,
    code: int,
    message: str,
    calls: Calls,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, name, None)
    assert main(["decode", "--run", "runs/c"]) == code
    assert capsys.readouterr().err == message


def test_without_standard_error_nothing_is_mixed_into_the_translations(
    calls: Calls, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["decode", "--run", "runs/c"]) == 0
    assert capsys.readouterr().out == ""


def test_sigterm_cleans_up_and_ends_with_143(calls: Calls, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def terminated(*_: Any) -> Report:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal should have ended this")
        finally:
            calls.seen.append(("cleaned", ()))

    translate.stages.training.train = terminated  # type: ignore[assignment]  # undone with the fixture's own patch
    before = signal.getsignal(signal.SIGTERM)
    assert main(["train", "--config", "c.yaml"]) == 143
    assert calls.seen[-1][0] == "cleaned"
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) == before
