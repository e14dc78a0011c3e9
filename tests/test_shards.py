"""Shards: where they end, what they become, and that neither their size nor the number of processes shows."""

import itertools
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import translate.stages.tokenization
import translate.text.shards
from translate.config import CleaningConfig, Config, TokenizerConfig
from translate.errors import StorageError
from translate.run import RunDirectory
from translate.stages.tokenization import tokenize
from translate.text.cleaning import EXAMPLES, KEPT
from translate.text.corpus import Pair
from translate.text.encoded import load_split
from translate.text.joining import Finished, join
from translate.text.lines import read_lines
from translate.text.shards import EncodedShard, Order, Shard, encode_shard, read_keys, shards_of
from translate.text.tokenizer import EOS, Tokenizer, normalize, train_tokenizer
from translate.text.workers import encode_all

WORDS = ["나는", "집에", "간다", "go", "I", "am", "home", "to be", "\u3000"]


def random_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs with every fault: blank sides, equal sides, repeats, long ones, uneven ones."""
    draw = random.Random(seed)

    def side() -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice([0, 1, 2, 3, 4, 5, 6, 18, 40])))

    pairs: list[tuple[str, str]] = []
    for _ in range(count):
        fate = draw.random()
        if fate < 0.2 and pairs:
            pairs.append(draw.choice(pairs))
        elif fate < 0.3:
            pairs.append((same := side(), same))
        else:
            pairs.append((side(), side()))
    return pairs


def write_pairs(directory: Path, name: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    for ending, lines in zip(("src", "tgt"), zip(*pairs, strict=True), strict=True):
        (directory / f"{name}.{ending}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {"src": str(directory / f"{name}.src"), "tgt": str(directory / f"{name}.tgt")}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = tmp_path_factory.mktemp("text")
    first, second = random_pairs(300, 1), random_pairs(150, 2)
    valid = random_pairs(30, 3) + first[:5] + second[:5]
    return {
        "data": {
            "train": [write_pairs(text, "one", first), write_pairs(text, "two", second) | {"weight": 0.5}],
            "valid": [write_pairs(text, "valid", valid)],
            "test": [write_pairs(text, "test", random_pairs(20, 4) + first[8:20])],
            "cleaning": {"max_length": 60, "max_ratio": 3.0, "keep_identical": False},
        },
        "tokenizer": {"vocab_size": 290, "kind": "bpe", "sampling": 0.1},
    }


def files(run: RunDirectory) -> dict[str, bytes]:
    return {str(p.relative_to(run.root)): p.read_bytes() for p in sorted(run.root.rglob("*")) if p.is_file()}


def make(settings: dict[str, Any], root: Path) -> RunDirectory:
    run = RunDirectory(root).create()
    tokenize(Config.model_validate(settings), run)
    return run


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Made in one process, each corpus in one shard."""
    return make(settings, tmp_path_factory.mktemp("whole") / "run")


def read_corpus(corpus: dict[str, Any]) -> list[tuple[str, str]]:
    return list(zip(read_lines(Path(corpus["src"])), read_lines(Path(corpus["tgt"])), strict=True))


def test_everything_equals_one_pass_over_the_pairs(settings: dict[str, Any], whole: RunDirectory) -> None:
    """The definition, pair after pair: what is kept, counted and pointed at."""
    tokenizer = Tokenizer.open(whole.tokenizer)
    seen: set[tuple[str, str]] = set()
    kept: list[tuple[list[int], list[int]]] = []
    facts = json.loads(whole.manifest.read_bytes())["splits"]["train"]["corpora"]
    for corpus, found in zip(settings["data"]["train"], facts, strict=True):
        dropped: Counter[str] = Counter()
        places: dict[str, list[str]] = {}
        before = len(kept)
        for line, pair in enumerate(read_corpus(corpus), 1):
            src, tgt = (normalize(side, "nfc") for side in pair)
            ids = tokenizer.encode_src(src), tokenizer.encode_tgt(tgt)
            shorter, longer = sorted((len(ids[0]) - 1, len(ids[1])))
            if not src or not tgt:
                reason = "empty"
            elif src == tgt:
                reason = "source equals target"
            elif (src, tgt) in seen:
                reason = "duplicate"
            elif longer > 60:
                reason = "too long"
            elif longer > 10 and longer > 3 * shorter:
                reason = "ratio"
            else:
                reason = ""
                kept.append(ids)
            if reason not in ("empty", "source equals target"):
                seen.add((src, tgt))
            if reason:
                dropped[reason] += 1
                places.setdefault(reason, []).append(f"{corpus['src']}:{line}")
        assert len(dropped) == 5
        assert found["dropped"] == dropped
        assert found["examples"] == {reason: lines[:EXAMPLES] for reason, lines in places.items()}
        assert found["kept"] == len(kept) - before
        assert found["src_pieces"] == sum(len(src) - 1 for src, _ in kept[before:])
        assert found["tgt_pieces"] == sum(len(tgt) for _, tgt in kept[before:])
    split = load_split(whole, "train")
    assert [(split.src(i).tolist(), split.tgt(i).tolist()) for i in range(len(split))] == kept
    assert split.texts is not None
    lines = [normalize(tokenizer.decode_tgt(tgt), "nfc") for _, tgt in kept]
    assert [split.texts.tgt[i].tobytes().decode() for i in range(len(split))] == lines


def test_scored_pairs_within_the_training_text_are_counted(settings: dict[str, Any], whole: RunDirectory) -> None:
    """Also those that were dropped from it, as long as neither side is blank nor both are equal."""

    def normal(corpora: list[dict[str, Any]]) -> set[tuple[str, str]]:
        pairs = itertools.chain.from_iterable(map(read_corpus, corpora))
        return {(normalize(src, "nfc"), normalize(tgt, "nfc")) for src, tgt in pairs}

    train = {(src, tgt) for src, tgt in normal(settings["data"]["train"]) if src and tgt and src != tgt}
    expected = {
        name: len(pairs & train) / len(pairs)
        for name in ("valid", "test")
        for pairs in [normal(settings["data"][name])]
    }
    warned = json.loads(whole.manifest.read_bytes())["warnings"]
    for name, share in expected.items():
        assert share > 0.01
        assert (
            f"{share:.1%} of the pairs of data.{name} are in the training text too: its scores will flatter" in warned
        )


@pytest.mark.parametrize(
    ("pairs", "characters", "workers"), [(64, 2**24, 1), (9, 2**24, 1), (500, 300, 1), (64, 2**24, 3)]
)
def test_neither_size_nor_number_of_processes_shows(
    settings: dict[str, Any],
    whole: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairs: int,
    characters: int,
    workers: int,
) -> None:
    monkeypatch.setattr(translate.text.shards, "PAIRS", pairs)
    monkeypatch.setattr(translate.text.shards, "CHARACTERS", characters)
    monkeypatch.setattr(translate.text.shards, "LINES_AT_ONCE", 50)
    monkeypatch.setattr(translate.text.cleaning, "KEYS_AT_ONCE", 40)
    monkeypatch.setattr(translate.stages.tokenization, "workers_for", lambda total: workers)
    assert files(make(settings, tmp_path / "run")) == files(whole)


# What a shard is


def test_shards_hold_the_pairs_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate.text.shards, "PAIRS", 3)
    monkeypatch.setattr(translate.text.shards, "CHARACTERS", 10)
    places = [("a", 1), ("a", 2), ("a", 4), ("b", 1), ("b", 2), ("b", 3), ("b", 4), ("b", 5)]
    texts = [("x", "y"), ("", ""), ("p", "q"), ("l" * 8, "mm"), ("", "z"), ("u", ""), ("", ""), ("", "")]
    pairs = [Pair(*text, *place) for text, place in zip(texts, places, strict=True)]
    shards = list(shards_of(pairs))
    assert [shard.count for shard in shards] == [3, 1, 3, 1]
    sides = [zip(*(side.decode().split("\n") for side in (shard.src, shard.tgt)), strict=True) for shard in shards]
    assert list(itertools.chain.from_iterable(sides)) == texts
    found = [shard.places(i) for shard in shards for i in range(shard.count)]
    assert found == [f"{origin}:{line}" for origin, line in places]
    assert [len(shard.places.runs) for shard in shards] == [2, 1, 1, 1]
    assert list(shards_of([])) == []


def test_texts_that_differ_have_other_digests() -> None:
    def digest(*pairs: tuple[str, str]) -> str:
        [shard] = shards_of([Pair(src, tgt, "x", 1) for src, tgt in pairs])
        return shard.digest()

    texts = [[("a", "b")], [("a b", "")], [("", "a b")], [("a", ""), ("b", "")], [("a", "b"), ("", "")], [("ab", "")]]
    assert len({digest(*pairs) for pairs in texts}) == len(texts)
    [here], [there] = (shards_of([Pair("a", "b", origin, 7)]) for origin in "xy")
    assert here.digest() == there.digest()  # a file that was moved is the same text


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    lines = [side for pair in random_pairs(200, 5) for side in pair if side.strip()]
    return train_tokenizer(lambda sides: lines, TokenizerConfig(vocab_size=290, kind="bpe"), "nfc")[0]


def encoded(tokenizer: Tokenizer, pairs: list[tuple[str, str]], cleaning: CleaningConfig | None) -> EncodedShard:
    [shard] = shards_of([Pair(src, tgt, "x", 1) for src, tgt in pairs])
    seen: list[int] = []
    order = Order(Path("x"), "key", cleaning, keep_text=False)
    made = encode_shard(shard, order, tokenizer, 1, seen.append)
    assert sum(seen) == len(pairs)
    return made


def test_without_cleaning_every_pair_is_kept(tokenizer: Tokenizer) -> None:
    made = encoded(tokenizer, [("", "go"), ("go", "go"), ("go", "go")], None)
    assert made.codes.tolist() == [KEPT] * 3
    assert made.keyed.all()
    assert made.sides["src_ids"][0].tolist() == [EOS]
    assert made.keys[1] == made.keys[2] != made.keys[0]


def test_files_are_what_was_written_or_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = encoded(tokenizer, random_pairs(50, 6), CleaningConfig(max_length=30))
    path = tmp_path / "train.0.00000.npz"
    made.write(path, "key")
    again = EncodedShard.read(path)
    for name in ("codes", "keyed", "keys"):
        assert np.array_equal(getattr(again, name), getattr(made, name))
        assert getattr(again, name).dtype == getattr(made, name).dtype
    assert list(again.sides) == list(made.sides) == ["src_ids", "tgt_ids"]
    assert all(np.array_equal(again.sides[name].items, side.items) for name, side in made.sides.items())
    data = path.read_bytes()
    middle = data.index(made.keys.tobytes()[:16])
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    for read in (EncodedShard.read, read_keys):
        with pytest.raises(StorageError, match=r"00000\.npz: was damaged and is removed; run the same command again"):
            read(path)
        assert not path.exists()
        path.write_bytes(data[:-7])


def test_duplicates_leave_with_their_ids(tokenizer: Tokenizer) -> None:
    pairs = [("go home", "I am"), (" ", "go"), ("I", "I am " * 30), ("go", "go home"), ("am", "go")]
    made = encoded(tokenizer, pairs, CleaningConfig(max_length=20))
    assert made.codes.tolist() == [0, 1, 4, 0, 0]
    less = made.without(np.array([False, True, True, False]))
    assert less.codes.tolist() == [0, 1, 3, 3, 0]
    assert [less.sides["src_ids"][i].tolist() for i in range(2)] == [made.sides["src_ids"][i].tolist() for i in (0, 2)]
    assert [less.sides["tgt_ids"][i].tolist() for i in range(2)] == [made.sides["tgt_ids"][i].tolist() for i in (0, 2)]


def test_long_lines_end_a_shard() -> None:
    line = "x" * 2**22
    sizes = [shard.count for shard in shards_of(Pair(line, line, "x", i) for i in range(5))]
    assert sizes == [2, 2, 1]


def test_shard_of_one_blank_pair_comes_back() -> None:
    [shard] = shards_of([Pair("", "", "x", 9)])
    assert (shard, shard.places(0)) == (Shard(1, b"", b"", shard.places), "x:9")


def test_memory_does_not_grow_with_the_text(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the lines to the arrays, shard after shard; of each there are only its file and its places."""
    monkeypatch.setattr(translate.text.shards, "PAIRS", 100)
    monkeypatch.setattr(translate.text.cleaning, "KEYS_AT_ONCE", 200)
    monkeypatch.setattr(translate.text.arrays, "CHUNK", 2**12)
    tokenizer.save(tmp_path / "tokenizer")
    order = Order(Path("x"), "key", CleaningConfig(), keep_text=True)

    def arrays(shards: int) -> tuple[int, int]:
        """Bytes held at most, and bytes of the text."""
        pairs = (Pair(f"go home to be {i} " * 3, f"I am home {i} " * 3, "x", i) for i in range(100 * shards))
        finished: list[Finished] = []
        size = 0

        def work() -> Iterator[tuple[Shard, Order]]:
            nonlocal size
            for number, shard in enumerate(shards_of(pairs)):
                path = tmp_path / f"{number}.npz"
                finished.append(Finished(0, path, shard.places))
                size += len(shard.src) + len(shard.tgt)
                yield shard, replace(order, path=path)

        tracemalloc.start()
        encode_all(work(), tmp_path / "tokenizer", 1, lambda count: None)
        corpora, _ = join(finished, ["all"], tmp_path / "train", lambda count: None, drop_repeated=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert corpora[0].account.kept == 100 * shards
        return peak, size

    arrays(2)  # what is kept for ever
    few, many = arrays(4), arrays(24)
    assert many[0] - few[0] < 0.15 * (many[1] - few[1])
