import contextlib
import gzip
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.stub_model import POISON, StubDecoder, StubEncoder, stub_model
from tests.test_alignment import untrained
from tests.test_tokenizer import SRC, learnt
from tests.test_translator import LETTERS, Letters
from tests.tiny import tiny_config
from translate.config import Config, ModelConfig, RnnAttentionConfig, RnnDecoderConfig, RnnEncoderConfig
from translate.decoding.aligner import Aligner
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.durable import durable_file
from translate.errors import DataError, MissingInputError, OutputError, StorageError, UsageError
from translate.evaluation.alignment import pharaoh
from translate.models.seq2seq import Seq2Seq
from translate.run import RunDirectory
from translate.stages import decoding, sharing
from translate.stages.decoding import decode
from translate.text.tokenizer import EOS, Tokenizer
from translate.training.checkpoint import LoadedModel

LINES = ["adg", "", "h", "  ", "deadbeef", "a", "gg", "fade", "head"]


class FakeRun:
    """A run whose model is a stub; it says which weights were asked for."""

    def __init__(self, root: Path) -> None:
        self.directory = RunDirectory(root)
        self.model: Seq2Seq = stub_model(11, 1)
        self.config = tiny_config(root)
        self.asked: list[str] = []

    def load(self, run: RunDirectory, which: str, device: torch.device) -> LoadedModel:
        self.asked.append(which)
        return LoadedModel(self.model, cast(Tokenizer, Letters()), self.config, 7, "these weights")

    def decode(self, **settings: Any) -> Config:
        return self.config.model_copy(update={"decode": self.config.decode.model_copy(update=settings)})

    def expected(self, lines: list[str], **settings: Any) -> list[list[Any]]:
        config = self.decode(**settings).decode
        translator = Translator(Scorer([self.model]), cast(Tokenizer, Letters()), config, torch.device("cpu"))
        return list(translator.translate(lines))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun(tmp_path / "run")
    monkeypatch.setattr(sharing, "load_model", fake.load)
    return fake


def source_file(directory: Path, data: bytes) -> Path:
    path = directory / "source.txt"
    path.write_bytes(data)
    return path


def text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_as_many_lines_out_as_in(fake: FakeRun, tmp_path: Path) -> None:
    target, old = tmp_path / "out.txt", tmp_path / "old.txt"
    target.write_bytes(b"old\n")
    old.hardlink_to(target)
    report = decode(fake.directory, source_file(tmp_path, text(LINES)), target, fake.config)
    assert target.read_bytes() == text([each[0].text for each in fake.expected(LINES)])
    assert (report.lines, report.failed) == (len(LINES), [])
    assert fake.asked == ["best"]
    assert old.read_bytes() == b"old\n"  # replaced by a whole file, not written over
    assert not fake.directory.root.exists()  # the run is only read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.txt", "out.txt", "source.txt"]
    assert str(target) in report.summary()[-1]


@pytest.mark.parametrize("kind", ["file", "gzip", "stdin", "stdin to file", "no last newline"])
def test_every_way_in_and_out_is_the_same(fake: FakeRun, tmp_path: Path, kind: str) -> None:
    data = text(LINES)
    if kind == "no last newline":
        data = data[:-1]
    packed = gzip.compress(data) if kind == "gzip" else data
    source = io.BytesIO(packed) if "stdin" in kind else source_file(tmp_path, packed)
    target = io.BytesIO() if kind == "stdin" else tmp_path / "out.txt"
    decode(fake.directory, source, target, fake.config)
    found = target.getvalue() if isinstance(target, io.BytesIO) else target.read_bytes()
    assert found == text([each[0].text for each in fake.expected(LINES)])


def test_n_best_lines_with_scores(fake: FakeRun) -> None:
    out = io.BytesIO()
    decode(fake.directory, io.BytesIO(text(LINES)), out, fake.decode(beam=3, n_best=2), scores=True)
    found = [line.split("\t") for line in out.getvalue().decode().split("\n")[:-1]]
    expected = [each for best in fake.expected(LINES, beam=3, n_best=2) for each in best]
    assert len(found) == 2 * len(LINES)
    assert [line for _, line in found] == [each.text for each in expected]
    assert [float(value) for value, _ in found] == pytest.approx([each.score for each in expected], abs=1e-6)


def test_nothing_in_nothing_out(fake: FakeRun, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    assert decode(fake.directory, source_file(tmp_path, b""), target, fake.config).lines == 0
    assert target.read_bytes() == b""


def test_bad_text_in_a_file_is_found_before_the_model_is_loaded(fake: FakeRun, tmp_path: Path) -> None:
    source = source_file(tmp_path, b"adg\n" * 500 + b"h\xffh\n")
    with pytest.raises(DataError, match=r"source\.txt:501:"):
        decode(fake.directory, source, tmp_path / "out.txt", fake.config)
    assert fake.asked == []
    assert list(tmp_path.iterdir()) == [source]


def test_bad_text_in_a_stream_comes_after_the_lines_before_it(fake: FakeRun) -> None:
    out = io.BytesIO()
    with pytest.raises(DataError, match="standard input:8:"):
        decode(fake.directory, io.BytesIO(text(LINES[:7]) + b"h\xffh\nadg\n"), out, fake.config)
    assert out.getvalue() == text([each[0].text for each in fake.expected(LINES[:7])])


def test_missing_input(fake: FakeRun, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere"):
        decode(fake.directory, tmp_path / "nowhere", tmp_path / "out.txt", fake.config)
    assert list(tmp_path.iterdir()) == []


def test_input_as_output_is_refused(fake: FakeRun, tmp_path: Path) -> None:
    source = source_file(tmp_path, text(LINES))
    link = tmp_path / "link.txt"
    link.symlink_to(source)
    for target in (source, link, tmp_path / ".." / tmp_path.name / "source.txt"):
        with pytest.raises(UsageError, match="is the input as well"):
            decode(fake.directory, source, target, fake.config)
    assert source.read_bytes() == text(LINES)
    with pytest.raises(OutputError, match="is a directory"):
        decode(fake.directory, source, tmp_path, fake.config)


def test_a_failure_leaves_the_old_output(fake: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.txt"
    target.write_bytes(b"old\n")
    translations = fake.expected(["a", "h"])

    def broken(self: Translator, lines: Iterator[str]) -> Iterator[Any]:
        yield from translations
        raise KeyboardInterrupt

    monkeypatch.setattr(Translator, "translate", broken)
    source = source_file(tmp_path, text(LINES))
    with pytest.raises(KeyboardInterrupt):
        decode(fake.directory, source, target, fake.config)
    assert target.read_bytes() == b"old\n"
    assert sorted(tmp_path.iterdir()) == [target, source]


def test_a_full_device_is_a_storage_error(fake: FakeRun, tmp_path: Path) -> None:
    source = source_file(tmp_path, text(LINES))
    with pytest.raises(StorageError, match=r"/dev/full: writing failed \(No space left on device\)"):
        decode(fake.directory, source, Path("/dev/full"), fake.config)
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        with pytest.raises(StorageError, match="standard output: writing failed"):
            decode(fake.directory, source, full, fake.config)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that closing does not fail again


def test_a_reader_that_goes_away_is_left_to_the_caller(fake: FakeRun) -> None:
    receiver, sender = os.pipe()
    os.close(receiver)
    with pytest.raises(BrokenPipeError), os.fdopen(sender, "wb", buffering=0) as gone:
        decode(fake.directory, io.BytesIO(text(LINES)), gone, fake.config)


def test_a_named_pipe_is_a_stream(fake: FakeRun, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(text(LINES),))
    writer.start()
    out = io.BytesIO()
    assert decode(fake.directory, pipe, out, fake.config).lines == len(LINES)
    writer.join()
    assert out.getvalue() == text([each[0].text for each in fake.expected(LINES)])


def test_lines_are_written_as_soon_as_they_are_translated(fake: FakeRun) -> None:
    out = io.BytesIO()
    asked = 0

    class Conversation(io.RawIOBase):
        """Gives the next line only once the line before it has been answered."""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            nonlocal asked
            assert out.getvalue().count(b"\n") == asked
            if asked == 5:
                return 0
            asked += 1
            buffer[:4] = b"adg\n"
            return 4

    decode(fake.directory, io.BufferedReader(Conversation()), out, fake.decode(batch_size=1))
    assert asked == 5


def test_lines_that_become_nan_are_empty_and_named(fake: FakeRun, capfd: pytest.CaptureFixture[str]) -> None:
    assert isinstance(fake.model.decoder, StubDecoder)
    fake.model.decoder.table[:, EOS] = -9.0
    bad = LETTERS[POISON]
    lines = ["a", bad, "h", *[bad] * 11]
    out = io.BytesIO()
    report = decode(fake.directory, io.BytesIO(text(lines)), out, fake.config)
    found = out.getvalue().decode().split("\n")[:-1]
    assert report.failed == [2, *range(4, 15)]
    assert [bool(line) for line in found] == [True, False, True] + [False] * 11
    warnings = capfd.readouterr().err.split("\n")
    assert warnings[0] == "warning: line 2: the model gave no finite probabilities, its translation is empty"
    assert sum("finite" in warning for warning in warnings) == 10
    assert "12 lines have no translation" in "\n".join(report.summary())


def test_memory_is_that_of_a_window(fake: FakeRun) -> None:
    encoder = cast(StubEncoder, fake.model.encoder)
    out = io.BytesIO()
    reached: list[int] = []

    class Source(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            reached.append(out.getvalue().count(b"\n"))
            return super().readline(size)

    decode(fake.directory, Source(b"a\n" * 1000), out, fake.decode(batch_size=4, beam=1))
    assert all(number - answered <= 4 * 16 + 1 for number, answered in enumerate(reached))
    assert len(encoder.seen) == 1000


def test_weights_are_those_of_the_setting(fake: FakeRun) -> None:
    decode(fake.directory, io.BytesIO(b"a\n"), io.BytesIO(), fake.decode(weights="average"))
    assert fake.asked == ["average"]


# --- alignments


@pytest.fixture
def looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A run's model with attention and random weights."""
    tokenizer = learnt(vocab_size=300)
    model, part = untrained("rnn", tokenizer)
    loaded = LoadedModel(model, tokenizer, tiny_config(tmp_path).model_copy(update={"model": part}), 7, "these")
    monkeypatch.setattr(sharing, "load_model", lambda *_: loaded)
    return loaded


def searching(loaded: LoadedModel, **settings: Any) -> Config:
    return loaded.config.model_copy(update={"decode": loaded.config.decode.model_copy(update=settings)})


@pytest.mark.parametrize(("beam", "n_best", "scores"), [(1, 1, False), (3, 1, True), (5, 4, False), (5, 5, True)])
def test_a_line_of_links_for_each_line_of_output(
    looking: LoadedModel, tmp_path: Path, beam: int, n_best: int, scores: bool
) -> None:
    """And the translations are those that come without alignments."""
    config = searching(looking, beam=beam, n_best=n_best, max_length=5)
    lines = [*SRC[:9], "", "  ", SRC[9], "\u200b"]
    run, plain, out, links = RunDirectory(tmp_path / "run"), io.BytesIO(), io.BytesIO(), tmp_path / "new" / "links"
    decode(run, io.BytesIO(text(lines)), plain, config, scores)
    report = decode(run, io.BytesIO(text(lines)), out, config, scores, links)
    assert out.getvalue() == plain.getvalue()
    assert f"alignments: {links}" in report.summary()
    found = links.read_text(encoding="utf-8").split("\n")
    assert len(found) == len(out.getvalue().split(b"\n")) == n_best * len(lines) + 1
    assert [path.name for path in links.parent.iterdir()] == ["links"]
    aligner = Aligner(looking.model, looking.tokenizer, looking.config.model.decoder, 64)
    scorer = Scorer([looking.model])
    translator = Translator(scorer, looking.tokenizer, config.decode, torch.device("cpu"))
    best = [(line, each.ids) for line, all in zip(lines, translator.translate(lines), strict=True) for each in all]
    assert found[:-1] == [pharaoh(each) for each in aligner.own(best)]
    assert sum(map(bool, found)) > 5
    assert not any(found[9 * n_best : 11 * n_best]), "blank lines have no links"


def test_links_are_written_as_lines_are_translated(
    looking: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is kept until the end, and no line waits for the next."""
    done = asked = 0
    out, real = io.BytesIO(), durable_file

    @contextlib.contextmanager
    def counting(path: Path) -> Iterator[Any]:
        def count(data: bytes) -> None:
            nonlocal done
            done += 1
            write(data)

        with real(path) as write:
            yield count

    class Conversation(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            nonlocal asked
            assert out.getvalue().count(b"\n") == done == asked
            if asked == 5:
                return 0
            asked += 1
            buffer[:3] = b"ka\n"
            return 3

    monkeypatch.setattr(decoding, "durable_file", counting)
    config = searching(looking, batch_size=1)
    decode(RunDirectory(tmp_path), io.BufferedReader(Conversation()), out, config, False, tmp_path / "links")
    assert asked == 5


@pytest.mark.parametrize("target", ["file", "stream"])
def test_alignments_are_whole_or_not_there(looking: LoadedModel, tmp_path: Path, target: str) -> None:
    output, links = tmp_path / "out.txt", tmp_path / "links"
    output.write_bytes(b"old\n")
    links.write_bytes(b"0-0\n")
    bad = io.BytesIO(text(SRC[:20]) + b"h\xffh\n")
    stream = io.BytesIO()
    with pytest.raises(DataError, match="standard input:21:"):
        decode(RunDirectory(tmp_path), bad, output if target == "file" else stream, looking.config, False, links)
    assert (output.read_bytes(), links.read_bytes()) == (b"old\n", b"0-0\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["links", "out.txt"]
    receiver, sender = os.pipe()
    os.close(receiver)
    with pytest.raises(BrokenPipeError), os.fdopen(sender, "wb", buffering=0) as gone:
        decode(RunDirectory(tmp_path), io.BytesIO(text(SRC[:3])), gone, looking.config, False, links)
    assert links.read_bytes() == b"0-0\n"


def test_where_alignments_cannot_go(looking: LoadedModel, tmp_path: Path) -> None:
    source = source_file(tmp_path, text(LINES))
    output, pipe, run = tmp_path / "out.txt", tmp_path / "pipe", RunDirectory(tmp_path)
    os.mkfifo(pipe)
    for place, error, message in (
        (source, UsageError, "is the input as well; give --alignments another name"),
        (output, UsageError, r"out\.txt: is the output as well; give --alignments another name"),
        (tmp_path / ".." / tmp_path.name / "out.txt", UsageError, "is the output as well"),
        (tmp_path, OutputError, "is a directory"),
        (pipe, OutputError, "pipe: is no regular file"),
        (source / "links", OutputError, "source.txt/links: cannot be written"),
    ):
        with pytest.raises(error, match=message):
            decode(run, source, output, looking.config, False, place)
    assert sorted(tmp_path.iterdir()) == [pipe, source]
    assert pipe.is_fifo()


def test_alignments_need_attention(fake: FakeRun, tmp_path: Path) -> None:
    decoder = RnnDecoderConfig(input_feeding=False, attention=RnnAttentionConfig(score="none"))
    model = ModelConfig(encoder=RnnEncoderConfig(), decoder=decoder)
    fake.config = fake.config.model_copy(update={"model": model})
    out = io.BytesIO()
    with pytest.raises(DataError, match="score is none"):
        decode(fake.directory, io.BytesIO(text(LINES)), out, fake.config, False, tmp_path / "links")
    assert (out.getvalue(), list(tmp_path.iterdir())) == (b"", [])
