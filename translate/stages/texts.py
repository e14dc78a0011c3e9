"""What translate eval scores: a split of the run, or a pair of files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from translate.config import Config
from translate.errors import DataError, UsageError
from translate.run import RunDirectory
from translate.text.corpus import corpus_names, read_pairs
from translate.text.encoded import raw_texts
from translate.text.lines import read_lines


@dataclass(frozen=True)
class Text:
    """A corpus to be scored: its name, the stem of its file of hypotheses, sources and references line by line."""

    name: str
    stem: str
    src: Sequence[str]
    refs: Sequence[str]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each source with its reference."""
        return list(zip(self.src, self.refs, strict=True))


def scored_texts(
    run: RunDirectory, config: Config, split: str, source: Path | None, reference: Path | None
) -> list[Text]:
    """What is to be scored; both sides of each text have the same number of lines."""
    if source is not None and reference is not None:
        texts = [_text(source.name, f"files.{_file_name(source.name)}", source, reference)]
    elif source is not None or reference is not None:
        raise UsageError("--source and --reference go together: what to translate, and how it should read")
    elif split == "train":  # too long to be kept in the run; read from where it came
        corpora = config.data.train
        stems = [split] if len(corpora) == 1 else _stems(split, corpus_names(corpora))
        pairs = [list(read_pairs(corpus)) for corpus in corpora]
        texts = [
            Text(name, stem, [pair.src for pair in known], [pair.tgt for pair in known])
            for name, stem, known in zip(corpus_names(corpora), stems, pairs, strict=True)
        ]
    elif split not in ("valid", "test"):
        raise UsageError(f"--split: found {split}, expected train, valid or test; or give --source and --reference")
    else:
        raw = raw_texts(run, split)
        stems = [split] if len(raw) == 1 else _stems(split, [each.name for each in raw])
        texts = [_text(each.name, stem, each.src, each.tgt) for each, stem in zip(raw, stems, strict=True)]
    return texts


def _text(name: str, stem: str, source: Path, reference: Path) -> Text:
    src, refs = list(read_lines(source)), list(read_lines(reference))
    if len(src) != len(refs):
        raise DataError(
            f"{source} has {len(src)} lines and {reference} has {len(refs)}, expected as many of each; "
            "check that they belong together"
        )
    if not src:
        raise DataError(f"{source}: has no lines, so there is nothing to score")
    return Text(name, stem, src, refs)


def _stems(split: str, names: Sequence[str]) -> list[str]:
    """File names for the corpora of a split, numbered where two would be the same."""
    stems = [f"{split}.{_file_name(name)}" for name in names]
    return [stem if stems.count(stem) == 1 else f"{split}.{index}" for index, stem in enumerate(stems)]


def _file_name(name: str) -> str:
    """A name without anything that means something in a path."""
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "text"
