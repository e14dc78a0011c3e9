import math
import random
from collections.abc import Iterator
from typing import cast

import pytest
import torch

from tests.stub_model import POISON, StubDecoder, StubEncoder, stub_model, tokens
from translate.config import DecodeConfig
from translate.decoding.beam import beam_search
from translate.decoding.scorer import Scorer
from translate.decoding.translator import BLANK, NOTHING, Translator, batches, windows
from translate.errors import DataError
from translate.models.seq2seq import Seq2Seq
from translate.text.tokenizer import EOS, Tokenizer

LETTERS = "xxxabcdefgh"
"""Letter of each id; z has none."""


class Letters:
    """A tokenizer for which each letter is a piece."""

    def encode_src(self, line: str) -> list[int]:
        return [LETTERS.index(letter) for letter in line if letter in LETTERS[3:]] + [EOS]

    def decode_tgt(self, ids: list[int]) -> str:
        return "".join(LETTERS[id] for id in ids)


def translator(model: Seq2Seq, **decode: float) -> Translator:
    config = DecodeConfig.model_validate({"batch_size": 4, "beam": 2} | decode)
    return Translator(Scorer([model]), cast(Tokenizer, Letters()), config, torch.device("cpu"))


def random_lines(count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices("abdefgh z", k=chance.randint(0, 9))) for _ in range(count)]


def test_translates_what_search_finds() -> None:
    model = stub_model(11, 1)
    ((best, second),) = translator(model, n_best=2).translate(["adg"])
    expected = beam_search(Scorer([model]), tokens([3, 6, 9]), 2, 26, 1.0, 2)[0]
    assert [best.ids, second.ids] == [each.ids for each in expected]
    assert [best.log_prob, second.score] == [expected[0].log_prob, expected[1].score]
    assert best.text == "".join(LETTERS[id] for id in best.ids)


@pytest.mark.parametrize("beam", [1, 3])
def test_order_neighbours_and_batch_size_change_nothing(beam: int) -> None:
    lines = random_lines(150)
    alone = [next(iter(translator(stub_model(11, 1), beam=beam).translate([line]))) for line in lines]
    for batch_size in (1, 2, 7, 150):
        together = list(translator(stub_model(11, 1), beam=beam, batch_size=batch_size).translate(lines))
        assert together == alone


def test_blank_lines_are_not_shown_to_the_model() -> None:
    model = stub_model(11, 1)
    found = list(translator(model, n_best=2).translate(["", " \t", "\u3000", "zz", "a", ""]))
    assert [each == [BLANK, BLANK] for each in found] == [True, True, True, True, False, True]
    assert isinstance(model.encoder, StubEncoder)
    assert model.encoder.seen == [[3, EOS]]


def test_no_lines() -> None:
    assert list(translator(stub_model(11, 1)).translate([])) == []


def test_n_best_is_always_full() -> None:
    for count in (1, 2, 5):
        found = list(translator(stub_model(4, 1), beam=5, n_best=count, max_length=1).translate(["a", ""]))
        assert [len(each) for each in found] == [count, count]
    assert [each.found for each in found[0]] == [True, True, False, False, False]  # "", "a" is all there is
    assert found[0][2:] == [NOTHING] * 3


def test_nan_gives_an_empty_line_and_spares_the_others() -> None:
    poisoned = LETTERS[POISON]
    lines = ["a", poisoned, "de", "f" + poisoned, "gh"]
    for beam in (1, 3):
        model = stub_model(11, 1)
        assert isinstance(model.decoder, StubDecoder)
        model.decoder.table[:, EOS] = -9.0  # nothing ends before the poison acts
        found = [each[0] for each in translator(model, beam=beam).translate(lines)]
        assert [each.found for each in found] == [True, False, True, False, True]
        assert found[1].text == found[3].text == ""
        assert all(math.isfinite(each.score) for each in found if each.found)


def test_length_is_limited_by_setting_and_source() -> None:
    model = stub_model(11, 1)
    assert isinstance(model.decoder, StubDecoder)
    model.decoder.table[:, EOS] = -99.0
    lines = ["a", "abde", ""]
    assert [len(each[0].ids) for each in translator(model).translate(lines)] == [22, 28, 0]
    assert [len(each[0].ids) for each in translator(model, max_length=25).translate(lines)] == [22, 25, 0]


def test_reads_no_further_than_the_window() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "adg"

    stream = translator(stub_model(11, 1), batch_size=2).translate(endless())
    for yielded, _ in enumerate(stream, start=1):
        assert read <= yielded + 2 * 16
        if yielded == 1:
            assert read == 2
        if yielded == 300:
            break


def test_batches_of_one_answer_line_by_line() -> None:
    said: list[str] = []

    def conversation() -> Iterator[str]:
        for line in ("a", "b", "c"):
            said.append(line)
            yield line

    for count, _ in enumerate(translator(stub_model(11, 1), batch_size=1).translate(conversation()), start=1):
        assert len(said) == count


def test_lines_before_an_error_are_translated() -> None:
    def failing() -> Iterator[str]:
        yield from ["a", "d", "e"]
        raise DataError("line 4")

    stream = translator(stub_model(11, 1), batch_size=2).translate(failing())
    assert [next(stream)[0].found for _ in range(3)] == [True] * 3
    with pytest.raises(DataError, match="line 4"):
        next(stream)


def test_windows_grow_and_keep_every_line() -> None:
    found = list(windows(map(str, range(300)), 4))
    assert [len(window) for window in found] == [4, 8, 16, 32, 64, 64, 64, 48]
    assert [line for window in found for line in window] == [str(number) for number in range(300)]
    assert list(windows(iter(()), 4)) == []
    assert [len(window) for window in windows("abcd", 4)] == [4]


def test_long_sentences_make_small_batches() -> None:
    lengths = sorted(random.Random(1).choices([3, 40, 128, 200, 700, 5000], k=100), reverse=True)
    found = list(batches(lengths, 8))
    assert [place for batch in found for place in batch] == list(range(100))
    for batch in found:
        assert 1 <= len(batch) <= 8
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] ** 2 <= 8 * 128**2
    assert any(len(batch) == 8 for batch in found)


def test_a_very_long_line_is_translated() -> None:
    ((found,),) = translator(stub_model(11, 1)).translate(["abdefgh" * 1000])
    assert found.found


def test_stops_between_batches_when_told() -> None:
    calls = 0

    def interrupted() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    subject = translator(stub_model(11, 1))
    subject.interrupted = interrupted
    stream = subject.translate(["a"] * 50)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert isinstance(subject.scorer.models[0].encoder, StubEncoder)
    assert len(subject.scorer.models[0].encoder.seen) == 2 * 4


def test_gradients_are_off_inside_and_on_outside() -> None:
    model = stub_model(11, 1)
    inside: list[bool] = []
    model.encoder.register_forward_hook(lambda *_: inside.append(torch.is_grad_enabled()))
    next(translator(model).translate(["a", "d"]))
    assert inside == [False]
    assert torch.is_grad_enabled()
