"""translate eval: translate a split, score it against untouched references, keep hypotheses and result in the run.

RUN/eval/test.json               the result: scores, signatures, how it came about
RUN/eval/test[.CORPUS].hyps      one hypothesis a line
RUN/eval/test[.CORPUS].hyps.json what they were made from; the same again is not translated again
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import torch

import translate
from translate.bar import Bar
from translate.config import Config
from translate.decoding.aligner import Aligner
from translate.decoding.scorer import Scorer
from translate.device import resolve_for_use
from translate.durable import digest_bytes, durable_json
from translate.evaluation.alignment import AlignmentScore, Gold, alignment_score, read_gold
from translate.evaluation.scores import Scores, score
from translate.run import RunDirectory
from translate.stages.hypotheses import Translated, earlier_hyps, intact, read_json, translate_into
from translate.stages.sharing import SharedTranslator, load_together, shared_links
from translate.stages.texts import Text, scored_texts
from translate.text.lines import read_lines
from translate.training.checkpoint import LoadedModel
from translate.training.distributed import Ranks, in_contact, joined
from translate.training.signals import Signals


@dataclass(frozen=True)
class CorpusResult:
    """Scores of one corpus; `alignment` where there were gold links."""

    name: str
    hyps: str
    translated: Translated
    scores: Scores
    alignment: AlignmentScore | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self) | {"alignment": self.alignment and self.alignment.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        translated = Translated(**value["translated"])
        alignment = AlignmentScore.from_json(value["alignment"]) if value["alignment"] else None
        return cls(value["name"], value["hyps"], translated, Scores.from_json(value["scores"]), alignment)


@dataclass(frozen=True)
class EvaluationReport:
    """Result of an evaluation; `reused` when everything had been done before."""

    split: str
    file: Path
    corpora: list[CorpusResult]
    together: Scores
    facts: dict[str, Any]
    reused: bool

    @property
    def alignment(self) -> AlignmentScore | None:
        """Of all corpora together, where there were gold links."""
        return _summed(self.corpora)

    def summary(self) -> list[str]:
        """The scores, and a few lines about them, for the user."""
        facts = self.facts
        made = "unchanged since the last time" if self.reused else f"{facts['sentences_per_second']} sentences/s"
        lines = [
            f"{self.split}: {self.together.sentences} sentences, step {facts['step']}, weights "
            f"{facts['decode']['weights']}, beam {facts['decode']['beam']}, {made}"
        ]
        if len(self.corpora) > 1:
            for corpus in self.corpora:
                lines += [
                    f"{corpus.name}: {corpus.scores.sentences} sentences",
                    *_score_lines(corpus.scores, corpus.alignment),
                ]
            lines.append("all together:")
        lines += _score_lines(self.together, self.alignment)
        for corpus in self.corpora:
            if corpus.translated.failed:
                found = len(corpus.translated.failed)
                lines.append(f"warning: {corpus.name}: the model gave no finite probabilities for {found} sentences")
        if self.together.empty:
            lines.append(f"warning: empty hypotheses: {self.together.empty}; they are scored as they are")
        lines += [f"hypotheses: {self.file.parent / corpus.hyps}" for corpus in self.corpora]
        return [*lines, f"result: {self.file}", f"next: translate decode --run {self.file.parent.parent} < FILE"]


def evaluate(
    run: RunDirectory,
    config: Config,
    split: str = "test",
    source: Path | None = None,
    reference: Path | None = None,
    gold: Path | None = None,
) -> EvaluationReport:
    """Translate and score a split of the run, or the file pair `source` and `reference`, as `config` says.

    With the file `gold` of word links, a line for each sentence pair, the links that the model's attention gives to
    sources and references are scored as well. Hypotheses and results are reused when weights, settings and text are the
    same. Under torchrun the text is shared out, and the first process writes. Raises DataError for sides of different
    length, for gold links that do not fit the text, and for those of a model without attention; MissingInputError for a
    split that the run does not have.
    """
    with joined(config.device) as ranks, in_contact(ranks, "run the same command again"):
        return _evaluate(run, config, split, source, reference, gold, ranks)


def _evaluate(
    run: RunDirectory,
    config: Config,
    split: str,
    source: Path | None,
    reference: Path | None,
    gold: Path | None,
    ranks: Ranks,
) -> EvaluationReport:
    texts = scored_texts(run, config, split, source, reference)
    known = None if gold is None else read_gold(gold, [pair for text in texts for pair in text.pairs])
    if source is not None:
        split = texts[0].stem
    file = run.eval / f"{split}.json"
    machine = resolve_for_use(config, run, ranks.on_this_machine)
    loaded = load_together(run, config.decode.weights, torch.device(machine.device), ranks)
    made_from = [_digest(text.src, loaded, config) for text in texts]
    digest, gold_digest = _result_digest(made_from, texts, config), _gold_digest(known)
    earlier = _earlier_result(file, digest, gold_digest)
    if not ranks.any(earlier is None) and earlier is not None:
        return earlier
    aligned = [] if known is None else _align_and_score(texts, known, loaded, config, ranks)
    corpora, together = _translate_and_score(run, texts, made_from, loaded, config, ranks)
    corpora = [replace(corpus, alignment=each) for corpus, each in zip_longest(corpora, aligned)]
    facts = _facts(loaded, config, corpora)
    report = EvaluationReport(split, file, corpora, together, facts, reused=False)
    scores = {"together": together.to_json(), "alignment": report.alignment and report.alignment.to_json()}
    listed = {"corpora": [corpus.to_json() for corpus in corpora]}
    if ranks.first:
        digests = {"digest": digest, "gold_digest": gold_digest}
        durable_json(file, {"split": split} | digests | facts | scores | listed)
    return report


def _digest(src: Sequence[str], loaded: LoadedModel, config: Config) -> str:
    """Digest of all that decides hypotheses: weights, tokenizer, search settings, source text."""
    search = config.decode.model_dump(exclude={"n_best", "batch_size", "weights"})
    facts = [loaded.identity, loaded.step, loaded.tokenizer.digest, search, translate.__version__]
    return digest_bytes(json.dumps([facts, list(src)]).encode())


def _result_digest(made_from: Sequence[str], texts: Sequence[Text], config: Config) -> str:
    """Digest of all that decides scores: hypotheses, references, how they are scored."""
    references = [[text.name, text.stem, list(text.refs)] for text in texts]
    facts = [list(made_from), references, config.evaluate.model_dump(), version("sacrebleu")]
    return digest_bytes(json.dumps(facts).encode())


def _gold_digest(gold: Sequence[Gold] | None) -> str | None:
    if gold is None:
        return None
    return digest_bytes(json.dumps([[sorted(each.sure), sorted(each.possible)] for each in gold]).encode())


def _earlier_result(file: Path, digest: str, gold_digest: str | None) -> EvaluationReport | None:
    """The result in `file`, if it is that of the same inputs and its hypotheses are still there.

    Who asks for no error rate of alignments gets the one that is there, so that it is not lost.
    """
    value = read_json(file)
    if value is None or value.get("digest") != digest or gold_digest not in (None, value.get("gold_digest")):
        return None
    try:
        corpora = [CorpusResult.from_json(corpus) for corpus in value.pop("corpora")]
        together = Scores.from_json(value.pop("together"))
        del value["alignment"]
    except (KeyError, TypeError):  # edited, or from another version
        return None
    if not all(intact(file.parent / corpus.hyps, corpus.translated.sha256) for corpus in corpora):
        return None
    return EvaluationReport(value["split"], file, corpora, together, value, reused=True)


def _translate_and_score(
    run: RunDirectory,
    texts: Sequence[Text],
    made_from: Sequence[str],
    loaded: LoadedModel,
    config: Config,
    ranks: Ranks,
) -> tuple[list[CorpusResult], Scores]:
    """Each corpus by itself, then all of them as one."""
    corpora: list[CorpusResult] = []
    all_hyps: list[str] = []
    total = sum(len(text.src) for text in texts)
    with Signals() as signals, Bar(total, "eval", "sentences", mute=not ranks.first) as bar:
        one = config.decode.model_copy(update={"n_best": 1})
        device = next(loaded.model.parameters()).device
        translator = SharedTranslator(ranks, Scorer([loaded.model]), loaded.tokenizer, one, device, signals.check)
        for text, digest in zip(texts, made_from, strict=True):
            path = run.eval / f"{text.stem}.hyps"
            translated = earlier_hyps(path, digest)
            if ranks.any(translated is None) or translated is None:
                translated = translate_into(path, digest, text.src, translator, bar)
            else:
                bar.advance(len(text.src))
            ranks.wait()  # until they are written
            hyps = list(read_lines(path))
            corpora.append(CorpusResult(text.name, path.name, translated, score(hyps, text.refs, config.evaluate)))
            all_hyps += hyps
    if len(corpora) == 1:
        return corpora, corpora[0].scores
    return corpora, score(all_hyps, [ref for text in texts for ref in text.refs], config.evaluate)


def _align_and_score(
    texts: Sequence[Text], gold: Sequence[Gold], loaded: LoadedModel, config: Config, ranks: Ranks
) -> list[AlignmentScore]:
    """Each corpus: what the model looks at when its references are forced on it, against the gold links."""
    start, scores = 0, []
    with Signals() as signals, Bar(len(gold), "align", "sentences", mute=not ranks.first) as bar:
        decoder, batch_size = loaded.config.model.decoder, config.decode.batch_size
        aligner = Aligner(loaded.model, loaded.tokenizer, decoder, batch_size, signals.check)
        for text in texts:
            links = shared_links(aligner, text.pairs, ranks, lambda: bar.advance(1))
            scores.append(alignment_score(links, gold[start : start + len(links)]))
            start += len(links)
    return scores


def _summed(corpora: Sequence[CorpusResult]) -> AlignmentScore | None:
    found = [corpus.alignment for corpus in corpora if corpus.alignment is not None]
    return sum(found, AlignmentScore()) if found else None


def _facts(loaded: LoadedModel, config: Config, corpora: Sequence[CorpusResult]) -> dict[str, Any]:
    """How a result came about."""
    seconds = sum(corpus.translated.seconds for corpus in corpora)
    sentences = sum(corpus.translated.sentences for corpus in corpora)
    return {
        "step": loaded.step,
        "weights": loaded.identity,
        "config_sha256": digest_bytes(config.model_dump_json().encode()),
        "decode": config.decode.model_dump(),
        "evaluate": config.evaluate.model_dump(),
        "seconds": round(seconds, 3),
        "sentences_per_second": round(sentences / seconds, 1) if seconds else 0.0,
        "versions": {"translate": translate.__version__, "torch": torch.__version__, "sacrebleu": version("sacrebleu")},
    }


def _score_lines(scores: Scores, alignment: AlignmentScore | None) -> list[str]:
    return [str(each) for each in (scores.bleu, scores.chrf, scores.ter, alignment) if each is not None]
