"""The one text that all learn from: the same pairs, cut into the same pieces by one model.

FOLDER/train.src  train.tgt    normalised lines, for those who tokenize themselves (with FOLDER/joint.model)
FOLDER/pieces.src  pieces.tgt  the same as pieces with spaces between, for those who want words; words.txt is their list
FOLDER/valid.src ...           a few of the pairs, for those who do not start without
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flops import Lengths

from translate.config import TokenizerConfig
from translate.text.lines import read_lines
from translate.text.tokenizer import UNK, Normalization, normalize, train_tokenizer

VOCABULARY = 8000
LONGEST = 100
"""Pieces: the longest that all trainers take by default."""
VALID = 8
SIDES = ("src", "tgt")
FORM: Normalization = "nfc"


@dataclass(frozen=True)
class SharedText:
    """Where it lies, and its size."""

    folder: Path
    src_lengths: Lengths
    """(N,) pieces and EOS."""
    tgt_lengths: Lengths
    """(N,) pieces and EOS."""
    vocabulary: int
    dropped: int
    """Pairs left out: a side is empty or longer than LONGEST."""

    @property
    def model(self) -> Path:
        """The SentencePiece model."""
        return self.folder / "joint.model"

    @property
    def words(self) -> Path:
        """Every piece but the special ones, one a line."""
        return self.folder / "words.txt"

    def lines(self, side: str, split: str = "train") -> Path:
        """Text of a side."""
        return self.folder / f"{split}.{side}"

    def pieces(self, side: str, split: str = "pieces") -> Path:
        """The training text as pieces; split `valid_pieces` are those of the validation text."""
        return self.folder / f"{split}.{side}"

    def describe(self) -> str:
        """One line for the reader."""
        tokens = f"{self.src_lengths.sum():,} source and {self.tgt_lengths.sum():,} target tokens with EOS"
        left_out = f" ({self.dropped} pairs left out)" if self.dropped else ""
        return f"{len(self.tgt_lengths):,} pairs{left_out}, {tokens}, {self.vocabulary:,} pieces"


def share(src: Path, tgt: Path, folder: Path, vocabulary: int = VOCABULARY) -> SharedText:
    """Read two aligned files, learn the pieces from both, and write what the trainers read."""
    read = [list(read_lines(path)) for path in (src, tgt)]
    if len(read[0]) != len(read[1]):
        raise SystemExit(f"{src} has {len(read[0])} lines and {tgt} {len(read[1])}: give two files of the same length")
    config = TokenizerConfig(kind="bpe", vocab_size=vocabulary, byte_fallback=False)
    lines = [[normalize(line, FORM) for line in side] for side in read]
    tokenizer, _ = train_tokenizer(lambda _: itertools.chain(*lines), config, FORM)
    ids = [tokenizer.encode_normalized("src", side) for side in lines]
    kept = [i for i, pair in enumerate(zip(*ids, strict=True)) if all(1 <= len(side) <= LONGEST for side in pair)]
    folder.mkdir(parents=True)
    tokenizer.save(folder)
    for name, side, cut in zip(SIDES, lines, ids, strict=True):
        text = [side[i] for i in kept]
        pieces = [" ".join(tokenizer.pieces_src(cut[i])) for i in kept]
        for split, whole in {"train": text, "valid": text[:VALID]}.items():
            _write(folder / f"{split}.{name}", whole)
        for split, whole in {"pieces": pieces, "valid_pieces": pieces[:VALID]}.items():
            _write(folder / f"{split}.{name}", whole)
    _write(folder / "words.txt", tokenizer.pieces_src(range(UNK + 1, tokenizer.src_size)))
    lengths = [np.array([len(cut[i]) + 1 for i in kept], np.int64) for cut in ids]
    return SharedText(folder, lengths[0], lengths[1], tokenizer.src_size, len(read[0]) - len(kept))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
