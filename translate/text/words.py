"""From a line's pieces back to its words: a word is what stands between white space in the line as it was given."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from translate.text.tokenizer import EOS, SPACES, UNK, Side, Tokenizer

Link = tuple[int, int]
"""A source word and a target word that belong together, each counted from 0 in its line."""

BYTE = re.compile("<0x[0-9A-F]{2}>")
UNKNOWN = " ⁇ "
"""What SentencePiece writes for an unknown piece, spaces included."""


@dataclass(frozen=True)
class WordPieces:
    """Ids of a line, without EOS; of each the words that it is a part of; and how many words the line has."""

    ids: list[int]
    words: list[list[int]]
    count: int


def line_pieces(tokenizer: Tokenizer, side: Side, line: str) -> WordPieces:
    """The pieces of a line that is read.

    The tokenizer sees a normalised line, in which a word may be missing (a zero-width space alone) or be several words
    (U+2581 inside). How many, each word shows when it is encoded by itself.
    """
    ids, numbers = _encoded(tokenizer, side, line)
    words = line.split()
    origins = [place for place, word in enumerate(words) for _ in range(_count(_encoded(tokenizer, side, word)[1]))]
    return WordPieces(ids, _placed(numbers, origins), len(words))


def translation_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> WordPieces:
    """The pieces of a translation that a model wrote; its words are those of `decode_tgt(ids)`."""
    pieces = tokenizer.pieces_tgt(ids)
    numbers = word_numbers([UNKNOWN if i == UNK else piece for i, piece in zip(ids, pieces, strict=True)])
    count = len(tokenizer.decode_tgt(ids).split())
    return WordPieces(list(ids), _placed(numbers, range(count)), count)


def word_numbers(pieces: Sequence[str]) -> list[list[int]]:
    """Of each piece the words that it is a part of, counted from 0.

    Words are parted by SentencePiece's sign for a space. A piece of that sign alone is a part of the word behind it; a
    piece may also hold several words, if the model was trained to have such.
    """
    numbers: list[list[int]] = []
    word, inside = -1, False
    for characters in _characters(pieces):
        held: list[int] = []
        for character in characters:
            space = SPACES.fullmatch(character) is not None
            if not space and not inside:
                word += 1
            if not space and word not in held[-1:]:
                held.append(word)
            inside = not space
        numbers.append(held)
    for place in reversed(range(len(numbers) - 1)):
        numbers[place] = numbers[place] or numbers[place + 1][:1]
    return numbers


def _encoded(tokenizer: Tokenizer, side: Side, text: str) -> tuple[list[int], list[list[int]]]:
    if side == "tgt":
        ids = tokenizer.encode_tgt(text)
        return ids, word_numbers(tokenizer.pieces_tgt(ids))
    ids = tokenizer.encode_src(text)
    assert ids[-1] == EOS
    return ids[:-1], word_numbers(tokenizer.pieces_src(ids[:-1]))


def _characters(pieces: Sequence[str]) -> list[str]:
    """The characters of each piece; of a piece that is one of a character's bytes, the character."""
    characters: list[str] = []
    for in_bytes, run in groupby(pieces, lambda piece: BYTE.fullmatch(piece) is not None):
        if in_bytes:
            text = bytes(int(piece[3:5], 16) for piece in run).decode(errors="surrogateescape")
            characters += [char for char in text for _ in char.encode(errors="surrogateescape")]
        else:
            characters += run
    return characters


def _count(numbers: Sequence[Sequence[int]]) -> int:
    return max((held[-1] for held in numbers if held), default=-1) + 1


def _placed(numbers: Sequence[Sequence[int]], origins: Sequence[int]) -> list[list[int]]:
    """Numbers of words in the tokenizer's sight -> places in the line; `origins` has the place of each.

    With a tokenizer of ours the two agree. A ready model may change text by rules of its own, and then count other
    words in the line than in its words one by one: what is beyond the last counts as a part of the last.
    """
    if not origins:
        return [[] for _ in numbers]
    return [sorted({origins[min(number, len(origins) - 1)] for number in held}) for held in numbers]
