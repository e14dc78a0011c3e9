import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from translate.config import TokenizerConfig
from translate.errors import DataError, MissingInputError
from translate.run import RunDirectory
from translate.text.arrays import Sequences, SequenceWriter
from translate.text.encoded import LAYOUT, EncodedSplit, described_files, intact, load_split
from translate.text.tokenizer import EOS, Tokenizer, train_tokenizer


def split_of(counts: tuple[int, ...], weights: tuple[float, ...]) -> EncodedSplit:
    lists = [[i, EOS] for i in range(sum(counts))]
    return EncodedSplit(Sequences.of(lists, np.int32), Sequences.of(lists, np.int32), counts, weights)


def test_lengths_count_eos_on_both_sides() -> None:
    split = EncodedSplit(Sequences.of([[5, 6, EOS], [EOS]], np.int32), Sequences.of([[7], []], np.int32), (2,), (1.0,))
    assert split.src_lengths.tolist() == [3, 1]
    assert split.tgt_lengths.tolist() == [2, 1]
    assert split.src(0).tolist() == [5, 6, EOS]
    assert split.tgt(1).tolist() == []


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 2.25, 0.001])
def test_weight_says_how_often_a_pair_is_seen(weight: float) -> None:
    split = split_of((10, 40, 30), (1.0, weight, 3.0))
    for epoch in range(5):
        seen = Counter(split.pairs(1, epoch).tolist())
        assert all(seen[i] == 1 for i in range(10))
        assert all(seen[i] == 3 for i in range(50, 80))
        times = [seen[i] for i in range(10, 50)]
        assert set(times) <= {int(weight), int(weight) + 1}
        assert sum(times) == max(round(40 * weight), 1)


def test_shares_are_drawn_anew_by_seed_and_epoch() -> None:
    split = split_of((100, 100), (0.5, 0.5))
    drawn = {(seed, epoch): split.pairs(seed, epoch).tolist() for seed in (1, 2) for epoch in range(20)}
    assert len({tuple(pairs) for pairs in drawn.values()}) == 40
    assert split.pairs(2, 3).tolist() == drawn[2, 3]
    assert set().union(*(drawn[1, epoch] for epoch in range(20))) == set(range(200))
    pairs = np.array(drawn[1, 0])
    assert pairs[pairs < 100].tolist() != (pairs[pairs >= 100] - 100).tolist()


LINES = [f"number {i} of {i * 7} words and more" for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(lambda sides: LINES, TokenizerConfig(vocab_size=300, kind="bpe"), "nfc")[0]


def write_run(root: Path, tokenizer: Tokenizer, sampling: float, weight: float = 1.0) -> RunDirectory:
    run = RunDirectory(root)
    ids = tokenizer.encode_normalized("src", LINES)
    sides = {
        "src_ids": Sequences.of([[*i, EOS] for i in ids], np.uint16),
        "tgt_ids": Sequences.of([i[:3] for i in ids], np.uint16),
    }
    if sampling > 0:
        sides["src_text"] = Sequences.of([line.encode() for line in LINES], np.uint8)
        sides["tgt_text"] = Sequences.of([line[:9].encode() for line in LINES], np.uint8)
    paths = []
    for name, side in sides.items():
        with SequenceWriter(run.data / "train", name, side.items.dtype) as writer:
            writer.add(side)
            paths += writer.write()
    files = described_files(run, paths)
    corpora = [{"name": "all", "kept": len(LINES), "weight": weight}]
    facts = {"corpora": corpora, "sampling": sampling, "files": files}
    tokenizer.save(run.tokenizer)
    run.manifest.write_text(json.dumps({"layout": LAYOUT, "splits": {"train": facts}}))
    return run


def test_split_is_loaded_as_it_was_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = load_split(write_run(tmp_path, tokenizer, sampling=0.0), "train")
    assert len(split) == len(LINES)
    for i, line in enumerate(LINES):
        assert split.src(i).tolist() == tokenizer.encode_src(line)
        assert split.tgt(i).tolist() == tokenizer.encode_tgt(line)[:3]
    assert split.examples(split.pairs(1, 0), (1, 0)).sources is split.sources
    assert isinstance(split.sources.items.base, np.memmap)


def test_sampled_text_is_a_function_of_its_key(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = load_split(write_run(tmp_path, tokenizer, sampling=0.3, weight=2.0), "train")
    pairs = split.pairs(1, 0)

    def drawn(*key: int) -> list[list[int]]:
        made = split.examples(pairs, key)
        assert made.rows.tolist() == list(range(2 * len(LINES)))
        return [made.sources[i].tolist() for i in range(len(made))]

    first = drawn(1, 0, 0)
    drawn(1, 0, 1)
    assert drawn(1, 0, 0) == first
    assert len({str(drawn(*key)) for key in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]}) == 4
    assert first[: len(LINES)] != first[len(LINES) :]  # a pair that is seen twice is segmented twice
    assert [tokenizer.decode_tgt(ids) for ids in first] == [LINES[i] for i in pairs]
    assert all(ids[-1] == EOS for ids in first)
    targets = split.examples(pairs, (1, 0, 0)).targets
    assert [tokenizer.decode_tgt(targets[i]) for i in range(len(targets))] == [
        tokenizer.normalize(LINES[i][:9]) for i in pairs
    ]


def test_missing_and_damaged_data_is_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(MissingInputError, match="run translate tokenize first"):
        load_split(RunDirectory(tmp_path / "none"), "train")
    run = write_run(tmp_path / "run", tokenizer, sampling=0.0)
    with pytest.raises(MissingInputError, match=r"has no data\.test"):
        load_split(run, "test")
    files = json.loads(run.manifest.read_bytes())["splits"]["train"]["files"]
    path = run.data / "train" / "src_ids.npy"
    whole = path.read_bytes()
    assert intact(run, files)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not intact(run, files)
    path.write_bytes(b"x" + whole[1:])
    with pytest.raises(DataError, match=r"src_ids\.npy: is damaged"):
        load_split(run, "train")
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="damaged or missing"):
        load_split(run, "train")
