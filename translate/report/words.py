"""From SentencePiece's pieces to words: weights over pieces become weights over words."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]
"""Attention weights (T, S): row t says how much target position t looked at each source position."""

WORD_START = "▁"
CONTROL = ("<pad>", "<s>", "</s>", "<unk>")


def word_spans(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Where each word begins and ends (exclusive) among the pieces.

    A word begins at SentencePiece's mark of a space; a control piece such as </s> and a piece of nothing but
    punctuation are words by themselves, so that `student` is not averaged with the full stop after it.
    """
    starts = [
        index
        for index, piece in enumerate(pieces)
        if index == 0 or piece.startswith(WORD_START) or _stands_alone(piece) or _stands_alone(pieces[index - 1])
    ]
    return list(zip(starts, [*starts[1:], len(pieces)], strict=True))


def _stands_alone(piece: str) -> bool:
    return piece in CONTROL or all(unicodedata.category(char).startswith("P") for char in piece)


def word_texts(pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
    """The words as they are written; bytes that stand for one character are put together again."""
    return [_text(pieces[start:end]) for start, end in spans]


def _text(pieces: Sequence[str]) -> str:
    data = b"".join(
        bytes((int(piece[3:5], 16),)) if _is_byte(piece) else piece.replace(WORD_START, "").encode(errors="replace")
        for piece in pieces
    )
    return data.decode(errors="replace")


def _is_byte(piece: str) -> bool:
    """Whether a piece is a byte of a character outside the vocabulary, such as <0xEC>."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def by_words(weights: Weights, tgt: Sequence[tuple[int, int]], src: Sequence[tuple[int, int]]) -> Weights:
    """Weights by pieces (T, S) -> by words: summed over a source word's pieces, averaged over a target word's.

    So a row still adds up to one.
    """
    columns = np.stack([weights[:, start:end].sum(axis=1) for start, end in src], axis=1)
    return np.stack([columns[start:end].mean(axis=0) for start, end in tgt])
