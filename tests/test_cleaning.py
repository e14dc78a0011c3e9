import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import translate.text.cleaning
from translate.config import CleaningConfig
from translate.text.cleaning import (
    EXAMPLES,
    KEY,
    Account,
    Cleaner,
    Reason,
    as_keys,
    code,
    pair_key,
    repeated,
)

SIDE = st.text("ab ", max_size=3).map(str.strip)


@settings(max_examples=200, deadline=None)
@given(SIDE, SIDE, st.booleans())
def test_text_reasons_equal_their_definition(src: str, tgt: str, identical: bool) -> None:
    expected: Reason | None = None
    if src == "" or tgt == "":
        expected = Reason.EMPTY
    elif src == tgt and not identical:
        expected = Reason.IDENTICAL
    assert Cleaner(CleaningConfig(keep_identical=identical)).judge_text(src, tgt) == expected


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.lists(st.sampled_from("abcdefgh"))), at_once=st.integers(1, 9))
def test_repeated_keys_are_those_that_stood_before(parts: list[list[str]], at_once: int) -> None:
    flat = [letter for part in parts for letter in part]
    expected = [letter in flat[:i] for i, letter in enumerate(flat)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate.text.cleaning, "KEYS_AT_ONCE", at_once)
        found = repeated(lambda: [as_keys(pair_key(letter, "x") for letter in part) for part in parts])
    assert found.tolist() == expected


def test_memory_of_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(1).integers(0, 2**63, (16, 2 * 2**15), dtype=np.uint64)
    keys[1] = keys[0]
    at_once = keys.size // 2 // 8
    monkeypatch.setattr(translate.text.cleaning, "KEYS_AT_ONCE", at_once)
    tracemalloc.start()
    marks = repeated(lambda: (part.view(KEY) for part in keys))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(marks).tolist() == list(range(2**15, 2 * 2**15))
    assert peak < len(marks) + 90 * at_once  # a byte a key, and what is sorted together


def test_keys_differ_in_any_byte() -> None:
    base = bytes(16)
    others = [base[:i] + b"\1" + base[i + 1 :] for i in range(16)]
    assert repeated(lambda: [as_keys([base, *others]), as_keys(others)]).tolist() == [False] * 17 + [True] * 16


@pytest.mark.parametrize(
    ("src", "tgt", "reason"),
    [
        (1, 1, None),
        (0, 5, Reason.EMPTY),
        (5, 0, Reason.EMPTY),
        (20, 20, None),
        (21, 20, Reason.TOO_LONG),
        (20, 21, Reason.TOO_LONG),
        (1, 10, None),  # up to ten pieces the ratio is not judged
        (3, 11, Reason.RATIO),
        (11, 3, Reason.RATIO),
        (4, 12, None),  # the ratio itself is allowed
        (4, 13, Reason.RATIO),
    ],
)
def test_length_reasons(src: int, tgt: int, reason: Reason | None) -> None:
    assert Cleaner(CleaningConfig(max_length=20, max_ratio=3.0)).judge_lengths(src, tgt) == reason


def test_account_adds_up_and_remembers_the_first_places() -> None:
    account = Account("kss")
    for first in range(1, 31, 6):
        codes = [code(Reason.EMPTY if line % 2 else Reason.RATIO) for line in range(first, first + 6)]
        account.enter(np.array([*codes, code(None), code(None)], dtype=np.uint8), lambda i: f"kss.ko:{first + i}")  # noqa: B023
    account.close()
    assert (account.read, account.kept) == (40, 10)
    assert account.dropped == Counter({Reason.EMPTY: 15, Reason.RATIO: 15})
    assert account.examples[Reason.EMPTY] == [f"kss.ko:{line}" for line in range(1, 31, 2)][:EXAMPLES]
    assert account.examples[Reason.RATIO] == [f"kss.ko:{line}" for line in range(2, 31, 2)][:EXAMPLES]
    assert account.summary() == "kept 10 of 40 pairs (dropped: 15 empty, 15 ratio)"
    assert Account.of(account.facts()) == account
    account.kept += 1
    with pytest.raises(AssertionError, match="does not add up"):
        account.close()


def test_sides_do_not_run_into_each_other() -> None:
    assert pair_key("a b", "c") != pair_key("a", "b c")
    assert len(pair_key("a", "b")) == 16
