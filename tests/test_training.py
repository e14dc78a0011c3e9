"""The train stage: when it stops, what it says, what it goes on with and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_config, tiny_corpus, write_corpus
from translate.config import Config
from translate.config.reader import load_config
from translate.errors import CheckpointError, ConfigError, MissingInputError
from translate.run import RunDirectory
from translate.stages.training import TrainingReport, train
from translate.text.encoded import load_split
from translate.text.tokenizer import Tokenizer
from translate.training.checkpoint import CheckpointList, Learner
from translate.training.loop import Loop
from translate.training.progress import Progress, Validation
from translate.training.tensorfile import TensorFile
from translate.training.validation import Validator

END = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to the end in one go."""
    root = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_config(corpus, max_steps=END), RunDirectory(root))
    return root


@pytest.fixture(scope="module")
def stopped(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_config(corpus, max_steps=5), RunDirectory(root))
    return root


@pytest.fixture
def begun(stopped: Path, tmp_path: Path) -> Path:
    """A run of five steps, to go on with."""
    shutil.copytree(stopped, tmp_path / "begun")
    return tmp_path / "begun"


def changed(config: Config, key: str, value: object) -> Config:
    """The settings with one of them changed, by its dotted name."""
    settings = config.model_dump()
    *path, last = key.split(".")
    part: Any = settings
    for name in path:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = value
    return Config.model_validate(settings)


def files(root: Path) -> dict[str, bytes]:
    """Every file of a run but its lock, which says who held it last."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "lock"}


def learnt(root: Path, step: int = END) -> dict[str, bytes]:
    saved = TensorFile(root / "checkpoints" / f"step-{step:08}.safetensors")
    return {name: saved.tensor(name).numpy().tobytes() for name in saved.names()}


# When it stops, and what it says


def scripted(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validation after step n find losses[n - 1]."""

    def validate(_: Validator, learner: Learner, check: object) -> Validation:
        step = learner.progress.step
        return Validation(step, losses[step - 1], None)

    monkeypatch.setattr(Validator, "__call__", validate)


@pytest.mark.parametrize(
    ("patience", "losses", "last", "best"),
    [(2, [3.0, 2.0, 2.5, 2.0, 1.0], 4, 2), (1, [3.0, 2.0, 1.0, 1.5, 0.5], 4, 3), (3, [1.0, 2.0, 3.0, 4.0], 4, 1)],
)
def test_patience_stops_and_the_best_checkpoint_is_kept(
    patience: int,
    losses: list[float],
    last: int,
    best: int,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(losses, monkeypatch)
    rest = {"best": "loss", "validate_every": 1, "keep_last": 1, "average": 0, "save_every": 100}
    config = tiny_config(corpus, max_steps=None, patience=patience, **rest)
    report = train(config, RunDirectory(tmp_path / "run"))
    assert report.reason == f"{patience} validations without a better one (train.patience)"
    assert report.progress.step == last
    listed = CheckpointList.read(RunDirectory(tmp_path / "run"))
    assert ([entry.step for entry in listed.checkpoints], listed.best, listed.last) == ([best, last], best, last)
    assert report.summary()[1] == f"best checkpoint: step {best}, validation loss {losses[best - 1]:.4f}"
    assert not train(config, RunDirectory(tmp_path / "run")).ran


def test_max_epochs_stops_at_the_end_of_an_epoch(corpus: Path, tmp_path: Path) -> None:
    config = tiny_config(corpus, max_steps=None, max_epochs=1, update_tokens=500)
    report = train(config, RunDirectory(tmp_path / "run"))
    tokens = int(load_split(RunDirectory(tmp_path / "run"), "train").tgt_lengths.sum())
    assert report.progress.tokens == tokens
    assert tokens / 500 <= report.progress.step < tokens / 300
    assert report.reason == "train.max_epochs (1) reached"


def test_the_report_says_what_came_out_and_what_is_next(tmp_path: Path) -> None:
    progress = Progress(7, validations=[Validation(3, 2.5, 1.25), Validation(7, 2.25, 0.5)])
    report = TrainingReport(tmp_path, "train.max_steps (7) reached", progress, "bleu", ran=True)
    assert report.summary() == [
        "training ended at step 7: train.max_steps (7) reached",
        "best checkpoint: step 3, validation loss 2.5000, greedy BLEU 1.25",
        f"run: {tmp_path}",
        f"next: translate eval --run {tmp_path}",
    ]


def test_a_run_that_had_ended_is_left_as_it_is(corpus: Path, whole: Path) -> None:
    before = files(whole)
    report = train(tiny_config(corpus, max_steps=END), RunDirectory(whole))
    assert report.summary()[0] == f"nothing to do, training had ended at step {END}: train.max_steps ({END}) reached"
    assert report.summary()[1].startswith(f"best checkpoint: step {report.progress.best_step('bleu')}, ")
    assert files(whole) == before


def test_a_new_run_says_what_it_trains_and_how_it_goes(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = train(tiny_config(corpus, max_steps=3), RunDirectory(tmp_path / "run"))
    told = capsys.readouterr().err.split("\n")
    saved = TensorFile(tmp_path / "run" / "checkpoints" / "step-00000003.safetensors")
    size = sum(int(torch.tensor(saved.entries[name]["shape"]).prod()) for name in saved.names("model."))
    assert f"training {size / 1e6:.2f} M weights on cpu, fp32, 1 thread, fp32 products 'highest'" in told
    loss = report.progress.validations[0].loss
    assert any(line.startswith(f"step 3: validation loss {loss:.4f} (perplexity ") for line in told)
    assert any(line.endswith("the best so far [0:00]") for line in told)
    assert any(line.startswith("train: kept 90 of 90 pairs") for line in told)


# Going on: what may change, and what may not


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train.lr", 0.5, "train.lr: 0.01 → 0.5"),
        ("seed", 2, "seed: 1 → 2"),
        ("model.decoder.layers", 2, "model.decoder.layers: 1 → 2"),
        ("train.ema", 0.0, "train.ema: 0.9 → 0.0"),
        ("train.init_from", "@", "train.init_from: not set → @"),
        ("data.cleaning.max_length", 3, "data.cleaning.max_length: 256 → 3"),
        ("tokenizer.vocab_size", 61, "tokenizer.vocab_size: 60 → 61"),
    ],
)
def test_a_change_that_would_spoil_the_run_is_refused_and_nothing_is_touched(
    key: str, value: object, line: str, corpus: Path, begun: Path, whole: Path
) -> None:
    before = files(begun)
    value, line = (str(whole), line.replace("@", str(whole))) if value == "@" else (value, line)
    with pytest.raises(ConfigError) as caught:
        train(changed(tiny_config(corpus, max_steps=END), key, value), RunDirectory(begun))
    assert str(caught.value).split("\n") == [
        f"run {begun}: was trained with other settings:",
        f"  {line}",
        f"take them back, choose another --run, or start a new run from these weights with train.init_from: {begun}",
    ]
    assert caught.value.exit_code == 78
    assert files(begun) == before


def test_steps_and_search_may_change_freely(
    corpus: Path, begun: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(corpus, max_steps=END)
    for key, value in {"decode.beam": 3, "evaluate.lowercase": True, "train.log_every": 1, "name": "other"}.items():
        config = changed(config, key, value)
    report = train(config, RunDirectory(begun))
    assert (report.ran, report.progress.step) == (True, END)
    assert learnt(begun) == learnt(whole)
    assert load_config(begun / "config.yaml", []) == config
    told = capsys.readouterr().err
    assert "warning" not in told
    assert "going on from step 5" in told


@pytest.mark.parametrize(
    ("key", "value", "line", "same"),
    [
        ("train.batch_tokens", 90, "train.batch_tokens: 50 → 90", False),
        ("train.threads", 2, "train.threads: 1 → 2", True),
        ("train.precision", "bf16", "train.precision: fp32 → bf16", False),
        ("train.precision", "auto", "train.precision: fp32 → auto", True),
    ],
)
def test_a_change_that_costs_the_same_bits_is_told(
    key: str,
    value: object,
    line: str,
    same: bool,
    corpus: Path,
    begun: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # several threads crawl on a busy machine
    train(changed(tiny_config(corpus, max_steps=END), key, value), RunDirectory(begun))
    assert f"warning: {line}; from here on the run is no longer bit-identical\n" in capsys.readouterr().err
    assert (learnt(begun) == learnt(whole)) == same


def test_text_may_move_but_not_change(corpus: Path, begun: Path, whole: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    config = tiny_config(moved, max_steps=END)
    text = (moved / "train.tgt").read_bytes()
    place = text.index(b"water")
    (moved / "train.tgt").write_bytes(text[:place] + b"W" + text[place + 1 :])
    with pytest.raises(
        CheckpointError, match=r"was trained with other data \(\w{12}\) than the run has now \(\w{12}\)"
    ):
        train(config, RunDirectory(begun))
    assert learnt(begun, 5)
    assert CheckpointList.read(RunDirectory(begun)).last == 5
    (moved / "train.tgt").write_bytes(text)
    assert train(config, RunDirectory(begun)).progress.step == END
    assert learnt(begun) == learnt(whole)


# Fine-tuning


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text in which other words are frequent."""
    directory = tiny_corpus(tmp_path_factory.mktemp("other"))
    write_corpus(directory, "train", 40, 77)
    return directory


@pytest.fixture(scope="module")
def base(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best weights are not its last."""
    root = tmp_path_factory.mktemp("base") / "run"
    shutil.copytree(whole, root)
    listed = CheckpointList.read(RunDirectory(root))
    listed.best = listed.checkpoints[0].step
    assert listed.best != listed.last
    listed.write(RunDirectory(root))
    return root


def test_fine_tuning_takes_weights_and_tokenizer_and_begins_anew(
    base: Path, other_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = CheckpointList.read(RunDirectory(base))
    assert listed.best is not None
    best = learnt(base, listed.best)
    weights = {name.removeprefix("model."): data for name, data in best.items() if name.startswith("model.")}
    started: list[bool] = []
    original: Callable[[Loop], str] = Loop.train

    def look(self: Loop) -> str:
        learner = self.learner
        assert {name: p.detach().numpy().tobytes() for name, p in learner.model.named_parameters()} == weights
        assert learner.ema is not None
        assert {name: tensor.numpy().tobytes() for name, tensor in learner.ema.weights.items()} == weights
        assert not learner.optimizer.state
        assert learner.progress == Progress()
        started.append(True)
        return original(self)

    monkeypatch.setattr(Loop, "train", look)
    config = changed(tiny_config(other_corpus, max_steps=2, init_from=str(base)), "model.encoder.dropout", 0.2)
    before = files(base)
    report = train(config, RunDirectory(tmp_path / "tuned"))
    assert started == [True]
    assert report.progress.step == 2
    assert files(base) == before

    digest = Tokenizer.open(base / "tokenizer").digest
    assert Tokenizer.open(tmp_path / "tuned" / "tokenizer").digest == digest
    saved = TensorFile(tmp_path / "tuned" / "checkpoints" / "step-00000002.safetensors")
    assert saved.metadata["tokenizer_digest"] == digest
    assert json.loads(saved.metadata["progress"])["step"] == 2
    monkeypatch.setattr(Loop, "train", lambda _: "")
    train(tiny_config(other_corpus, max_steps=1), RunDirectory(tmp_path / "fresh"))
    assert Tokenizer.open(tmp_path / "fresh" / "tokenizer").digest != digest  # its own text would give another


def test_fine_tuning_goes_on_with_the_same_bits_even_where_the_first_run_is_gone(
    base: Path, other_corpus: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    shutil.copytree(base, first)
    train(tiny_config(other_corpus, max_steps=3, init_from=str(first)), RunDirectory(tmp_path / "one"))
    train(tiny_config(other_corpus, max_steps=1, init_from=str(first)), RunDirectory(tmp_path / "halves"))
    shutil.rmtree(first)
    train(tiny_config(other_corpus, max_steps=3, init_from=str(first)), RunDirectory(tmp_path / "halves"))
    assert learnt(tmp_path / "halves", 3) == learnt(tmp_path / "one", 3)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("model.decoder.feed_forward", 48, "model.decoder.feed_forward: 32 → 48"),
        ("model.encoder.heads", 4, "model.encoder.heads: 2 → 4"),  # the same shapes, and yet another function
        ("model.tie", "none", "model.tie: all → none"),
    ],
)
def test_fine_tuning_another_model_is_refused(
    key: str, value: object, line: str, base: Path, other_corpus: Path, tmp_path: Path
) -> None:
    config = changed(tiny_config(other_corpus, init_from=str(base)), key, value)
    with pytest.raises(ConfigError) as caught:
        train(config, RunDirectory(tmp_path / "run"))
    assert str(caught.value) == f"train.init_from: {base} has another model ({line}); copy its section"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_fine_tuning_with_another_tokenizer_is_refused(base: Path, other_corpus: Path, tmp_path: Path) -> None:
    config = changed(tiny_config(other_corpus, init_from=str(base)), "data.normalization", "nfkc")
    with pytest.raises(ConfigError, match=r"has another tokenizer; leave out .* copy its data\.normalization"):
        train(config, RunDirectory(tmp_path / "run"))


@pytest.mark.parametrize("there", [False, True])
def test_fine_tuning_from_no_run_is_refused_before_anything_is_written(
    there: bool, corpus: Path, tmp_path: Path
) -> None:
    if there:
        (tmp_path / "none").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MissingInputError, match=f"run {tmp_path / 'none'}: "):
        train(tiny_config(corpus, init_from=str(tmp_path / "none")), RunDirectory(tmp_path / "run"))
    assert sorted(tmp_path.rglob("*")) == before
