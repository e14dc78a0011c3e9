"""Word links: their format, the error rate of Och & Ney, the rule that makes them from attention, and the stage."""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from tests.stub_model import stub_model
from tests.test_tokenizer import SRC, TGT, learnt
from tests.tiny import tiny_config
from translate.config import (
    Config,
    ConvDecoderConfig,
    ConvEncoderConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.decoding.aligner import Aligner, strongest
from translate.decoding.scorer import Scorer
from translate.decoding.translator import BLANK, NOTHING, Translator
from translate.errors import DataError, OutputError, UsageError
from translate.evaluation.alignment import AlignmentScore, Gold, alignment_score, pharaoh, read_gold
from translate.models import build_model
from translate.models.seq2seq import Record, Seq2Seq, Tokens
from translate.run import RunDirectory
from translate.stages import aligning
from translate.stages.aligning import inspect_alignments
from translate.text.tokenizer import BOS, EOS, Tokenizer
from translate.text.words import Link, WordPieces, line_pieces
from translate.training.checkpoint import LoadedModel

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")

# --- format


def test_pharaoh_lines() -> None:
    assert pharaoh([(1, 2), (0, 5), (0, 0), (10, 1)]) == "0-0 0-5 1-2 10-1"
    assert pharaoh([]) == ""


def test_gold_links_of_both_kinds() -> None:
    gold = Gold.parse(" 0-0\t2?1  3p4 1-2 1?2 2-1", "here")
    assert gold.sure == {(0, 0), (1, 2), (2, 1)}
    assert gold.possible == gold.sure | {(3, 4)}
    assert Gold.parse("", "here") == Gold(frozenset(), frozenset())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    chance = random.Random(1)
    links = [{(chance.randrange(9), chance.randrange(9)) for _ in range(chance.randint(0, 6))} for _ in range(50)]
    path = tmp_path / "links"
    path.write_text("".join(f"{pharaoh(each)}\n" for each in links), encoding="utf-8")
    pair = ("a b c d e f g h i", "a b c d e f g h i")
    assert [set(gold.sure) for gold in read_gold(path, [pair] * 50)] == links


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-0\n0–1\n", r"gold:2: found '0–1', expected links such as 0-1 \(sure\) or 0\?1 \(possible\)"),
        ("0-0\n1-0-1\n", "gold:2: found '1-0-1'"),
        ("-1-0\n\n", "gold:1: found '-1-0'"),
        ("0-٣\n\n", "gold:1: found '0-٣'"),
        ("0-0 1\n\n", "gold:1: found '1'"),
        (f"0-{'9' * 40}\n\n", "gold:1: found '0-9"),
        ("0-0\n2-0\n", "gold:2: the link 2-0 goes beyond the source, which has 2 words, counted from 0"),
        ("0-0\n0?1\n", "gold:2: the link 0-1 goes beyond the target, which has 1 words"),
        ("0-0\n", "gold: has 1 lines for 2 sentence pairs, expected a line for each, blank where"),
        ("0-0\n\n\n", "gold: has 3 lines for 2 sentence pairs"),
        ("", "gold: has 0 lines for 2"),
        ("0?0\n\n", "gold: has no sure link, such as 0-1, so there is nothing to find"),
    ],
)
def test_gold_links_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_gold(path, [("a b", "c"), ("  a\tb ", "c")])


def test_the_embedded_gold_links_fit_their_text() -> None:
    folder = ROOT / "data" / "quickstart"
    src, tgt = ((folder / f"test.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("ko", "en"))
    gold = read_gold(folder / "test.align", list(zip(src, tgt, strict=True)))
    for line, each in zip(tgt, gold, strict=True):
        assert {word for _, word in each.sure} == set(range(len(line.split()))), "every English word has a link"
        assert each.possible == each.sure


# --- error rate


def test_error_rate_by_hand() -> None:
    """Three of four links are possible, two of them sure; one of three sure links is missing."""
    found = [(0, 0), (1, 1), (2, 1), (3, 3)]
    gold = Gold.parse("0-0 1-1 2-2 2?1", "here")
    score = alignment_score([found], [gold])
    assert score == AlignmentScore(links=4, sure=3, possible=4, in_sure=2, in_possible=3)
    assert score.precision == 3 / 4
    assert score.recall == 2 / 3
    assert score.error_rate == pytest.approx(1 - (2 + 3) / (4 + 3))
    assert str(score) == "AER = 28.57  precision 75.00, recall 66.67  (4 links; gold: 3 sure, 1 only possible)"
    assert AlignmentScore.from_json(score.to_json()) == score
    assert score.to_json()["aer"] == score.error_rate


def test_error_rate_by_brute_force() -> None:
    """Counted link by link over every cell of every sentence; sums over sentences, not means of their rates."""
    chance = random.Random(3)
    found, gold = [], []
    a = s = a_and_s = a_and_p = 0
    for _ in range(60):
        cells = [(x, y) for x in range(4) for y in range(5)]
        chosen = [cell for cell in cells if chance.random() < 0.3]
        marks = {cell: chance.choice(["", "", "-", "?", "p"]) for cell in cells}
        for cell in cells:
            a += cell in chosen
            s += marks[cell] == "-"
            a_and_s += cell in chosen and marks[cell] == "-"
            a_and_p += cell in chosen and marks[cell] != ""
        found.append(chosen)
        gold.append(Gold.parse(" ".join(f"{x}{mark}{y}" for (x, y), mark in marks.items() if mark), "here"))
    score = alignment_score(found, gold)
    assert score.error_rate == pytest.approx(1 - (a_and_s + a_and_p) / (a + s))
    assert (score.precision, score.recall) == (a_and_p / a, a_and_s / s)
    halves = alignment_score(found[:30], gold[:30]) + alignment_score(found[30:], gold[30:])
    assert halves == score


@pytest.mark.parametrize(
    ("found", "gold", "rates"),
    [
        ("", "0-0", (1, 0, 0)),
        ("1-1", "0-0", (1, 0, 0)),
        ("0-0", "0-0", (0, 1, 1)),
        ("0-0 1-1", "0-0 1?1", (0, 1, 1)),
        ("0-0 0-0", "0-0", (0, 1, 1)),
        ("", "", (0, 0, 0)),
    ],
)
def test_error_rate_at_the_edges(found: str, gold: str, rates: tuple[float, float, float]) -> None:
    links = [(int(link[0]), int(link[2])) for link in found.split()]
    score = alignment_score([links], [Gold.parse(gold, "here")])
    assert (score.error_rate, score.precision, score.recall) == rates


# --- from attention to links


def linked_by_hand(weights: np.ndarray, src: WordPieces, tgt: WordPieces) -> list[Link]:
    """The rule with loops: sums over a source word's pieces, in the row of a target word's first."""
    links = []
    for word in range(tgt.count):
        mass = [0.0] * src.count
        for t in [t for t, words in enumerate(tgt.words) if word in words][:1]:
            for s, words in enumerate(src.words):
                for other in words:
                    mass[other] += float(weights[t, s]) / len(words)
        if mass and max(mass) > 0:
            links.append((mass.index(max(mass)), word))
    return sorted(links)


def test_the_rule_by_hand() -> None:
    """▁나는 ▁학생 이다 </s> against ▁I ▁am ▁stud ent, the last row of the target being that of </s>."""
    src = WordPieces([5, 6, 7], [[0], [1], [1]], 2)
    tgt = WordPieces([8, 9, 10, 11], [[0], [1], [2], [2]], 3)
    weights = np.array(
        [
            [0.5, 0.2, 0.2, 0.1],  # the sum over the second word's pieces is less than the first's
            [0.3, 0.2, 0.2, 0.3],  # it is more, though no piece has as much
            [0.04, 0.0, 0.06, 0.9],  # </s> counts for no word
            [0.9, 0.0, 0.05, 0.05],  # the word is begun: where the rest of it looks does not count
            [9.0, 9.0, 9.0, 9.0],
        ],
        dtype=np.float32,
    )
    assert strongest(weights, src, tgt) == [(0, 0), (1, 1), (1, 2)]
    assert strongest(weights, src, tgt) == linked_by_hand(weights, src, tgt)
    weights[0] = 0  # the word saw nothing but </s>
    weights[1] = np.nan
    assert strongest(weights, src, tgt) == [(1, 2)]
    assert strongest(weights, WordPieces([], [], 0), tgt) == []
    assert strongest(weights, src, WordPieces([], [], 0)) == []
    assert strongest(weights, src, WordPieces([8], [[1]], 2)) == []  # a word without a piece, and one that saw NaN


def test_the_rule_by_brute_force() -> None:
    chance, noise = random.Random(1), np.random.default_rng(1)

    def some_words(pieces: int) -> WordPieces:
        words = sorted(chance.randrange(4) for _ in range(pieces))
        held = [[word] if chance.random() < 0.8 else sorted({word, min(3, word + 1)}) for word in words]
        return WordPieces([7] * pieces, [[] if chance.random() < 0.1 else each for each in held], 4)

    for _ in range(200):
        src, tgt = some_words(chance.randint(1, 7)), some_words(chance.randint(1, 7))
        weights = noise.random((9, 9)).astype(np.float32)
        assert strongest(weights, src, tgt) == linked_by_hand(weights, src, tgt)


MODELS: dict[str, tuple[EncoderConfig, DecoderConfig]] = {
    "rnn": (RnnEncoderConfig(width=8), RnnDecoderConfig(width=8)),
    "rnn before": (
        RnnEncoderConfig(width=8),
        RnnDecoderConfig(width=8, attention=RnnAttentionConfig(score="additive", placement="before", heads=2)),
    ),
    "rnn coverage": (
        RnnEncoderConfig(width=8),
        RnnDecoderConfig(width=8, input_feeding=False, attention=RnnAttentionConfig(coverage=True)),
    ),
    "rnn hard": (
        RnnEncoderConfig(width=8),
        RnnDecoderConfig(width=8, input_feeding=False, attention=RnnAttentionConfig(selection="hard")),
    ),
    "conv": (ConvEncoderConfig(width=8, layers=2), ConvDecoderConfig(width=8, layers=2)),
    "transformer": (
        TransformerEncoderConfig(width=8, heads=2, layers=1, feed_forward=16),
        TransformerDecoderConfig(width=8, heads=2, layers=2, feed_forward=16),
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learnt(vocab_size=300)


def untrained(kind: str, tokenizer: Tokenizer) -> tuple[Seq2Seq, ModelConfig]:
    """A model with random weights, larger than at the start of training, so that attention is not even."""
    torch.manual_seed(3)
    encoder, decoder = MODELS[kind]
    config = ModelConfig(encoder=encoder, decoder=decoder, tie="none")
    model = build_model(config, tokenizer.src_size, tokenizer.tgt_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model, config


def aligner_of(kind: str, tokenizer: Tokenizer, batch_size: int = 4) -> Aligner:
    model, config = untrained(kind, tokenizer)
    return Aligner(model, tokenizer, config.decoder, batch_size)


PAIRS = [*zip(SRC[:11], TGT[3:14], strict=True), ("", "ka"), ("ka", " \t"), ("나는\u3000 ri", "st"), ("\u200b", "ka")]


@torch.no_grad()
def links_alone(model: Seq2Seq, tokenizer: Tokenizer, src: str, tgt: str) -> list[Link]:
    """One sentence at a time, from the record of the whole model, with the end of the target in its input."""
    source, target = line_pieces(tokenizer, "src", src), line_pieces(tokenizer, "tgt", tgt)
    if not source.ids or not target.ids:
        return []
    record: Record = {}
    src_ids, tgt_in = torch.tensor([[*source.ids, EOS]]), torch.tensor([[BOS, *target.ids]])
    both = [Tokens(ids, torch.tensor([ids.size(1)]), ids.size(1)) for ids in (src_ids, tgt_in)]
    model(both[0], both[1], record)
    return linked_by_hand(record["alignment"][0].numpy(), source, target)


@pytest.mark.parametrize("kind", MODELS)
def test_forced_links_are_those_of_the_models_own_record(kind: str, tokenizer: Tokenizer) -> None:
    """In batches and padded, with blank lines between, and in the order of the lines."""
    model, _ = untrained(kind, tokenizer)
    expected = [links_alone(model, tokenizer, src, tgt) for src, tgt in PAIRS]
    assert len({src for links in expected for src, _ in links}) > 2
    for batch_size in (1, 3, 64):
        assert list(aligner_of(kind, tokenizer, batch_size).forced(PAIRS)) == expected
    assert [place for place in (11, 12, 14) if expected[place]] == []
    assert all(expected[:11]) or kind == "rnn hard"  # which may look at </s> alone
    for (src, tgt), links in zip(PAIRS, expected, strict=True):
        assert all(x < len(src.split()) and y < len(tgt.split()) for x, y in links)


@pytest.mark.parametrize("kind", ["rnn", "conv", "transformer"])
def test_own_links_are_those_of_the_translation_forced(kind: str, tokenizer: Tokenizer) -> None:
    """The ids that were written are forced, not what their text would be encoded as."""
    model, config = untrained(kind, tokenizer)
    decode = tiny_config(Path()).decode.model_copy(update={"n_best": 2, "beam": 3, "batch_size": 3})
    aligner = Aligner(model, tokenizer, config.decoder, 3)
    lines = [src for src, _ in PAIRS]
    plain = list(Translator(Scorer([model]), tokenizer, decode, CPU).translate(lines))
    found = list(Translator(Scorer([model]), tokenizer, decode, CPU, align=aligner.own).translate(lines))
    linked = 0
    for line, before, after in zip(lines, plain, found, strict=True):
        for old, new in zip(before, after, strict=True):
            assert (old.text, old.ids, old.score) == (new.text, new.ids, new.score)
            assert list(new.links) == aligner.own([(line, new.ids)])[0]
            assert {word for _, word in new.links} <= set(range(len(new.text.split())))
            if tokenizer.encode_tgt(new.text) == new.ids:
                assert list(new.links) == next(aligner.forced([(line, new.text)]))
            linked += bool(new.links)
    assert linked > 10
    assert BLANK.links == NOTHING.links == ()


def test_forced_links_read_no_further_than_a_window(tokenizer: Tokenizer) -> None:
    given = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal given
        for pair in PAIRS * 20:
            given += 1
            yield pair

    for done, _ in enumerate(aligner_of("rnn", tokenizer, 2).forced(pairs())):
        assert given - done <= 2 * 16
    assert given == 20 * len(PAIRS)


def test_work_can_be_interrupted(tokenizer: Tokenizer) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    model, config = untrained("rnn", tokenizer)
    with pytest.raises(KeyboardInterrupt):
        list(Aligner(model, tokenizer, config.decoder, 2, stop).forced(PAIRS))


def test_without_attention_there_is_nothing_to_align(tokenizer: Tokenizer) -> None:
    decoder = RnnDecoderConfig(input_feeding=False, attention=RnnAttentionConfig(score="none"))
    with pytest.raises(DataError, match=r"no alignments: model\.decoder\.attention\.score is none"):
        Aligner(stub_model(11, 1), tokenizer, decoder, 4)


# --- the stage


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> tuple[RunDirectory, Config]:
    """A run whose model is an untrained Transformer."""
    model, part = untrained("transformer", tokenizer)
    config = tiny_config(tmp_path).model_copy(update={"model": part})

    def load(run: RunDirectory, which: str, device: torch.device) -> LoadedModel:
        return LoadedModel(model, tokenizer, config, 7, which)

    monkeypatch.setattr(aligning, "load_model", load)
    return RunDirectory(tmp_path / "run"), config


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_line_for_each_pair(run: tuple[RunDirectory, Config], tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = written(tmp_path / "a.src", [src for src, _ in PAIRS])
    target = written(tmp_path / "a.tgt", [tgt for _, tgt in PAIRS])
    output = tmp_path / "new" / "links"
    report = inspect_alignments(run[0], source, target, output, run[1])
    expected = [pharaoh(links) for links in aligner_of("transformer", tokenizer).forced(PAIRS)]
    assert output.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in expected)
    assert (report.lines, report.unlinked) == (len(PAIRS), 3)
    assert report.summary()[0].startswith(f"{len(PAIRS)} lines aligned in ")
    assert report.summary()[0].endswith("3 of them without a link")
    assert report.summary()[1] == f"alignments: {output}"
    assert not run[0].root.exists()  # the run is only read
    stream = io.BytesIO()
    assert len(inspect_alignments(run[0], source, target, stream, run[1]).summary()) == 1
    assert stream.getvalue() == output.read_bytes()


def test_without_a_target_the_models_own_translation(
    run: tuple[RunDirectory, Config], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    sources = ["", *SRC[:6], " "]
    source = written(tmp_path / "a.src", sources)
    stream, again = io.BytesIO(), io.BytesIO()
    n_best = run[1].model_copy(update={"decode": run[1].decode.model_copy(update={"n_best": 2})})
    inspect_alignments(run[0], source, None, stream, run[1])
    inspect_alignments(run[0], source, None, again, n_best)
    aligner = aligner_of("transformer", tokenizer)
    translations = Translator(Scorer([aligner.model]), tokenizer, run[1].decode, CPU).translate(sources)
    own = aligner.own([(line, best.ids) for line, (best,) in zip(sources, translations, strict=True)])
    assert stream.getvalue().decode() == "".join(f"{pharaoh(links)}\n" for links in own)
    assert sum(map(bool, own)) > 3
    assert again.getvalue() == stream.getvalue()


def test_no_lines_give_an_empty_file(run: tuple[RunDirectory, Config], tmp_path: Path) -> None:
    empty = written(tmp_path / "a.src", [])
    assert inspect_alignments(run[0], empty, empty, tmp_path / "out", run[1]).lines == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_files_that_cannot_be_aligned(run: tuple[RunDirectory, Config], tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", ["ka"]), written(tmp_path / "two", ["ka", "ri"])
    bad = tmp_path / "bad"
    bad.write_bytes(b"ka\n\xff\n")
    before = sorted(tmp_path.iterdir())
    for source, target, error, message in (
        (one, two, DataError, r"one has 1 lines and \S*two has 2, expected as many of each"),
        (two, one, DataError, r"two has 2 lines and \S*one has 1"),
        (two, bad, DataError, "bad:2: byte 1: not UTF-8"),
        (Path("/dev/null"), one, DataError, "/dev/null: is not a regular file"),
        (one, Path("/dev/null"), DataError, "/dev/null: is not a regular file"),
    ):
        with pytest.raises(error, match=message):
            inspect_alignments(run[0], source, target, tmp_path / "out", run[1])
    for output in (one, two):
        with pytest.raises(UsageError, match="is the input as well"):
            inspect_alignments(run[0], one, two, output, run[1])
    with pytest.raises(OutputError, match="is a directory"):
        inspect_alignments(run[0], one, one, tmp_path, run[1])
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_leaves_no_half_file(
    run: tuple[RunDirectory, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "a.src", SRC[:40])
    output = written(tmp_path / "links", ["old"])
    real, calls = Aligner._look, 0

    def failing(self: Aligner, pairs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, cast(list[tuple[WordPieces, WordPieces]], pairs))

    monkeypatch.setattr(Aligner, "_look", failing)
    with pytest.raises(KeyboardInterrupt):
        inspect_alignments(run[0], source, source, output, run[1])
    assert output.read_text(encoding="utf-8") == "old\n"
    assert sorted(tmp_path.iterdir()) == [source, output]
