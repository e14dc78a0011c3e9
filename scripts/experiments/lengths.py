"""Test text by the length of its sources, and scores for each length."""

from collections.abc import Sequence
from dataclasses import dataclass

from translate.config import EvaluateConfig
from translate.evaluation.scores import bleu
from translate.run import RunDirectory
from translate.text.encoded import raw_texts
from translate.text.lines import read_lines


@dataclass(frozen=True)
class Bucket:
    """Sources of `first` to `last` words; None is no limit."""

    first: int
    last: int | None

    def __str__(self) -> str:
        if self.last is None:
            return f"{self.first}+"
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"

    def holds(self, length: int) -> bool:
        """Whether a source of this length belongs to it."""
        return length >= self.first and (self.last is None or length <= self.last)


def buckets(*firsts: int) -> list[Bucket]:
    """Each begins at one of `firsts`, in rising order, and ends where the next begins; the last is open."""
    return [Bucket(first, last - 1 if last else None) for first, last in zip(firsts, [*firsts[1:], None], strict=True)]


def translated(run: RunDirectory) -> list[tuple[str, str, str]]:
    """Source, reference and hypothesis of each test sentence of an evaluated run."""
    (text,) = raw_texts(run, "test")
    hyps = run.eval / "test.hyps"
    return list(zip(*(list(read_lines(path)) for path in (text.src, text.tgt, hyps)), strict=True))


def bleu_by_length(run: RunDirectory, among: Sequence[Bucket]) -> list[float | None]:
    """BLEU of the test sentences in each bucket, by source words; None for an empty one."""
    found: list[float | None] = []
    lines = translated(run)
    for bucket in among:
        chosen = [(hyp, ref) for src, ref, hyp in lines if bucket.holds(len(src.split()))]
        hyps, refs = [hyp for hyp, _ in chosen], [ref for _, ref in chosen]
        found.append(bleu(hyps, refs, EvaluateConfig()).value if chosen else None)
    return found


def counts(run: RunDirectory, among: Sequence[Bucket]) -> list[int]:
    """How many test sentences are in each bucket."""
    lines = translated(run)
    return [sum(bucket.holds(len(src.split())) for src, _, _ in lines) for bucket in among]
