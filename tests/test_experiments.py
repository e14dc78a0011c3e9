"""The experiments' own parts: tables and their places on a page, records, resumption, plans, measurements by hand."""

import json
import math
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import embedded
import exact_head
import fixed_vector
import gradients
import head
import kinds
import lengths
import numpy as np
import page
import positions
import pytest
import scores
import sequences
import torch
import trainings
from flow import sentence, source_gradients
from options import Options
from page import Block, Table, Text
from record import Record, Result
from trainings import Training, carry_out_all

from translate.config import RnnEncoderConfig, TokenizerConfig
from translate.config.architectures import ScoreName
from translate.models.rnn import RnnEncoder
from translate.models.seq2seq import Encoder, Memory, Tokens, build_embedding
from translate.models.seq2seq import Record as Weights
from translate.text.tokenizer import train_tokenizer
from translate.training.projected_loss import projected_loss

ROOT = Path(__file__).parent.parent
SIGNATURE = "nrefs:1|case:mixed"


def a_result(bleu: float, **more: object) -> Result:
    return {
        "bleu": bleu, "perplexity": 7.0, "steps": 900, "tokens_per_second": 5000, "train_seconds": 300.0,
        "signature": SIGNATURE, "precision": "bf16", "alignment": None, **more,
    }  # fmt: skip


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Empty pages with a place for each experiment, and nothing run yet; the repository's configs are found."""
    monkeypatch.chdir(ROOT)
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in page.PAGES.values():
        places = "".join(f"<!-- begin: {each} -->\n<!-- end: {each} -->\n\n" for each in ("scores", "embedded"))
        (docs / name).write_text(f"before\n{places}after\n", encoding="utf-8")
    return Options(runs=tmp_path / "runs", docs=docs)


# Pages


def a_block(name: str, value: str) -> Block:
    table = Table([Text("kind", "종류"), Text("score", "점수")])
    table.add(Text("one", "하나"), value)
    table.add("`two`", "2.0")
    return Block(name, Text("a picture", "그림"), [table], [Text("said so.", "그렇다.")])


def test_a_block_stands_between_its_marks_in_both_languages(chosen: Options) -> None:
    a_block("scores", "1.0").publish(chosen.docs)
    english, korean = ((chosen.docs / name).read_text(encoding="utf-8") for name in page.PAGES.values())
    table = "| kind | score |\n| --- | ---: |\n| one | 1.0 |\n| `two` | 2.0 |"
    block = f"<!-- begin: scores -->\n![a picture](pictures/scores.png)\n\n{table}\n\n- said so.\n<!-- end: scores -->"
    assert english == f"before\n{block}\n\n<!-- begin: embedded -->\n<!-- end: embedded -->\n\nafter\n"
    assert "| 종류 | 점수 |\n| --- | ---: |\n| 하나 | 1.0 |" in korean
    assert "- 그렇다." in korean


def test_a_block_replaces_what_stood_there(chosen: Options) -> None:
    a_block("scores", r"\1 \g<0>").publish(chosen.docs)  # what a replacement could take for a reference
    assert r"| one | \1 \g<0> |" in (chosen.docs / "attention.md").read_text(encoding="utf-8")
    a_block("scores", "3.0").publish(chosen.docs)
    once = (chosen.docs / "attention.md").read_text(encoding="utf-8")
    assert r"\1" not in once
    a_block("scores", "3.0").publish(chosen.docs)
    assert (chosen.docs / "attention.md").read_text(encoding="utf-8") == once


def test_a_page_without_a_place_gets_the_table_printed(chosen: Options, capsys: pytest.CaptureFixture[str]) -> None:
    before = (chosen.docs / "attention.md").read_text(encoding="utf-8")
    a_block("positions", "1.0").publish(chosen.docs)
    (chosen.docs / "attention.ko.md").unlink()
    a_block("scores", "1.0").publish(chosen.docs)
    printed = capsys.readouterr().out
    assert "attention.md has no place for positions" in printed
    assert "attention.ko.md has no place for scores" in printed
    assert printed.count("| one | 1.0 |") == 1
    assert printed.count("| 하나 | 1.0 |") == 2
    assert before != (chosen.docs / "attention.md").read_text(encoding="utf-8")


def test_numbers() -> None:
    values = [30.1, 31.9, 30.7]
    assert page.mean(values) == pytest.approx(statistics.mean(values))
    assert page.deviation(values) == pytest.approx(statistics.stdev(values))
    assert page.spread(values) == "30.9 ± 0.9"
    assert page.spread([1234.0], 0) == "1,234"
    assert page.spread([]) == page.number(None) == "–"


# Records and trainings


def test_a_record_is_kept_and_knows_what_it_was_made_from(tmp_path: Path) -> None:
    record = Record.of(tmp_path, "scores")
    assert record.find("general-s1") is None
    record.put("general-s1", ["config", ("a", 1)], {"bleu": 30.5})
    again = Record.of(tmp_path, "scores")
    entry = again.find("general-s1", ["config", ("a", 1)])
    assert entry is not None
    assert entry["bleu"] == 30.5
    assert entry["machine"]
    assert len(entry["date"]) == 10
    assert again.find("general-s1", ["config", ("a", 2)]) is None
    assert again.find("general-s1") is not None


def working(begun: list[str], fail: str = "") -> Callable[[Training, Options], Result]:
    """In place of a training: note it, and write a result down; or fail."""

    def carry_out(training: Training, options: Options) -> Result:
        begun.append(training.key)
        if training.name == fail:
            raise subprocess.CalledProcessError(65, "translate")
        if training.name == "interrupted" and len(begun) < 3:
            raise KeyboardInterrupt
        made_from = training._made_from(options)
        return Record.of(options.runs, training.home).put(training.key, made_from, a_result(30.0))

    return carry_out


def plan(*names: str) -> list[Training]:
    return [Training("scores", name, "scripts/experiments/scores.yaml") for name in names]


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(
    chosen: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Training, "carry_out", working(begun, fail="b"))
    assert carry_out_all(plan("a", "b", "c"), chosen) == ["b-s1"]
    assert begun == ["a-s1", "b-s1", "c-s1"]
    monkeypatch.setattr(Training, "carry_out", working(begun))
    assert carry_out_all(plan("a", "b", "c"), chosen) == []
    assert begun == ["a-s1", "b-s1", "c-s1", "b-s1"]


def test_an_interrupted_experiment_goes_on(chosen: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Training, "carry_out", working(begun))
    with pytest.raises(KeyboardInterrupt):
        carry_out_all(plan("a", "interrupted", "c"), chosen)
    assert carry_out_all(plan("a", "interrupted", "c"), chosen) == []
    assert begun == ["a-s1", "interrupted-s1", "interrupted-s1", "c-s1"]


def test_other_settings_are_another_run(chosen: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Training, "carry_out", working(begun))
    carry_out_all(plan("a"), chosen)
    longer = Options(runs=chosen.runs, docs=chosen.docs, minutes=7)
    assert carry_out_all(plan("a"), Options(**{**vars(longer), "table": True})) == ["a-s1"]
    assert begun == ["a-s1"]
    assert carry_out_all(plan("a"), longer) == []
    assert begun == ["a-s1", "a-s1"]


def test_a_training_is_one_of_the_command_line(chosen: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(trainings, "translate", lambda *arguments: commands.append(arguments))
    monkeypatch.setattr(trainings, "measured", lambda run, config: a_result(30.0))
    (chosen.runs / "machine.json").parent.mkdir()
    machine = {"device": "cpu", "precision": "bf16", "threads": 1, "matmul": "medium"}
    (chosen.runs / "machine.json").write_text(json.dumps(machine), encoding="utf-8")
    training = Training("embedded", "dot", "configs/quickstart.yaml", kinds.settings("dot"), seed=2, gold="links")
    training.carry_out(Options(runs=chosen.runs, minutes=0.1))
    run = str(chosen.runs / "embedded" / "dot-s2")
    sets = ["model.decoder.attention.score=dot", "seed=2", "train.max_minutes=0.1"]
    sets += ["train.precision=bf16", "train.threads=1", "train.matmul=medium"]
    assert commands == [
        (
            *("-m", "translate", "train", "--config", "configs/quickstart.yaml", "--run", run),
            *(part for each in sets for part in ("--set", each)),
        ),
        ("-m", "translate", "eval", "--run", run, "--gold-alignments", "links"),
    ]


def test_a_failing_command_says_so() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        trainings.translate("-m", "translate", "train", "--no-such-option")


# Plans


def test_every_score_is_compared() -> None:
    assert set(kinds.SCORES) == set(get_args(ScoreName))


def test_first_seeds_come_first() -> None:
    keys = [training.key for training in scores.PLAN]
    assert keys[: len(kinds.KINDS)] == [f"{kind}-s1" for kind in kinds.KINDS]
    assert Counter(training.name for training in scores.PLAN) == {
        kind: 3 if kind in kinds.REPEATED else 1 for kind in kinds.KINDS
    }


def test_all_trainings_have_sound_settings(chosen: Options) -> None:
    planned = [*scores.PLAN, *embedded.plan(), *fixed_vector.copying(), *gradients.plan().values()]
    planned += [*positions.plan().values(), *(kinds.architecture(way) for way in sequences.WAYS)]
    places = {training.run(chosen).root: training.resolved(chosen) for training in planned}
    assert len(places) == len({config.model_dump_json() for config in places.values()})
    assert {training.resolved(chosen).train.max_minutes for training in head.plan()} == {None}


def test_the_output_layer_can_be_kept_in_fp32() -> None:
    generator = torch.Generator().manual_seed(1)
    features, weight = (torch.randn(*size, generator=generator) for size in ((40, 16), (30, 16)))
    words, smoothing = torch.arange(40) % 30, 0.1
    outside, _ = projected_loss(features, weight, None, words, smoothing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact, _ = exact_head.exact(features, weight, None, words, smoothing)
        usual, _ = projected_loss(features, weight, None, words, smoothing)
    assert exact.item() == outside.item() != usual.item()


def test_the_difference_is_bf16_less_fp32() -> None:
    found = {
        form: [{"bleu": bleu, "perplexity": math.exp(loss)}]
        for form, bleu, loss in (("bf16", 40, 2), ("fp32", 41, 1.5))
    }
    assert "| difference | -1.00 | +0.5000 |" in head.table(found).markdown("en")


def test_the_three_ways_have_as_many_weights() -> None:
    for counts in zip(*(sequences.weights(way) for way in sequences.WAYS), strict=True):
        assert max(counts) / min(counts) < 1.05


def test_a_letter_to_copy_is_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_vector, "COPY_LINES", {"train": 400, "valid": 30, "test": 30})
    fixed_vector.write_copy_text(tmp_path)
    lines = (tmp_path / "train.src").read_text(encoding="utf-8").split()
    assert (tmp_path / "train.tgt").read_text(encoding="utf-8").split() == lines
    assert {len(line) for line in lines} <= set(range(5, 101))
    assert max(map(len, lines)) > 95
    monkeypatch.chdir(ROOT)
    config = fixed_vector.copying()[0].resolved(Options()).tokenizer
    tokenizer, _ = train_tokenizer(lambda sides: lines, config, "nfc")
    assert len(tokenizer.encode_src(lines[0])) == 1 + len(lines[0]) + 1


# Measurements


def test_buckets_hold_every_length_once() -> None:
    among = lengths.buckets(1, 4, 5, 9)
    assert list(map(str, among)) == ["1–3", "4", "5–8", "9+"]
    assert [sum(bucket.holds(length) for bucket in among) for length in range(1, 60)] == [1] * 59


def test_copied_letters_and_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = "abcdefghij", "k" * 30
    rows = [(short, short, short), (short, short, "abcde"), (long, long, "x" + long)]
    monkeypatch.setattr(fixed_vector, "translated", lambda run: rows)
    letters, lines = fixed_vector.copied(None)  # type: ignore[arg-type]
    assert letters == [75.0, pytest.approx(100 * 29 / 30), None, None, None]
    assert lines == [50.0, 0.0, None, None, None]


class Weighted(Encoder):
    """States that are the word vectors times 1, 2, 3, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = build_embedding(10, 4)

    def forward(self, src: Tokens, record: Weights | None = None) -> Memory:
        factors = torch.arange(1.0, src.longest + 1)[None, :, None]
        states = self.embedding(src.ids) * factors
        return Memory(states, src.lengths, src.longest, states.sum(1), states)


def test_gradients_at_the_source_are_those_of_a_known_function() -> None:
    direction = torch.tensor([3.0, 0.0, 4.0, 0.0])
    encoder = Weighted()
    found = source_gradients(encoder, lambda: (encoder(sentence([4, 5, 6])).states[0, 1:] @ direction).sum())
    assert found.tolist() == pytest.approx([0.0, 10.0, 15.0])


def test_gradients_of_packed_text_are_in_its_order() -> None:
    torch.manual_seed(0)
    encoder = RnnEncoder(RnnEncoderConfig(width=8, bidirectional=False), 20).double().eval()
    ids, epsilon = [5, 6, 7, 8], 1e-6
    found = source_gradients(encoder, lambda: encoder(sentence(ids)).states[0, 2, 3])
    assert found[3] == 0
    with torch.no_grad():
        differences = []
        for word in ids[:3]:
            row = []
            for feature in range(8):
                ends = []
                for side in (epsilon, -epsilon):
                    encoder.embedding.weight[word, feature] += side
                    ends.append(encoder(sentence(ids)).states[0, 2, 3].item())
                    encoder.embedding.weight[word, feature] -= side
                row.append((ends[0] - ends[1]) / (2 * epsilon))
            differences.append(float(np.linalg.norm(row)))
    assert found[:3].tolist() == pytest.approx(differences, rel=1e-5)


def test_what_one_layer_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sequences, "WORDS", 7)
    expected = {"recurrence": (6, 1), "convolution": (1, 6), "self-attention": (6, 1)}
    for way, (distance, layers) in expected.items():
        seen = [sequences.gradients(sequences.encoder(way, 1), place) for place in range(7)]
        assert sequences.distance_in_one_layer(seen) == distance
        assert sequences.layers_from_end_to_end(way) == layers
    causal = [sequences.gradients(sequences.encoder("recurrence", 1), place) for place in range(7)]
    assert all(size == 0 for place, row in enumerate(causal) for size in row[place + 1 :])


def test_the_last_word_is_no_full_stop() -> None:
    lines = ["a man sleeps.", "two dogs run."] * 20
    config = TokenizerConfig(vocab_size=40, kind="bpe", byte_fallback=False)
    tokenizer, _ = train_tokenizer(lambda sides: lines, config, "nfc")
    ids = tokenizer.encode_tgt("a man sleeps.")
    index = gradients.last_word(tokenizer, ids)
    assert index is not None
    assert tokenizer.pieces_tgt(ids[index + 1 :]) == ["."]
    assert gradients.last_word(tokenizer, []) is None


def test_a_permutation_keeps_the_end() -> None:
    order = positions.permuted(9)
    assert sorted(order) == list(range(9))
    assert order[-1] == 8
    assert order != list(range(9))


# Whole


def test_a_table_of_what_is_there(chosen: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the missing runs, and with alignment error rates of the other experiment."""
    for training, bleu in zip(scores.PLAN, [20.0, 31.0], strict=False):
        Record.of(chosen.runs, "scores").put(training.key, training._made_from(chosen), a_result(bleu))
    Record.of(chosen.runs, "embedded").put("dot-s1", [], a_result(90.0, alignment={"aer": 0.125}))
    arguments = ["scores.py", "--table", "--runs", str(chosen.runs), "--docs", str(chosen.docs)]
    monkeypatch.setattr("sys.argv", arguments)
    scores.main()
    text = (chosen.docs / "attention.md").read_text(encoding="utf-8")
    assert "| `score: none` | 7.00 | 20.0 | – | 900 | 5,000 |" in text
    assert "| `score: dot` | 7.00 | 31.0 | 12.5 | 900 | 5,000 |" in text
    assert "Not there yet: `scaled_dot-s1`, `general-s1`" in text
    assert f"`{SIGNATURE}`" in text
    assert (chosen.docs / "pictures" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((chosen.runs / "scores" / "results.json").read_text(encoding="utf-8"))) == 2
