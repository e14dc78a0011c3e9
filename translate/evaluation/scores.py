"""BLEU, chrF and TER as sacreBLEU computes them, with the signatures that make them comparable."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from translate.config import EvaluateConfig
from translate.errors import DataError


@dataclass(frozen=True)
class Score:
    """One metric's value and how it was computed."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.2f}  {self.signature}"


@dataclass(frozen=True)
class Scores:
    """All metrics of one set of hypotheses; `empty` hypotheses count as what they are."""

    bleu: Score
    chrf: Score
    ter: Score
    sentences: int
    empty: int

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Scores":
        """The inverse of `to_json`."""
        metrics = {name: Score(**value[name]) for name in ("bleu", "chrf", "ter")}
        return cls(**metrics, sentences=value["sentences"], empty=value["empty"])


def score(hyps: Sequence[str], refs: Sequence[str], evaluate: EvaluateConfig) -> Scores:
    """Score detokenised hypotheses against untouched references, line by line.

    Raises DataError when the counts differ or there is nothing to score.
    """
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    first = bleu(hyps, refs, evaluate)
    chrf = CHRF(lowercase=evaluate.lowercase)
    ter = TER(case_sensitive=not evaluate.lowercase)
    return Scores(
        first,
        Score("chrF2", chrf.corpus_score(hyps, [refs]).score, str(chrf.get_signature())),
        Score("TER", ter.corpus_score(hyps, [refs]).score, str(ter.get_signature())),
        sentences=len(hyps),
        empty=sum(not hyp.strip() for hyp in hyps),
    )


def bleu(hyps: Sequence[str], refs: Sequence[str], evaluate: EvaluateConfig) -> Score:
    """BLEU alone, as in `score`: cheap enough for validation during training."""
    from sacrebleu.metrics.bleu import BLEU

    _check(hyps, refs)
    # `force` silences sacreBLEU's warning about tokenised text, which is what `tokenize: none` is there for.
    metric = BLEU(lowercase=evaluate.lowercase, tokenize=evaluate.tokenize, force=evaluate.tokenize == "none")
    value = metric.corpus_score(hyps, [refs]).score
    return Score("BLEU", value, str(metric.get_signature()))


def _check(hyps: Sequence[str], refs: Sequence[str]) -> None:
    """sacreBLEU cuts the longer side off without a word, so the counts are compared here."""
    if len(hyps) != len(refs):
        raise DataError(
            f"scoring: found {len(hyps)} hypotheses and {len(refs)} references, expected as many of each; "
            "check that both files have the same lines"
        )
    if not refs:
        raise DataError("scoring: found no lines, expected at least one hypothesis and its reference")
    if not any(ref.strip() for ref in refs):
        raise DataError(f"scoring: all {len(refs)} references are blank; give the right reference file")
