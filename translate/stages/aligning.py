"""translate inspect alignments: a file's sentences with their translations, as links between words."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from translate.bar import Bar
from translate.config import Config
from translate.decoding.aligner import Aligner
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.device import resolve_for_use
from translate.errors import DataError
from translate.evaluation.alignment import pharaoh
from translate.run import RunDirectory
from translate.stages.decoding import check_places, write_output
from translate.text.corpus import require_regular
from translate.text.lines import count_lines, read_lines
from translate.text.words import Link
from translate.training.checkpoint import LoadedModel, load_model


@dataclass
class AligningReport:
    """What aligning came to; `unlinked` counts the lines without a link, blank ones too."""

    lines: int = 0
    unlinked: int = 0
    seconds: float = 0.0
    output: Path | None = None

    def summary(self) -> list[str]:
        """A few lines for the user."""
        without = f", {self.unlinked} of them without a link" if self.unlinked else ""
        found = [f"{self.lines} lines aligned in {self.seconds:.1f} s{without}"]
        return found if self.output is None else [*found, f"alignments: {self.output}"]


def inspect_alignments(
    run: RunDirectory, source: Path, target: Path | None, output: Path | BinaryIO, config: Config
) -> AligningReport:
    """Write which word of each line of `source` each word of its translation looked at most, in Pharaoh format.

    The translation is the line of `target`, which is forced on the model, or without `target` the model's own. A file
    appears whole or not at all. A pair with a blank side is a blank line. Raises DataError for a model without
    attention and for files of different length, before anything is written.
    """
    check_places(source, output)
    if target is not None:
        check_places(target, output)
    total = _count(source, target)
    machine = resolve_for_use(config, run)
    loaded = load_model(run, config.decode.weights, torch.device(machine.device))
    report = AligningReport(output=output if isinstance(output, Path) else None)
    started = time.monotonic()
    quiet = not isinstance(output, Path) and output.isatty()
    links = _links(loaded, source, target, config)
    with nullcontext() if quiet else Bar(total, "align", "lines") as bar:
        write_output(output, _written(links, report, bar))
    report.seconds = time.monotonic() - started
    return report


def _count(source: Path, target: Path | None) -> int:
    """How many lines there are, the same on each side; both files hold nothing but text."""
    require_regular(source)
    lines = count_lines(source)
    if target is None:
        return lines
    require_regular(target)
    if (others := count_lines(target)) != lines:
        raise DataError(
            f"{source} has {lines} lines and {target} has {others}, expected as many of each; "
            "check that they belong together"
        )
    return lines


def _links(loaded: LoadedModel, source: Path, target: Path | None, config: Config) -> Iterable[Sequence[Link]]:
    aligner = Aligner(loaded.model, loaded.tokenizer, loaded.config.model.decoder, config.decode.batch_size)
    if target is not None:
        return aligner.forced(zip(read_lines(source), read_lines(target), strict=True))
    one = config.decode.model_copy(update={"n_best": 1})
    device = next(loaded.model.parameters()).device
    translator = Translator(Scorer([loaded.model]), loaded.tokenizer, one, device, align=aligner.own)
    return (translations[0].links for translations in translator.translate(read_lines(source)))


def _written(links: Iterable[Sequence[Link]], report: AligningReport, bar: Bar | None) -> Iterator[bytes]:
    for found in links:
        report.lines += 1
        report.unlinked += not found
        if bar is not None:
            bar.advance(1)
        yield f"{pharaoh(found)}\n".encode()
