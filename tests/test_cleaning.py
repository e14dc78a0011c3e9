from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.config import CleaningConfig
from translate.text.cleaning import EXAMPLES, Account, Cleaner, Reason, pair_key
from translate.text.corpus import Pair

SIDE = st.text("ab ", max_size=3).map(str.strip)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(SIDE, SIDE)), st.booleans(), st.booleans())
def test_text_reasons_equal_their_definition(pairs: list[tuple[str, str]], duplicates: bool, identical: bool) -> None:
    cleaner = Cleaner(CleaningConfig(keep_duplicates=duplicates, keep_identical=identical))
    for i, (src, tgt) in enumerate(pairs):
        expected: Reason | None
        if src == "" or tgt == "":
            expected = Reason.EMPTY
        elif src == tgt and not identical:
            expected = Reason.IDENTICAL
        elif not duplicates and (src, tgt) in pairs[:i]:
            expected = Reason.DUPLICATE
        else:
            expected = None
        assert cleaner.judge_text(src, tgt) == expected


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
    account = Account("kss", read=40)
    for line in range(1, 31):
        account.drop(Pair("", "", "kss.ko", line), Reason.EMPTY if line % 2 else Reason.RATIO)
    account.kept = 10
    account.close()
    assert account.dropped == Counter({Reason.EMPTY: 15, Reason.RATIO: 15})
    assert account.examples[Reason.EMPTY] == [f"kss.ko:{line}" for line in range(1, 31, 2)][:EXAMPLES]
    assert account.summary() == "kept 10 of 40 pairs (dropped: 15 empty, 15 ratio)"
    assert Account.of(account.facts()) == account
    account.kept += 1
    with pytest.raises(AssertionError, match="does not add up"):
        account.close()


def test_watched_pairs_are_found() -> None:
    cleaner = Cleaner(CleaningConfig(), watched={pair_key("a", "b"), pair_key("c", "d")})
    cleaner.judge_text("a", "b")
    cleaner.judge_text("b", "a")
    assert cleaner.found == {pair_key("a", "b")}


def test_sides_do_not_run_into_each_other() -> None:
    assert pair_key("a b", "c") != pair_key("a", "b c")
    assert len(pair_key("a", "b")) == 16
