import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.stub_model import StubEncoder, stub_model
from tests.test_translator import Letters
from tests.tiny import tiny_config
from translate.config import Config
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.errors import DataError, Interrupted, MissingInputError, UsageError
from translate.evaluation.scores import score
from translate.models.seq2seq import Seq2Seq
from translate.run import RunDirectory
from translate.stages import evaluation
from translate.stages.evaluation import evaluate
from translate.text.encoded import LAYOUT
from translate.text.tokenizer import Tokenizer
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
    monkeypatch.setattr(evaluation, "load_model", fake.load)
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
    real = evaluation._translate

    def interrupted(text: Any, *rest: Any) -> Any:
        if text.name == "talks":
            raise Interrupted(143, "stopped")
        return real(text, *rest)

    monkeypatch.setattr(evaluation, "_translate", interrupted)
    with pytest.raises(Interrupted):
        evaluate(fake.directory, fake.config)
    assert fake.translated == 3
    assert files(fake.directory) == ["test.news.hyps", "test.news.hyps.json"]
    monkeypatch.setattr(evaluation, "_translate", real)
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
