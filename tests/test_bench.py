"""The benchmark's own parts: what it counts, how it compares, and that the loop it compares with is a sound one."""

import math
import random
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ceiling
import numpy as np
import pytest
import stock
import torch
from clock import Clock
from contestant import Contestant, NotRunning, Process, Turn, counts
from flops import RnnShape, TransformerShape
from ours import NAMES, logged, settings
from peers import PEERS, fairseq_tokens, is_installed, opennmt_tokens
from ratios import T_95, paired
from shared_text import SharedText, share
from table import Result, table, verdict
from torch.utils.flop_counter import FlopCounterMode
from train import WARM_UP, Options, measured, order

from tests.tiny import tiny_corpus
from translate.config import Config
from translate.models import build_model
from translate.run import RunDirectory
from translate.stages.tokenization import tokenize
from translate.text.batches import batches_in_order
from translate.text.encoded import load_split

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # a user would see it, too
HERE = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> SharedText:
    """The tiny corpus, with a pair that nobody can learn from."""
    corpus = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    for side in ("src", "tgt"):
        lines = (corpus / f"train.{side}").read_text("utf-8")
        (corpus / f"long.{side}").write_text(lines + ("\n" if side == "src" else "water\n"), encoding="utf-8")
    return share(corpus / "long.src", corpus / "long.tgt", tmp_path_factory.mktemp("bench") / "text", vocabulary=60)


# One text for all


def test_all_get_the_same_pairs_and_pieces(text: SharedText, tmp_path: Path) -> None:
    assert (len(text.tgt_lengths), text.dropped) == (90, 1)
    words = set(text.words.read_text("utf-8").split("\n")[:-1])
    assert len(words) == text.vocabulary - 4
    for side, lengths in (("src", text.src_lengths), ("tgt", text.tgt_lengths)):
        lines = text.lines(side).read_text("utf-8").split("\n")[:-1]
        pieces = [line.split(" ") for line in text.pieces(side).read_text("utf-8").split("\n")[:-1]]
        assert ["".join(cut).replace("▁", " ").strip() for cut in pieces] == lines
        assert {piece for cut in pieces for piece in cut} <= words
        assert [len(cut) + 1 for cut in pieces] == lengths.tolist()


def test_the_stock_loop_and_ours_learn_from_the_same_tokens(text: SharedText, tmp_path: Path) -> None:
    pairs, size = stock.read_pairs(text.folder)
    assert size == text.vocabulary
    config = Config.model_validate(settings(text, "rnn", "fp32", 1))
    tokenize(config, RunDirectory(tmp_path / "run").create())
    split = load_split(RunDirectory(tmp_path / "run"), "train")
    assert [(split.src(i).tolist(), [*split.tgt(i).tolist(), stock.EOS]) for i in range(len(split))] == pairs
    tokens = sum(batch.tokens for batch in batches_in_order(split, 100))
    assert tokens == sum(len(tgt) for _, tgt in pairs) == int(text.tgt_lengths.sum())


def test_ours_has_the_shape_that_all_have(text: SharedText) -> None:
    for kind, module in (("transformer", stock.Transformer), ("rnn", stock.Rnn)):
        config = Config.model_validate(settings(text, kind, "bf16", 2))  # type: ignore[arg-type]
        mine, theirs = build_model(config.model, 100, 100), module(100)
        sizes = [sorted(p.numel() for p in model.parameters() if p.ndim > 1) for model in (mine, theirs)]
        # nn.Transformer has the three projections of attention in one; ours has a bridge from encoder to decoder.
        difference = abs(sum(sizes[0]) - sum(sizes[1]))
        assert difference == (0 if kind == "transformer" else 512 * 512)
        assert (config.train.update_tokens, config.train.label_smoothing, config.train.clip) == (4096, 0.1, 1.0)
        assert stock.BATCH_TOKENS == 4096


# The loop of a user


@pytest.mark.parametrize("kind", ["transformer", "rnn"])
def test_the_stock_loop_learns_and_counts_real_tokens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    pairs = [
        ([*row, stock.EOS], [*row[::-1], stock.EOS])
        for row in (draw.choices(range(4, 9), k=n % 4 + 1) for n in range(40))
    ]
    monkeypatch.setattr(stock, "LR", 1e-2)
    torch.manual_seed(1)
    small = {"transformer": lambda: stock.Transformer(9, 16, 2, 1, 32), "rnn": lambda: stock.Rnn(9, 32, 16)}
    steps = stock.updates(small[kind](), pairs, 40)
    per_epoch = len(stock.batches(pairs, 40))
    found = [next(steps) for _ in range(30 * per_epoch)]
    first, last = found[:per_epoch], found[-per_epoch:]
    assert sum(tokens for tokens, _ in first) == sum(len(tgt) for _, tgt in pairs)
    assert max(tokens for tokens, _ in found) <= 40
    assert statistics.mean(loss for _, loss in last) < 0.75 * statistics.mean(loss for _, loss in first)


@pytest.mark.parametrize("kind", ["transformer", "rnn"])
def test_padding_and_batch_mates_change_nothing_in_the_stock_models(kind: str) -> None:
    torch.manual_seed(1)
    model = (stock.Transformer(9, 16, 2, 1, 32) if kind == "transformer" else stock.Rnn(9, 32, 16)).eval()
    pairs = [([5, 6, 2], [1, 7, 8]), ([5, 4, 7, 8, 2], [1, 4, 4, 6, 5, 7])]
    alone = [model(torch.tensor([src]), torch.tensor([tgt]))[0] for src, tgt in pairs]
    together = model(stock.padded([src for src, _ in pairs]), stock.padded([tgt for _, tgt in pairs]))
    for row, (lone, (_, tgt)) in enumerate(zip(alone, pairs, strict=True)):
        torch.testing.assert_close(together[row, : len(tgt)], lone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "rnn"])
def test_the_stock_models_see_no_word_before_they_have_written_it(kind: str) -> None:
    model = (stock.Transformer(9, 16, 2, 1, 32) if kind == "transformer" else stock.Rnn(9, 32, 16)).eval()
    src, tgt = torch.tensor([[5, 6, 2]]), torch.tensor([[1, 7, 8, 4]])
    other = tgt.clone()
    other[0, 2:] = 5
    before, after = model(src, tgt), model(src, other)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


class Spy(torch.nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[list[int]], list[list[int]]]] = []
        self.output = torch.nn.Parameter(torch.zeros(9))

    def forward(self, src: torch.Tensor, tgt_in: torch.Tensor) -> torch.Tensor:
        self.seen.append((src.tolist(), tgt_in.tolist()))
        return self.output.expand(*tgt_in.shape, 9)


def test_the_stock_loop_shows_the_words_written_so_far() -> None:
    spy = Spy()
    tokens, loss = next(stock.updates(spy, [([5, 2], [6, 7, 8, 2]), ([5, 6, 2], [4, 2])], 100))
    assert spy.seen == [([[5, 6, 2], [5, 2, 0]], [[1, 4, 0, 0], [1, 6, 7, 8]])]
    assert tokens == 6
    assert loss == pytest.approx(math.log(9))


def test_batches_hold_every_pair_once_and_little_padding() -> None:
    draw = random.Random(3)
    pairs = [([4] * draw.randint(1, 30), [4] * draw.randint(1, 30)) for _ in range(500)]
    found = stock.batches(pairs, 200)
    assert sorted(map(str, (pair for batch in found for pair in batch))) == sorted(map(str, pairs))
    assert max(sum(len(tgt) for _, tgt in batch) for batch in found) <= 200
    padded = sum(len(batch) * max(len(tgt) for _, tgt in batch) for batch in found)
    assert padded < 1.05 * sum(len(tgt) for _, tgt in pairs)


# Arithmetic


def counted(model: torch.nn.Module, src: torch.Tensor, tgt: torch.Tensor) -> int:
    """What PyTorch counts in a forward and a backward pass."""
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(src, tgt).sum().backward()
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # said when oneDNN is switched
@pytest.mark.parametrize("length", [(7, 11), (30, 20)])
def test_flops_are_those_that_pytorch_counts(length: tuple[int, int]) -> None:
    src, tgt = (torch.randint(4, 50, (5, size)) for size in length)
    lengths = np.full(5, length[0]), np.full(5, length[1])
    transformer = TransformerShape(width=32, feed_forward=64, heads=2, layers=2)
    model = stock.Transformer(50, 32, 2, 2, 64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = counted(model, src, tgt)
    assert transformer.flops(*lengths, 50) * tgt.numel() == pytest.approx(found, rel=0.02)
    found = counted(stock.Rnn(50, 32, 16), src, tgt)
    assert RnnShape(width=32, embedding=16).flops(*lengths, 50) * tgt.numel() == pytest.approx(found, rel=0.02)


def test_flops_of_a_narrow_output_are_those_of_its_two_matrices() -> None:
    lengths = np.array([9]), np.array([10])
    wide, narrow = (RnnShape(output=output).flops(*lengths, 8000) for output in (None, 256))
    assert wide - narrow == 6 * (512 * 8000 - 512 * 256 - 256 * 8000)


# Ceiling


def test_the_ceiling_is_a_speed_that_a_product_reaches() -> None:
    before = torch.get_float32_matmul_precision()
    found = ceiling.ceilings(0.05)
    assert set(found) == {"fp32", "bf16"}
    assert 0.1 < found["fp32"] < 20_000
    assert 0.01 < found["bf16"] < 50_000
    assert torch.get_float32_matmul_precision() == before


def test_the_ceiling_is_operations_by_the_shortest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.0, 1.0, 1.5, 2.0, 2.25, 3.0, 9.0])  # at first; then for each product: now, begin, end
    monkeypatch.setattr(ceiling, "SHAPE", (10, 20, 30))
    monkeypatch.setattr(ceiling, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert ceiling.gflops(torch.float32, 5.0) == pytest.approx(2e-9 * 6000 / 0.5)


def test_a_rounded_product_is_no_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ceiling.is_exact()
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: product(a.bfloat16(), b.bfloat16()).to(a.dtype) if a.dtype == torch.float32 else product(a, b),
    )
    assert not ceiling.is_exact()


# Ratios


def test_what_slows_both_of_a_pair_changes_nothing() -> None:
    slowed = [1.0, 0.5, 0.9, 0.1]
    ratio = paired([8000 * s for s in slowed], [2000 * s for s in slowed])
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((4.0, 4.0, 4.0))


def test_an_interval_by_hand() -> None:
    ratio = paired([2.0, 8.0, 4.0], [1.0, 1.0, 1.0])
    half = 4.303 * math.log(2) / math.sqrt(3)  # logarithms 1, 3, 2 in units of log 2: deviation 1
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((4.0, 4 * math.exp(-half), 4 * math.exp(half)))
    inverse = paired([1.0, 1.0, 1.0], [2.0, 8.0, 4.0])
    assert (inverse.mean, inverse.low, inverse.high) == pytest.approx((1 / ratio.mean, 1 / ratio.high, 1 / ratio.low))
    assert paired([3.0], [2.0]).high == math.inf


@pytest.mark.parametrize("turns", [3, 12, 40])
def test_the_interval_holds_the_truth_19_times_of_20(turns: int) -> None:
    draw = np.random.default_rng(turns)
    held = 0
    for _ in range(2000):
        ratio = paired(np.exp(draw.normal(0.5, 0.2, turns)).tolist(), [1.0] * turns)
        held += ratio.low <= math.exp(0.5) <= ratio.high
    assert held / 2000 == pytest.approx(0.95, abs=0.017)
    assert list(T_95) == sorted(T_95, reverse=True)


# Turns


def answer(channel: socket.socket) -> tuple[int, float]:
    updates, seconds = channel.recv(100).split()
    return int(updates), float(seconds)


def test_the_clock_stops_after_whole_updates_and_leaves_the_wait_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("clock.time", SimpleNamespace(perf_counter=lambda: now[0]))
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        clock = Clock(theirs)
        ours.sendall(b"2.5 2\n0.5 3\n0 1\n")
        now[0] += 7
        clock.tick()  # the first update, whatever it took
        assert answer(ours) == (1, 7.0)
        for _ in range(3):  # 1 s, 2 s, 3 s: the third is the first after 2.5 s
            now[0] += 1
            clock.tick()
        assert answer(ours) == (4, 3.0)
        for _ in range(3):  # 0.5 s have passed after the first, but three updates are asked for
            now[0] += 1
            clock.tick()
        assert answer(ours) == (7, 3.0)


TRAINER = """
import sys, time, torch
weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
for step in range(1, 10**6):
    weight.grad = torch.ones(1)
    optimizer.step()
    with open(sys.argv[1], "a") as out:
        out.write(f"{step % 3 + 1}\\n")
"""


def test_a_trainer_computes_only_when_it_is_its_turn(tmp_path: Path) -> None:
    script, told = tmp_path / "trainer.py", tmp_path / "tokens.txt"
    script.write_text(TRAINER)
    contestant = Contestant("a trainer", [sys.executable, str(script), str(told)], lambda _: counts(told))
    process = Process(contestant, 1, tmp_path).start()
    try:
        assert process.done == 1
        turns = [process.turn(0.0, 2), process.turn(0.0, 3)]
        assert [(turn.first, turn.last) for turn in turns] == [(2, 3), (4, 6)]
        assert dict(process.tokens()) == {1: 2, 2: 3, 3: 1, 4: 2, 5: 3}  # the last is written when it goes on
        assert 2**20 < process.peak_memory() < 2**33
        process.process.kill()
        process.process.wait()
        with pytest.raises(NotRunning, match=r"a trainer: has ended, see .*a-trainer\.log"):
            process.turn(0.0, 1)
    finally:
        process.stop()


def test_who_does_not_start_is_told(tmp_path: Path) -> None:
    wrong = Contestant("wrong", [sys.executable, str(tmp_path / "nothing.py")], counts)
    with pytest.raises(NotRunning, match=r"wrong: has ended, see .*wrong\.log"):
        Process(wrong, 1, tmp_path).start()
    unprepared = Contestant("unprepared", [sys.executable], counts, prepare=[["false", "it"]])
    with pytest.raises(NotRunning, match=r"unprepared: false it \.\.\. failed, see .*unprepared\.log"):
        Process(unprepared, 1, tmp_path).start()


def test_everybody_is_first_equally_often() -> None:
    running: list[Process] = ["a", "b", "c"]  # type: ignore[list-item]
    rounds = [order(running, number) for number in range(6)]
    assert all(sorted(map(str, one)) == ["a", "b", "c"] for one in rounds)
    assert (
        sorted(str(one[0]) for one in rounds)
        == sorted(str(one[-1]) for one in rounds)
        == ["a", "a", "b", "b", "c", "c"]
    )


# What others say of themselves


def test_tokens_from_the_output_of_peers() -> None:
    eole = (
        "[2026-01-01 10:00:00 INFO] Step 1/10000000; acc: 0.0; sents: 150; bsz: 3000/3105/150; 1/1 tok/s\n"
        "[2026-01-01 10:00:01 INFO] Step 2/10000000; acc: 0.1; sents: 98; bsz:  998/ 912/98; 1/1 tok/s; 2 sec;\n"
    )
    assert opennmt_tokens(eole) == {1: 3105, 2: 912}
    fairseq = (
        '2026-01-01 10:00:00 | INFO | train_inner | {"epoch": 1, "wpb": "2298", "bsz": "152", "num_updates": "1"}\n'
        "2026-01-01 10:00:01 | INFO | fairseq.trainer | begin\n"
        '2026-01-01 10:00:02 | INFO | train_inner | {"epoch": 1, "wpb": "2805.0", "num_updates": "2", "lr": "2e-06"}\n'
    )
    assert fairseq_tokens(fairseq) == {1: 2298, 2: 2805}


def test_tokens_from_our_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"event": "update", "step": 1, "tokens": 40}\n{"event": "memory", "step": 1}\n'
        '{"event": "update", "step": 2, "tokens": 71}\n'
    )
    assert logged(log) == {1: 40, 2: 31}


def test_a_peer_that_is_not_there_is_not_installed(tmp_path: Path) -> None:
    for name in PEERS:
        assert not is_installed(name, str(tmp_path / "python"))


def test_dataclasses_may_be_defaults_where_the_trainer_needs_it() -> None:
    script = (
        "import dataclasses, sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "import clock\n"
        "clock.allow_dataclass_defaults()\n"
        "@dataclasses.dataclass\n"
        "class Part: size: int = 1\n"
        "@dataclasses.dataclass\n"
        "class Whole:\n"
        "    one: Part = Part()\n"
        "    other: Part = dataclasses.field(default=Part(2))\n"
        "assert Whole().other.size == 2\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# What comes out


def result(name: str, rates: list[float], precision: str = "fp32") -> Result:
    return Result(name, precision, rates, 4000.0, 2**30, 50e6)


def test_the_table_has_ratios_shares_and_the_fastest_first() -> None:
    results = [
        result(NAMES["bf16"], [9000.0, 10000.0, 11000.0], "bf16"),
        result(NAMES["fp32"], [4500.0, 5000.0, 5500.0]),
        result("stock loop", [1800.0, 2000.0, 2200.0]),
        result("eole", [2250.0, 2500.0, 2750.0]),
        result("fairseq", [900.0, 1000.0, 1100.0]),
    ]
    lines = table(results, {"fp32": 500.0, "bf16": 1000.0})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells[2:]] == ["ours, bf16", "ours, fp32", "eole", "stock loop", "fairseq"]
    assert cells[4][1:] == [
        "2,500 (2,250 to 2,750)", "4,000", "25 % of fp32", "1.00 GiB", "4.00 (4.00 to 4.00)", "2.00 (2.00 to 2.00)"
    ]  # fmt: skip
    assert cells[2][3:] == ["50 % of bf16", "1.00 GiB", "", "0.50 (0.50 to 0.50)"]
    assert {len(row) for row in cells} == {7}
    assert verdict(results) == [
        "ours, bf16: 4.00 times (95 %: 4.00 to 4.00) the best peer (eole)",
        "ours, bf16: 5.00 times (95 %: 5.00 to 5.00) the stock loop",
        "ours, fp32: 2.00 times (95 %: 2.00 to 2.00) the best peer (eole)",
        "ours, fp32: 2.50 times (95 %: 2.50 to 2.50) the stock loop",
    ]
    assert verdict(results[:3])[0] == "no peer ran"


def test_a_rate_is_the_tokens_of_the_turns_that_count_by_their_seconds(text: SharedText, tmp_path: Path) -> None:
    contestant = Contestant("x", [sys.executable], lambda _: {update: 10 * update for update in range(1, 100)})
    process = Process(contestant, 1, tmp_path)
    process.turns = [Turn(2, 9, 9.0)] * WARM_UP + [Turn(10, 11, 2.0), Turn(12, 14, 3.0), Turn(15, 15, 0.5)]
    process.peak_memory = lambda: 5  # type: ignore[method-assign]
    options = Options(tmp_path, tmp_path, 2.0, 1.0, [1], ["rnn"], {}, tmp_path)
    options_of_two = Options(tmp_path, tmp_path, 0.0, 1.0, [1], ["rnn"], {}, tmp_path)
    assert (options.turns, options_of_two.turns) == (3, 3)
    found = measured(process, "rnn", text, options)
    assert found is not None
    assert found.rates == [210 / 2, 390 / 3, 150 / 0.5]
    assert found.update_tokens == (210 + 390 + 150) / 6
    assert found.flops == RnnShape().flops(text.src_lengths, text.tgt_lengths, text.vocabulary)


def test_who_does_not_tell_its_tokens_is_left_out(
    text: SharedText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(Contestant("mute", [sys.executable], lambda _: {1: 10, 2: 10, 4: 10}), 1, tmp_path)
    process.turns = [Turn(1, 1, 1.0)] * WARM_UP + [Turn(2, 2, 1.0), Turn(3, 3, 1.0), Turn(4, 4, 1.0)]
    assert measured(process, "rnn", text, Options(tmp_path, tmp_path, 0.0, 1.0, [1], ["rnn"], {}, tmp_path)) is None
    assert "left out: mute: does not tell the tokens of update 3, see" in capsys.readouterr().out
