import io
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.config import TokenizerConfig
from translate.errors import ConfigError, DataError, MissingInputError
from translate.text.tokenizer import BOS, EOS, PAD, UNK, Side, Tokenizer, normalize, train_tokenizer

LETTERS = ["나", "는", "학생", "이다", "ka", "ri", "st", "en", "ße", "ü", "東", "へ"]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(200)]
    return [" ".join(rng.choices(words, k=rng.randint(2, 8))) for _ in range(count)]


SRC, TGT = sentences(300, 1), sentences(300, 2)


def text(sides: tuple[Side, ...]) -> Iterator[str]:
    for src, tgt in zip(SRC, TGT, strict=True):
        yield from ({"src": src, "tgt": tgt}[side] for side in sides)


def learnt(**settings: object) -> Tokenizer:
    return train_tokenizer(text, TokenizerConfig.model_validate({"vocab_size": 360} | settings), "nfc")[0]


@pytest.fixture(scope="module")
def joint() -> Tokenizer:
    return learnt()


ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@settings(max_examples=400, deadline=None)
@given(ANY_TEXT, st.sampled_from(["nfc", "nfkc", "none"]))
def test_normalising_twice_is_normalising_once(line: str, form: str) -> None:
    once = normalize(line, form)  # type: ignore[arg-type]
    assert normalize(once, form) == once  # type: ignore[arg-type]
    assert not any(c != " " and (c.isspace() or unicodedata.category(c) in ("Cc", "Cs")) for c in once)
    assert once == once.strip()
    assert "  " not in once


def test_normalised_forms() -> None:
    assert normalize("각", "nfc") == "각"
    assert normalize("ﬁ①", "nfc") == "ﬁ①"
    assert normalize("ﬁ①", "nfkc") == "fi1"
    assert normalize("각", "none") == "각"
    assert normalize(" a\t\u3000b\u00a0\u2028c\u200b\ufeff ", "nfc") == "a b c"
    assert normalize("e\u200b\u0301", "nfc") == "é"
    assert normalize("👩\u200d🎓", "nfc") == "👩\u200d🎓"


@settings(max_examples=400, deadline=None)
@given(line=ANY_TEXT)
def test_decoding_gives_the_normalised_text_back(joint: Tokenizer, line: str) -> None:
    ids = joint.encode_tgt(line)
    assert joint.decode_tgt(ids) == normalize(line, "nfc")
    assert not {PAD, BOS, EOS, UNK} & set(ids)
    assert joint.encode_src(line) == [*ids, EOS]
    assert joint.encode_normalized("src", [joint.normalize(line)]) == [ids]


@pytest.mark.parametrize("line", ["", " ", "\t\u00a0\u3000", "\u200b\u200e\ufeff", "\u2581"])
def test_blank_lines_have_no_pieces(joint: Tokenizer, line: str) -> None:
    assert joint.encode_src(line) == [EOS]
    assert joint.encode_tgt(line) == []


def test_names_of_control_ids_are_plain_text(joint: Tokenizer) -> None:
    line = "<s> </s> <unk> <pad> <0x0A>"
    assert joint.decode_tgt(joint.encode_tgt(line)) == line
    assert min(joint.encode_tgt(line)) > UNK


def test_every_piece_decodes_to_one_line(joint: Tokenizer) -> None:
    everything = [range(joint.tgt_size), *([i] for i in range(joint.tgt_size)), [14, 14], [4 + 0xED, 4 + 0xA0]]
    for ids in everything:
        line = joint.decode_tgt(ids)
        line.encode()
        assert len(line.splitlines()) <= 1
    assert joint.decode_tgt([BOS, *joint.encode_tgt("kari"), EOS, PAD]) == "kari"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_same_text_gives_the_same_bytes(kind: str) -> None:
    first, second = learnt(kind=kind), learnt(kind=kind)
    assert first.src_model == second.src_model
    assert first.digest == second.digest
    assert first.src_size == 360


def test_sides_have_their_own_models() -> None:
    tokenizer = learnt(joint=False, vocab_size=340)
    assert not tokenizer.joint
    assert tokenizer.src_model != tokenizer.tgt_model
    again = Tokenizer.from_blob(tokenizer.blob())
    assert (again.src_model, again.tgt_model) == (tokenizer.src_model, tokenizer.tgt_model)
    assert again.digest == tokenizer.digest


def test_too_large_a_vocabulary_becomes_smaller_with_a_message() -> None:
    tokenizer, messages = train_tokenizer(lambda _: ["hello world"] * 3, TokenizerConfig(vocab_size=8000), "nfc")
    assert 260 < tokenizer.src_size < 300
    assert messages == [f"vocabulary: {tokenizer.src_size} pieces, not 8000: the text is too small for more"]


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size: found 100, expected at least \d+"):
        learnt(vocab_size=100)


@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_no_text_is_refused(lines: list[str]) -> None:
    with pytest.raises(DataError, match="no text to learn pieces from"):
        train_tokenizer(lambda _: lines, TokenizerConfig(), "nfc")


def test_failure_of_the_text_comes_through_as_it_is() -> None:
    def failing(_: Iterable[Side]) -> Iterator[str]:
        yield "hello"
        raise DataError("a.ko:7: not UTF-8")

    with pytest.raises(DataError, match=r"^a\.ko:7: not UTF-8$"):
        train_tokenizer(failing, TokenizerConfig(), "nfc")


def test_long_lines_and_reserved_characters_are_not_left_out() -> None:
    lines = ["a b c"] * 3 + ["쀍 " * 3000, "▅ 쀎 x"]
    pieces = Tokenizer(
        train_tokenizer(lambda _: lines, TokenizerConfig(byte_fallback=False), "nfc")[0].src_model, None, "nfc"
    )
    assert UNK not in pieces.encode_tgt("쀍 쀎")


def test_training_writes_nothing_to_the_terminal() -> None:
    program = (
        "from translate.text.tokenizer import *\nfrom translate.config import TokenizerConfig\n"
        "train_tokenizer(lambda _: ['hello world'], TokenizerConfig(), 'nfc')\n"
        "try: Tokenizer.from_bytes(b'junk')\nexcept DataError: pass"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sampling_is_a_function_of_its_seed(kind: str) -> None:
    tokenizer = learnt(kind=kind)
    lines = [tokenizer.normalize(line) for line in SRC[:50]]
    first = tokenizer.sample("src", lines, 0.3, seed=7)
    tokenizer.sample("src", lines[:3], 0.3, seed=8)
    assert tokenizer.sample("src", lines, 0.3, seed=7) == first
    assert tokenizer.sample("src", lines, 0.3, seed=8) != first
    assert [tokenizer.decode_tgt(ids) for ids in first] == lines
    plain = tokenizer.encode_normalized("src", lines)
    changed = sum(a != b for a, b in zip(first, plain, strict=True))
    assert changed > 10  # of 50
    rarer = tokenizer.sample("src", lines, 0.01, seed=7)
    assert sum(map(len, rarer)) < sum(map(len, tokenizer.sample("src", lines, 0.9, seed=7)))


def test_saved_and_opened(tmp_path: Path) -> None:
    for tokenizer in (learnt(), learnt(joint=False, vocab_size=340)):
        directory = tmp_path / str(tokenizer.joint)
        tokenizer.save(directory)
        opened = Tokenizer.open(directory)
        assert (opened.digest, opened.joint, opened.normalization) == (tokenizer.digest, tokenizer.joint, "nfc")
        model = sorted(directory.glob("*.model"))[-1]
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
        with pytest.raises(DataError):
            Tokenizer.open(directory)
        model.unlink()
        with pytest.raises(MissingInputError):
            Tokenizer.open(directory)


@pytest.mark.parametrize("spoil", [lambda b: b[1:], lambda b: b[:-1], lambda b: b + b"x", lambda b: b""])
def test_damaged_blob_is_refused(joint: Tokenizer, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DataError, match="stored tokenizer"):
        Tokenizer.from_blob(spoil(joint.blob()))


def test_unfit_ready_models_are_refused(tmp_path: Path, joint: Tokenizer) -> None:
    good = joint.src_model
    word = max(joint.pieces_src(range(joint.src_size)), key=len).encode()
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "it is empty"),
        "half": (good[: len(good) // 2], "no usable SentencePiece model"),
        "zeros": (bytes(1000), "no usable SentencePiece model"),
        "text": (b"hello world\n" * 9, "no usable SentencePiece model"),
        "bytes": (good.replace(word, b"\xff" * len(word)), "a piece that is not UTF-8"),
        "control": (good.replace(word, b"\x1b" * len(word)), "holds a control character"),
        "twice": (good.replace(b"<0x41>", b"<0x42>"), "no usable SentencePiece model"),
        "ids": (_default_model(), "found pad, bos, eos, unk at ids -1, 1, 2, 0, expected 0, 1, 2, 3"),
    }
    for name, (data, message) in cases.items():
        assert data != good
        path = tmp_path / f"{name}.model"
        path.write_bytes(data)
        with pytest.raises(DataError, match=message) as caught:
            Tokenizer.from_files(path, None, "nfc")
        assert str(path) in str(caught.value)
    with pytest.raises(MissingInputError):
        Tokenizer.from_files(tmp_path / "none.model", None, "nfc")


def _default_model() -> bytes:
    """With the ids that SentencePiece gives when it is not told any."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SRC), model_writer=model, vocab_size=100, hard_vocab_limit=False, minloglevel=3
    )
    return model.getvalue()


def test_pieces_are_shown(joint: Tokenizer) -> None:
    pieces = joint.pieces_src(joint.encode_src("kari 학생"))
    assert pieces[-1] == "</s>"
    assert "".join(pieces[:-1]) == "▁kari▁학생"
    assert joint.pieces_tgt([PAD, BOS]) == ["<pad>", "<s>"]
