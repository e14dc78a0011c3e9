import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.stub_model import StubEncoder, stub_model
from tests.test_alignment import untrained
from tests.test_tokenizer import SRC, TGT, learnt
from tests.test_translator import Letters
from tests.tiny import tiny_config
from translate.config import Config, ModelConfig, RnnAttentionConfig, RnnDecoderConfig
from translate.decoding.aligner import Aligner
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.errors import DataError, Interrupted, MissingInputError, UsageError
from translate.evaluation.alignment import Gold, alignment_score
from translate.evaluation.scores import score
from translate.models.seq2seq import Seq2Seq
from translate.run import RunDirectory
from translate.stages import evaluation, hypotheses, sharing
from translate.stages.evaluation import evaluate
from translate.text.encoded import LAYOUT
from translate.text.tokenizer import Tokenizer
from translate.text.words import Link
from translate.training.checkpoint import LoadedModel

NEWS = (["adg", "head", "", "deaf"], ["a dog", "head", "nothing", "x"])
TALKS = (["fade", "gg"], ["Fade out.", "gg gh"])


class StubTokenizer(Letters):
    digest = "letters"


class FakeRun:
    """A run with raw text and a stub for its model."""

    def __init__(self, root: Path) -> None:
        self.directory = RunDirectory(root)
        self.model: Seq2Seq = stub_model(11, 1)
        self.config = tiny_config(root)
        self.step = 7
        self.manifest: dict[str, Any] = {"layout": LAYOUT, "splits": {}}

    def add_split(self, split: str, **corpora: tuple[list[str], list[str]]) -> None:
        self.directory.data.mkdir(parents=True, exist_ok=True)
        self.manifest["splits"][split] = {"corpora": [{"name": name} for name in corpora]}
        for k, sides in enumerate(corpora.values()):
            for side, lines in zip(("src", "tgt"), sides, strict=True):
                data = "".join(f"{line}\n" for line in lines)
                (self.directory.data / f"{split}.{k}.{side}").write_text(data, encoding="utf-8")
        self.directory.manifest.write_text(json.dumps(self.manifest), encoding="utf-8")

    def load(self, run: RunDirectory, which: str, device: torch.device) -> LoadedModel:
        return LoadedModel(self.model, cast(Tokenizer, StubTokenizer()), self.config, self.step, f"{which} weights")

    def hyps(self, lines: list[str]) -> list[str]:
        translator = Translator(
            Scorer([self.model]), cast(Tokenizer, Letters()), self.config.decode, torch.device("cpu")
        )
        return [each[0].text for each in translator.translate(lines)]

    @property
    def translated(self) -> int:
        """Sentences shown to the model since the last time."""
        encoder = cast(StubEncoder, self.model.encoder)
        count = len(encoder.seen)
        encoder.seen.clear()
        return count


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun(tmp_path / "run")
    fake.add_split("test", news=NEWS)
    monkeypatch.setattr(sharing, "load_model", fake.load)
    return fake


def changed(config: Config, section: str, **settings: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=settings)})


def files(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.eval.iterdir())


def test_one_corpus(fake: FakeRun) -> None:
    report = evaluate(fake.directory, fake.config)
    hyps = fake.hyps(NEWS[0])
    assert (fake.directory.eval / "test.hyps").read_text(encoding="utf-8") == "".join(f"{hyp}\n" for hyp in hyps)
    assert report.together == score(hyps, NEWS[1], fake.config.evaluate) == report.corpora[0].scores
    assert not report.reused
    assert files(fake.directory) == ["test.hyps", "test.hyps.json", "test.json"]


def test_the_result_says_how_it_came_about(fake: FakeRun) -> None:
    report = evaluate(fake.directory, fake.config)
    result = json.loads(report.file.read_text(encoding="utf-8"))
    assert result["together"]["bleu"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert (result["split"], result["step"], result["weights"]) == ("test", 7, "best weights")
    assert result["decode"] == fake.config.decode.model_dump()
    assert len(result["config_sha256"]) == 64
    assert set(result["versions"]) == {"translate", "torch", "sacrebleu"}
    assert result["corpora"][0]["translated"]["sentences"] == 4
    assert result["sentences_per_second"] > 0
    summary = report.summary()
    assert str(report.together.bleu) in summary
    assert any(line.startswith("BLEU = ") for line in summary)
    assert any(line.startswith("next: translate decode --run ") for line in summary)


def test_several_corpora_each_and_together(fake: FakeRun) -> None:
    fake.add_split("test", **{"news": NEWS, "../talks 1": TALKS})
    report = evaluate(fake.directory, fake.config)
    assert [corpus.name for corpus in report.corpora] == ["news", "../talks 1"]
    for corpus, (src, refs) in zip(report.corpora, (NEWS, TALKS), strict=True):
        assert corpus.scores == score(fake.hyps(src), refs, fake.config.evaluate)
    assert report.together == score(fake.hyps(NEWS[0] + TALKS[0]), NEWS[1] + TALKS[1], fake.config.evaluate)
    assert files(fake.directory) == sorted(
        f"test{name}" for name in (".json", ".news.hyps", ".news.hyps.json", "._talks_1.hyps", "._talks_1.hyps.json")
    )


def test_corpora_whose_file_names_would_be_the_same(fake: FakeRun) -> None:
    fake.add_split("test", **{"a b": NEWS, "a/b": TALKS})
    evaluate(fake.directory, fake.config)
    assert (fake.directory.eval / "test.0.hyps").exists()
    assert (fake.directory.eval / "test.1.hyps").exists()


def test_the_same_again_is_reused(fake: FakeRun) -> None:
    first = evaluate(fake.directory, fake.config)
    assert fake.translated == 3  # one line is blank
    before = first.file.stat().st_mtime_ns
    second = evaluate(fake.directory, changed(fake.config, "decode", batch_size=2))
    assert second.reused
    assert fake.translated == 0
    assert (second.corpora, second.together, second.facts["step"]) == (first.corpora, first.together, 7)
    assert first.file.stat().st_mtime_ns == before
    assert "unchanged since the last time" in second.summary()[0]


def test_what_changes_hyps_is_translated_again(fake: FakeRun) -> None:
    evaluate(fake.directory, fake.config)
    assert fake.translated
    for settings in ({"beam": 1}, {"beam": 1, "length_penalty": 0.5}, {"max_length": 3}, {"weights": "last"}):
        assert not evaluate(fake.directory, changed(fake.config, "decode", **settings)).reused
        assert fake.translated == 3
    fake.step = 8
    assert not evaluate(fake.directory, changed(fake.config, "decode", weights="last")).reused
    assert fake.translated == 3
    fake.add_split("test", news=(["h", *NEWS[0][1:]], NEWS[1]))
    assert not evaluate(fake.directory, fake.config).reused
    assert fake.translated == 3


def test_what_changes_scores_alone_is_scored_again(fake: FakeRun) -> None:
    evaluate(fake.directory, fake.config)
    assert fake.translated
    fake.add_split("test", news=(NEWS[0], fake.hyps(NEWS[0])))
    assert fake.translated
    perfect = evaluate(fake.directory, fake.config)
    assert not perfect.reused
    assert perfect.together.chrf.value == pytest.approx(100.0)
    lower = evaluate(fake.directory, changed(fake.config, "evaluate", lowercase=True))
    assert not lower.reused
    assert "case:lc" in lower.together.bleu.signature
    assert fake.translated == 0


@pytest.mark.parametrize("damage", ["hyps", "record", "result", "all records"])
def test_damaged_results_are_made_again(fake: FakeRun, damage: str) -> None:
    first = evaluate(fake.directory, fake.config)
    hyps = fake.directory.eval / "test.hyps"
    good = hyps.read_bytes()
    if damage == "hyps":
        hyps.write_bytes(good + b"more\n")
    if damage in ("result", "all records"):
        first.file.write_bytes(b'{"digest": ')
    if damage in ("record", "all records"):
        hyps.with_name("test.hyps.json").write_bytes(b'{"made_from": "?"}')
    second = evaluate(fake.directory, fake.config)
    assert second.together == first.together
    assert hyps.read_bytes() == good
    assert json.loads(first.file.read_text(encoding="utf-8"))["together"] == first.together.to_json()


def test_a_stopped_evaluation_keeps_what_it_has(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add_split("test", news=NEWS, talks=TALKS)
    real = hypotheses.translate_into

    def interrupted(path: Path, *rest: Any) -> Any:
        if "talks" in path.name:
            raise Interrupted(143, "stopped")
        return real(path, *rest)

    monkeypatch.setattr(evaluation, "translate_into", interrupted)
    with pytest.raises(Interrupted):
        evaluate(fake.directory, fake.config)
    assert fake.translated == 3
    assert files(fake.directory) == ["test.news.hyps", "test.news.hyps.json"]
    monkeypatch.setattr(evaluation, "translate_into", real)
    evaluate(fake.directory, fake.config)
    assert fake.translated == 2


def test_any_pair_of_files(fake: FakeRun, tmp_path: Path) -> None:
    source, reference = tmp_path / "2017 talks.de", tmp_path / "talks.en"
    source.write_text("fade\ngg\n", encoding="utf-8")
    reference.write_text("Fade out.\ngg gh\n", encoding="utf-8")
    report = evaluate(fake.directory, fake.config, source=source, reference=reference)
    assert report.together == score(fake.hyps(TALKS[0]), TALKS[1], fake.config.evaluate)
    assert report.file.name == "files.2017_talks.de.json"
    assert (fake.directory.eval / "files.2017_talks.de.hyps").exists()
    assert evaluate(fake.directory, fake.config, source=source, reference=reference).reused


def test_n_best_does_not_matter(fake: FakeRun) -> None:
    report = evaluate(fake.directory, changed(fake.config, "decode", n_best=2))
    assert report.corpora[0].translated.sentences == 4


def test_wrong_inputs(fake: FakeRun, tmp_path: Path) -> None:
    source, reference = tmp_path / "a.de", tmp_path / "a.en"
    source.write_text("fade\ngg\n", encoding="utf-8")
    reference.write_text("Fade out.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.de has 2 lines and .*a\.en has 1,"):
        evaluate(fake.directory, fake.config, source=source, reference=reference)
    for path in (source, reference):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="nothing to score"):
        evaluate(fake.directory, fake.config, source=source, reference=reference)
    with pytest.raises(UsageError, match="go together"):
        evaluate(fake.directory, fake.config, source=source)
    with pytest.raises(UsageError, match="found tset, expected train, valid or test"):
        evaluate(fake.directory, fake.config, "tset")
    with pytest.raises(MissingInputError, match=r"has no data\.valid"):
        evaluate(fake.directory, fake.config, "valid")
    with pytest.raises(MissingInputError, match="nowhere"):
        evaluate(fake.directory, fake.config, source=tmp_path / "nowhere", reference=reference)
    assert not fake.directory.eval.exists()


# --- alignments


class LookingRun(FakeRun):
    """A run whose model has attention, and random weights."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tokenizer = learnt(vocab_size=300)
        self.model, part = untrained("transformer", self.tokenizer)
        self.config = self.config.model_copy(update={"model": part})
        self.loads = 0

    def load(self, run: RunDirectory, which: str, device: torch.device) -> LoadedModel:
        self.loads += 1
        return LoadedModel(self.model, self.tokenizer, self.config, self.step, f"{which} weights")

    def aligned(self, src: list[str], refs: list[str]) -> list[list[Link]]:
        aligner = Aligner(self.model, self.tokenizer, self.config.model.decoder, 3)
        return list(aligner.forced(zip(src, refs, strict=True)))


@pytest.fixture
def looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LookingRun:
    fake = LookingRun(tmp_path / "run")
    fake.add_split("test", **PARTS)
    monkeypatch.setattr(sharing, "load_model", fake.load)
    return fake


def gold_file(directory: Path, lines: list[str]) -> Path:
    path = directory / "test.align"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


PARTS = {"news": ([*SRC[:6], ""], [*TGT[:6], "ka"]), "talks": (SRC[6:9], TGT[6:9])}
GOLD = ["0-0 1?1", "0-0 1-1", "1-0", "", "0p0", "0-1", "", "1-1 0-0", "", "0-0"]


def test_error_rate_of_each_corpus_and_together(looking: LookingRun, tmp_path: Path) -> None:
    """Of the references forced on the model, whatever it would have written itself."""
    plain = evaluate(looking.directory, looking.config)
    report = evaluate(looking.directory, looking.config, gold=gold_file(tmp_path, GOLD))
    gold = [Gold.parse(line, "here") for line in GOLD]
    expected = [
        alignment_score(looking.aligned(src, refs), known)
        for (src, refs), known in zip(PARTS.values(), (gold[:7], gold[7:]), strict=True)
    ]
    assert [corpus.alignment for corpus in report.corpora] == expected
    assert report.alignment == expected[0] + expected[1]
    assert report.together == plain.together
    assert plain.alignment is None
    assert all(str(score) in report.summary() for score in (*expected, report.alignment))
    result = json.loads(report.file.read_text(encoding="utf-8"))
    assert result["alignment"] == report.alignment.to_json()
    assert 0 < result["alignment"]["aer"] < 1
    assert [corpus["alignment"] for corpus in result["corpora"]] == [score.to_json() for score in expected]


def test_error_rates_are_reused_with_the_rest(looking: LookingRun, tmp_path: Path) -> None:
    gold = gold_file(tmp_path, GOLD)
    first = evaluate(looking.directory, looking.config, gold=gold)
    second = evaluate(looking.directory, looking.config, gold=gold)
    assert second.reused
    assert second.summary()[1:] == first.summary()[1:]
    other = evaluate(looking.directory, looking.config, gold=gold_file(tmp_path, [*GOLD[:-1], "0-1"]))
    assert not other.reused
    assert [each.translated for each in other.corpora] == [each.translated for each in first.corpora]
    without = evaluate(looking.directory, looking.config)  # asks for none, and does not lose the one that is there
    assert without.reused
    assert without.alignment == other.alignment
    scored = changed(looking.config, "evaluate", lowercase=True)
    assert evaluate(looking.directory, scored).alignment is None


def test_gold_links_of_a_pair_of_files(looking: LookingRun, tmp_path: Path) -> None:
    source, reference = tmp_path / "a.src", tmp_path / "a.ref"
    source.write_text(SRC[0] + "\n", encoding="utf-8")
    reference.write_text(TGT[0] + "\n", encoding="utf-8")
    report = evaluate(looking.directory, looking.config, "test", source, reference, gold_file(tmp_path, ["0-0"]))
    assert report.alignment == alignment_score(looking.aligned([SRC[0]], [TGT[0]]), [Gold.parse("0-0", "here")])


def test_gold_links_are_looked_at_before_anything_is_done(looking: LookingRun, tmp_path: Path) -> None:
    for lines, message in (
        (GOLD[:-1], "test.align: has 9 lines for 10 sentence pairs"),
        ([*GOLD[:6], "0-0", *GOLD[7:]], "test.align:7: the link 0-0 goes beyond the source, which has 0 words"),
        (["0:0", *GOLD[1:]], "test.align:1: found '0:0'"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate(looking.directory, looking.config, gold=gold_file(tmp_path, lines))
    with pytest.raises(MissingInputError, match="nowhere"):
        evaluate(looking.directory, looking.config, gold=tmp_path / "nowhere")
    assert looking.loads == 0
    decoder = RnnDecoderConfig(input_feeding=False, attention=RnnAttentionConfig(score="none"))
    looking.config = looking.config.model_copy(
        update={"model": ModelConfig(encoder=looking.config.model.encoder, decoder=decoder)}
    )
    with pytest.raises(DataError, match="score is none"):
        evaluate(looking.directory, looking.config, gold=gold_file(tmp_path, GOLD))
    assert not looking.directory.eval.exists()
