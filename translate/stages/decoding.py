"""translate decode: lines of text in, as many lines of translations out."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from translate.config import Config
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translation, Translator
from translate.device import resolve
from translate.errors import OutputError, StorageError, UsageError
from translate.run import Progress, RunDirectory, creating, durable_write, note
from translate.text.lines import count_lines, opened, parse_lines, read_lines
from translate.training.checkpoint import load_model

WARNINGS = 10
"""Lines without a translation that are named one by one."""


@dataclass
class DecodingReport:
    """What decoding came to; `failed` are the lines (from 1) for which the model gave no finite probabilities."""

    lines: int = 0
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    target: Path | None = None

    def count(self, translations: Sequence[Translation]) -> None:
        """Note one more line of input."""
        self.lines += 1
        if not translations[0].found:
            self.failed.append(self.lines)
            if len(self.failed) <= WARNINGS:
                note(f"warning: line {self.lines}: the model gave no finite probabilities, its translation is empty")

    def summary(self) -> list[str]:
        """A few lines for the user."""
        speed = f"{self.lines / self.seconds:.1f} lines/s" if self.seconds else "-"
        found = [f"{self.lines} lines translated in {self.seconds:.1f} s ({speed})"]
        if self.failed:
            found.append(
                f"warning: {len(self.failed)} lines have no translation; try decode.weights: last, or train on"
            )
        if self.target is not None:
            found.append(f"translations: {self.target}")
        return found


def decode(
    run: RunDirectory, source: Path | BinaryIO, target: Path | BinaryIO, config: Config, scores: bool = False
) -> DecodingReport:
    """Translate each line of `source` with the run's model, as config.decode says, into n_best lines of `target`.

    A file appears whole or not at all; into a stream each line goes as soon as its window is translated. With `scores`
    a line begins with the score and a tab. Raises DataError for what is not UTF-8: of a file before anything else is
    done, of a stream after the lines before it were written. BrokenPipeError goes up to the caller.
    """
    _check_places(source, target)
    total = count_lines(source) if isinstance(source, Path) and source.is_file() else None
    machine = resolve(
        config.device, "fp32", config.train.threads, config.train.matmul, run.machine_file, remember=False
    )
    device = torch.device(machine.device)
    loaded = load_model(run, config.decode.weights, device)
    translator = Translator(Scorer([loaded.model]), loaded.tokenizer, config.decode, device)
    report = DecodingReport(target=target if isinstance(target, Path) else None)
    started = time.monotonic()
    quiet = not isinstance(target, Path) and target.isatty()
    with closing(_lines(source)) as lines, nullcontext() if quiet else Progress(total, "decode", "lines") as bar:
        output = _written(translator.translate(lines), scores, report, bar)
        if not isinstance(target, Path):
            _stream(target, "standard output", output)
        elif target.exists() and not target.is_file():  # a pipe or a device
            with creating(target), target.open("wb") as stream:
                _stream(stream, str(target), output)
        else:
            durable_write(target, output)
    report.seconds = time.monotonic() - started
    return report


def _check_places(source: Path | BinaryIO, target: Path | BinaryIO) -> None:
    """Refuse to write where nothing can be written, and to write over what is being read."""
    if not isinstance(target, Path):
        return
    if target.is_dir():
        raise OutputError(f"{target}: is a directory, expected the name of a file to write")
    if isinstance(source, Path) and source.exists() and target.exists() and source.samefile(target):
        raise UsageError(f"{target}: is the input as well; give --output another name")


def _lines(source: Path | BinaryIO) -> Generator[str, None, None]:
    """The lines of a file, a pipe with a name, or a stream."""
    if not isinstance(source, Path):
        yield from parse_lines(source, "standard input")
    elif source.is_file():
        yield from read_lines(source)
    else:
        with opened(source) as stream:
            yield from parse_lines(stream, str(source))


def _written(
    translated: Iterable[list[Translation]], scores: bool, report: DecodingReport, bar: Progress | None
) -> Iterator[bytes]:
    """What is written for each line of input, n_best lines at once; keeps count."""
    for translations in translated:
        report.count(translations)
        if bar is not None:
            bar.advance(1)
        yield "".join(_line(each, scores) for each in translations).encode()


def _line(translation: Translation, scores: bool) -> str:
    return f"{translation.score:.6f}\t{translation.text}\n" if scores else f"{translation.text}\n"


def _stream(stream: BinaryIO, name: str, output: Iterable[bytes]) -> None:
    """Write line by line. Raises StorageError, except for a reader that went away."""
    for chunk in output:
        try:
            stream.write(chunk)
            stream.flush()
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the stream has been closed
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(f"{name}: writing failed ({reason}); make room, or write elsewhere") from error
