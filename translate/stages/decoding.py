"""translate decode: lines of text in, as many lines of translations out."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from translate.bar import Bar, note
from translate.config import Config
from translate.decoding.aligner import Aligner
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translation
from translate.device import resolve_for_use
from translate.durable import creating, durable_file, durable_write
from translate.errors import OutputError, StorageError, UsageError
from translate.evaluation.alignment import pharaoh
from translate.run import RunDirectory
from translate.stages.sharing import SharedTranslator, load_together
from translate.text.lines import count_lines, opened, parse_lines, read_lines
from translate.training.distributed import Ranks, in_contact, joined

WARNINGS = 10
"""Lines without a translation that are named one by one."""


@dataclass
class DecodingReport:
    """What decoding came to; `failed` are the lines (from 1) for which the model gave no finite probabilities."""

    lines: int = 0
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    target: Path | None = None
    alignments: Path | None = None
    mute: bool = False
    """Whether another process speaks for this one."""

    def count(self, translations: Sequence[Translation]) -> None:
        """Note one more line of input."""
        self.lines += 1
        if not translations[0].found:
            self.failed.append(self.lines)
            if len(self.failed) <= WARNINGS and not self.mute:
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
        if self.alignments is not None:
            found.append(f"alignments: {self.alignments}")
        return found


def decode(
    run: RunDirectory,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    config: Config,
    scores: bool = False,
    alignments: Path | None = None,
) -> DecodingReport:
    """Translate each line of `source` with the run's model, as config.decode says, into n_best lines of `target`.

    A file appears whole or not at all; into a stream each line goes as soon as its window is translated. With `scores`
    a line begins with the score and a tab. The file `alignments` gets the links of each line of `target` in Pharaoh
    format, and is there when all lines are. Raises DataError for what is not UTF-8: of a file before anything else is
    done, of a stream after the lines before it were written; and if alignments are asked of a model without attention.
    BrokenPipeError goes up to the caller. Under torchrun every process reads the file, and the first one writes.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" and not (isinstance(source, Path) and source.is_file()):
        raise UsageError("several processes cannot share a stream; give --input the name of a file")
    check_places(source, target, alignments)
    with joined(config.device) as ranks, in_contact(ranks, "run the same command again"):
        return _decode(run, source, target, config, scores, alignments, ranks)


def _decode(
    run: RunDirectory,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    config: Config,
    scores: bool,
    alignments: Path | None,
    ranks: Ranks,
) -> DecodingReport:
    total = count_lines(source) if isinstance(source, Path) and source.is_file() else None
    machine = resolve_for_use(config, run, ranks.on_this_machine)
    device = torch.device(machine.device)
    loaded = load_together(run, config.decode.weights, device, ranks)
    align = None
    if alignments is not None:
        decoder = loaded.config.model.decoder
        align = Aligner(loaded.model, loaded.tokenizer, decoder, config.decode.batch_size).own
    translator = SharedTranslator(ranks, Scorer([loaded.model]), loaded.tokenizer, config.decode, device, align=align)
    file = target if isinstance(target, Path) else None
    report = DecodingReport(target=file, alignments=alignments, mute=not ranks.first)
    started = time.monotonic()
    quiet = not ranks.first or (not isinstance(target, Path) and target.isatty())
    links = alignments if ranks.first else None
    with (
        closing(_lines(source)) as lines,
        nullcontext() if quiet else Bar(total, "decode", "lines") as bar,
        nullcontext() if links is None else durable_file(links) as write_links,
    ):
        output = _written(translator.translate(lines), scores, report, bar, write_links)
        if ranks.first:
            write_output(target, output)
        else:
            deque(output, maxlen=0)
    report.seconds = time.monotonic() - started
    return report


def check_places(source: Path | BinaryIO, target: Path | BinaryIO, alignments: Path | None = None) -> None:
    """Refuse to write where nothing can be written, and to write over what is being read or written already."""
    taken = {"the input": source}
    for option, place in (("--output", target), ("--alignments", alignments)):
        if not isinstance(place, Path):
            continue
        if place.is_dir():
            raise OutputError(f"{place}: is a directory, expected the name of a file to write")
        for name, other in taken.items():
            if isinstance(other, Path) and _same(place, other):
                raise UsageError(f"{place}: is {name} as well; give {option} another name")
        taken["the output"] = place


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


def write_output(target: Path | BinaryIO, output: Iterable[bytes]) -> None:
    """Write to a file, which appears whole or not at all, or chunk by chunk into a stream, a pipe or a device.

    Raises OutputError and StorageError; BrokenPipeError goes up to the caller.
    """
    if not isinstance(target, Path):
        _stream(target, "standard output", output)
    elif target.exists() and not target.is_file():
        with creating(target), target.open("wb") as stream:
            _stream(stream, str(target), output)
    else:
        durable_write(target, output)


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
    translated: Iterable[list[Translation]],
    scores: bool,
    report: DecodingReport,
    bar: Bar | None,
    write_links: Callable[[bytes], None] | None,
) -> Iterator[bytes]:
    """What is written for each line of input, n_best lines at once; keeps count, and writes links elsewhere."""
    for translations in translated:
        report.count(translations)
        if bar is not None:
            bar.advance(1)
        if write_links is not None:
            write_links("".join(f"{pharaoh(each.links)}\n" for each in translations).encode())
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
