"""From pieces back to words: every piece of every tokenizer, over text that normalising changes."""

import io
import random
import sys

import pytest
import sentencepiece

from tests.test_tokenizer import SRC, learnt, sentences, text
from translate.config import TokenizerConfig
from translate.text.tokenizer import UNK, Side, Tokenizer, normalize, train_tokenizer
from translate.text.words import WordPieces, line_pieces, translation_pieces, word_numbers

ODD = [
    "나는  학생이다", "나는\t학생이다\u3000ka", " ka ", "", " ", "\u3000\t", "\u200b", "ka \u200b ri", "ka\u200bri st",
    "ka▁ri st", "▁ ka", "ka\x01ri st", "ka \x01 ri", "뷁 漢字 😀", "ka뷁ri 漢", "ka e\u0301 \u0301 ri", "ka\u00a0ri",
    "´ka ¨ ri´", "ﷺ ka", "ﬁ ka①", "ka ￾ ri", "가 나", "ka\u2028ri st", "ka\x85ri", "<unk> </s> <0xEC> ⁇ ka",
    "ka" * 40 + " ri", "\ufeffka ri", "st\u00ad en\u00ad", "a" * 30, "? . ,", "᾿ ka ῾", "ﾞka ﾞ", "ka ゛ ri",
]  # fmt: skip

SETTINGS: dict[str, dict[str, object]] = {
    "unigram": {},
    "bytes": {"byte_fallback": True},
    "no bytes": {"byte_fallback": False},
    "bpe": {"kind": "bpe", "byte_fallback": False},
    "two": {"joint": False, "vocab_size": 300},
}


@pytest.fixture(scope="module", params=SETTINGS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return learnt(**SETTINGS[request.param])


def surfaces(tokenizer: Tokenizer, line: str) -> list[bytes]:
    """What each piece of a source line stands for, as SentencePiece says it; unknown ones, too."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.src_model)
    line = tokenizer.normalize(line)
    pieces = zip(processor.encode(line), processor.encode(line, out_type=str), strict=True)
    return [bytes.fromhex(piece[3:5]) if processor.is_byte(i) else piece.encode() for i, piece in pieces]


@pytest.mark.parametrize("form", ["nfc", "nfkc", "none"])
def test_the_pieces_of_a_word_spell_it(tokenizer: Tokenizer, form: str) -> None:
    """Each word of the line as it was given, normalised by itself, is what its pieces show together."""
    same = Tokenizer(tokenizer.src_model, tokenizer.tgt_model, form)  # type: ignore[arg-type]
    for line in [*ODD, *SRC[:20], *sentences(20, 9)]:
        found = line_pieces(same, "src", line)
        words, pieces = line.split(), surfaces(same, line)
        assert found.ids == same.encode_src(line)[:-1]
        assert found.count == len(words)
        assert len(found.words) == len(found.ids) == len(pieces)
        spelt = [
            b"".join(piece for piece, held in zip(pieces, found.words, strict=True) if place in held).decode()
            for place in range(len(words))
        ]
        spelt = [word.replace("▁", "") for word in spelt]
        assert spelt == [normalize(word, form).replace(" ", "") for word in words]  # type: ignore[arg-type]
        assert all(len(held) == 1 for held in found.words)


def test_both_sides_are_read_alike(tokenizer: Tokenizer) -> None:
    for line in [*ODD, *SRC[:20]]:
        found = line_pieces(tokenizer, "tgt", line)
        assert found.ids == tokenizer.encode_tgt(line)
        if tokenizer.joint:
            assert found == line_pieces(tokenizer, "src", line)


@pytest.mark.parametrize("form", ["nfc", "nfkc", "none"])
def test_no_character_joins_words(form: str) -> None:
    """A word normalised by itself is what it is in the line, whatever character stands at its ends or in it.

    So the words of a line, normalised one by one, are the words of the line normalised.
    """
    rare = range(0x10000, sys.maxunicode, 11)
    characters = [chr(code) for code in (*range(0x3400), *range(0xF900, 0x10000), *rare)]
    for first in range(0, len(characters), 64):
        line = " ".join(f"{char}a {char} a{char}" for char in characters[first : first + 64])
        one_by_one = [part for word in line.split() for part in normalize(word, form).split()]  # type: ignore[arg-type]
        assert normalize(line, form).split() == one_by_one  # type: ignore[arg-type]


def test_the_pieces_of_a_translation_spell_its_words(tokenizer: Tokenizer) -> None:
    """Whatever pieces a model may write, unknown ones, bytes that are no character and bytes that are a space."""
    chance = random.Random(1)
    space, nothing = [0xE3, 0x80, 0x80], [0xC2, 0x85]
    byte = {code: i for i in range(tokenizer.tgt_size) for code in _byte(tokenizer.pieces_tgt([i])[0])}
    for _ in range(400):
        ids = [chance.randrange(UNK, tokenizer.tgt_size) for _ in range(chance.randint(0, 12))]
        if byte:
            codes = chance.choice([space, nothing, [0x20], [0x0A], [0], [0xEC, 0x95], [0xEC, 0x95, 0x84]])
            place = chance.randint(0, len(ids))
            ids[place:place] = [byte[code] for code in codes]
        found = translation_pieces(tokenizer, ids)
        words = tokenizer.decode_tgt(ids).split()
        assert (found.ids, found.count) == (ids, len(words))
        for place, word in enumerate(words):
            own = [i for i, held in zip(ids, found.words, strict=True) if place in held]
            assert tokenizer.decode_tgt(own).split() == [word]
        assert all(len(held) <= 1 for held in found.words)


def _byte(piece: str) -> list[int]:
    return [int(piece[3:5], 16)] if len(piece) == 6 and piece.startswith("<0x") else []


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], []),
        (["▁나는", "▁학생", "이다"], [[0], [1], [1]]),
        (["▁", "나", "▁", "학", "생"], [[0], [0], [1], [1], [1]]),
        (["나는", "▁학생"], [[0], [1]]),  # no space in front of the line
        (["나는▁", "학생▁"], [[0], [1]]),  # the space at the end of a piece
        (["▁나는▁학", "생", "▁"], [[0, 1], [1], []]),  # a piece over a space, and a space at the end
        (["▁", "▁", "a"], [[0], [0], [0]]),
        (["▁a", "<0xEC>", "<0x95>", "<0x84>", "▁b"], [[0], [0], [0], [0], [1]]),
        (["▁a", "<0xE3>", "<0x80>", "<0x80>", "b"], [[0], [1], [1], [1], [1]]),  # the bytes of a wide space
    ],
)
def test_words_by_hand(pieces: list[str], expected: list[list[int]]) -> None:
    assert word_numbers(pieces) == expected


def test_a_ready_model_may_have_rules_of_its_own() -> None:
    """Pieces over spaces, the space behind the word, and text that the model itself changes: no word out of range."""
    for settings in (
        {"split_by_whitespace": False, "vocab_size": 400},
        {"treat_whitespace_as_suffix": True},
        {"normalization_rule_name": "nmt_nfkc_cf"},
        {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
    ):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SRC),
            model_writer=model,
            **{"vocab_size": 300, "hard_vocab_limit": False, "minloglevel": 3, "unk_id": 3} | settings,
            pad_id=0, bos_id=1, eos_id=2,
        )  # fmt: skip
        ready = Tokenizer(model.getvalue(), None, "nfc")
        for line in [*ODD, *SRC[:20]]:
            for found in (line_pieces(ready, "src", line), translation_pieces(ready, ready.encode_tgt(line))):
                assert all(0 <= word < found.count for held in found.words for word in held)
        for line in SRC[:20]:  # where the model changes nothing, every word has its pieces
            found = line_pieces(ready, "src", line)
            assert {word for held in found.words for word in held} == set(range(len(line.split())))


def test_a_sign_that_text_does_not_show_puts_no_word_out_of_range() -> None:
    class Signs:
        """Piece 4 is decoded as nothing."""

        def pieces_tgt(self, ids: list[int]) -> list[str]:
            return [{4: "<sep>", 5: "▁ka", 6: "▁ri"}[i] for i in ids]

        def decode_tgt(self, ids: list[int]) -> str:
            return "".join({4: "", 5: " ka", 6: " ri"}[i] for i in ids).strip()

    found = translation_pieces(Signs(), [4, 5, 6])  # type: ignore[arg-type]
    assert found == WordPieces([4, 5, 6], [[0], [1], [1]], 2)
    assert translation_pieces(Signs(), [4]) == WordPieces([4], [[]], 0)  # type: ignore[arg-type]


def test_a_piece_over_a_space_is_a_part_of_both_words() -> None:
    class Phrases:
        """One piece for two words."""

        def encode_tgt(self, line: str) -> list[int]:
            return {"of  course not": [4, 5], "of": [6], "course": [7], "not": [5]}[line]

        def pieces_tgt(self, ids: list[int]) -> list[str]:
            return [{4: "▁of▁course", 5: "▁not", 6: "▁of", 7: "▁course"}[i] for i in ids]

    assert line_pieces(Phrases(), "tgt", "of  course not") == WordPieces([4, 5], [[0, 1], [2]], 3)  # type: ignore[arg-type]


def test_sides_have_their_own_pieces() -> None:
    def sided(sides: tuple[Side, ...]) -> list[str]:
        return list(text(sides))

    two, _ = train_tokenizer(sided, TokenizerConfig(vocab_size=300, joint=False), "nfc")
    line = SRC[0]
    assert line_pieces(two, "src", line).ids != line_pieces(two, "tgt", line).ids
    assert line_pieces(two, "src", line).count == line_pieces(two, "tgt", line).count
