"""Several processes translate one text: what comes out is what one process makes, and only the first writes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.test_distributed import in_ranks, told
from tests.tiny import tiny_config, tiny_corpus
from translate.cli import main
from translate.config import Config
from translate.decoding.translator import Translator
from translate.run import RunDirectory
from translate.stages import evaluation as stage
from translate.stages import hypotheses
from translate.stages.decoding import decode
from translate.stages.evaluation import evaluate
from translate.stages.training import train

TEXT = "나는 학생이다\n\n오늘 책을 읽는다\n   \n너는 의사다\n물을 마신다\n내일\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    (directory / "lines").write_text(TEXT, encoding="utf-8")
    (directory / "gold").write_text("0-0 1?1\n" * 9, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def config(corpus: Path) -> Config:
    return tiny_config(corpus, max_steps=4)


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Trained, in fp32 and one process."""
    run = RunDirectory(tmp_path_factory.mktemp("shared") / "run")
    train(config, run)
    return run


def searching(config: Config, **changes: int) -> Config:
    return config.model_copy(update={"decode": config.decode.model_copy(update=changes)})


def searched() -> list[object]:
    """The sentences that this process searches for from now on."""
    seen: list[object] = []
    search = Translator._search

    def recorded(self: Translator, pieces: Any) -> Any:
        seen.extend(pieces)
        return search(self, pieces)

    setattr(Translator, "_search", recorded)  # noqa: B010 - in the child alone
    return seen


@pytest.mark.parametrize(("count", "n_best", "batch_size"), [(2, 2, 2), (3, 1, 4)])
def test_decoding_shared_out_is_decoding(
    count: int, n_best: int, batch_size: int, run: RunDirectory, config: Config, corpus: Path, tmp_path: Path
) -> None:
    """Blank lines, n-best lists, scores and alignments; windows of fewer lines than processes."""
    changed = searching(config, n_best=n_best, batch_size=batch_size)

    for processes in (1, count):
        place = tmp_path / str(processes)
        place.mkdir()

        def work(place: Path = place) -> None:
            seen = searched()
            decode(run, corpus / "lines", place / "text", changed, scores=True, alignments=place / "links")
            place.with_suffix(f".{os.environ['RANK']}.seen").write_text(str(len(seen)), encoding="utf-8")

        ended = in_ranks(processes, work, place.with_suffix(".log"))
        assert ended == [0] * processes, told(place)
        assert sorted(path.name for path in place.iterdir()) == ["links", "text"]
        shares = [int(path.read_text()) for path in tmp_path.glob(f"{processes}.*.seen")]
        assert (len(shares), sum(shares)) == (processes, 5)  # not the blank lines
        assert min(shares) > 0
    for name in ("text", "links"):
        alone, shared = ((tmp_path / str(processes) / name).read_text("utf-8") for processes in (1, count))
        assert alone == shared
        assert alone.count("\n") == n_best * TEXT.count("\n")


def test_evaluation_shared_out_is_evaluation(run: RunDirectory, config: Config, corpus: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for processes in (1, 2):
        log = tmp_path / f"{processes}.log"

        def work(processes: int = processes) -> None:
            if os.environ["RANK"] != "0":  # only the first writes
                for module, name in (
                    (hypotheses, "durable_write"),
                    (hypotheses, "durable_json"),
                    (stage, "durable_json"),
                ):
                    setattr(module, name, None)
            seen = searched()
            evaluate(run, config, gold=corpus / "gold")
            assert len(seen) == (9 if processes == 1 else 5 - int(os.environ["RANK"]))

        assert in_ranks(processes, work, log) == [0] * processes, told(log)
        found.append(json.loads((run.eval / "test.json").read_text("utf-8")))
        found[-1]["hyps"] = (run.eval / "test.hyps").read_text("utf-8")
        for path in run.eval.iterdir():
            path.unlink()
    for each in found:
        del each["seconds"], each["sentences_per_second"]
        for part in each["corpora"]:
            del part["translated"]["seconds"]
    assert found[0] == found[1]
    assert found[0]["together"]["sentences"] == 9


def test_a_stream_cannot_be_shared(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["decode", "--run", str(run.root)]) == 64
    assert "several processes cannot share a stream; give --input the name of a file" in capsys.readouterr().err
