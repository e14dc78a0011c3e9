import itertools
import json
import random
from collections import Counter
from math import exp, log

import pytest
import sacrebleu

from translate.config import EvaluateConfig
from translate.errors import DataError
from translate.evaluation.scores import Scores, bleu, score

PLAIN = EvaluateConfig()
REFS = ["The cat sat on the mat.", "A man, a plan, a canal!", "Two dogs run through the tall green grass ."]
HYPS = ["the cat sat on a mat.", "A man, a plan, a canal!", "Two dogs run in the green grass ."]


def random_text(lines: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    words = ["The", "dog", "dogs", "run", ",", "green", "grass.", "나는", "학생이다", "don't", "3.5", "(now)"]
    return [" ".join(chance.choices(words, k=chance.randint(1, 12))) for _ in range(lines)]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "intl", "zh", "char"])
def test_equals_sacrebleu_to_the_last_digit(tokenize: str, lowercase: bool) -> None:
    evaluate = EvaluateConfig.model_validate({"tokenize": tokenize, "lowercase": lowercase})
    for seed in range(5):
        hyps, refs = random_text(7, seed), random_text(7, seed + 100)
        hyps[2] = refs[2]
        found = score(hyps, refs, evaluate)
        expected = sacrebleu.corpus_bleu(hyps, [refs], lowercase=lowercase, tokenize=tokenize, force=True)
        assert found.bleu.value == expected.score
        assert found.bleu == bleu(hyps, refs, evaluate)
        assert f"tok:{tokenize}" in found.bleu.signature
        assert ("case:lc" in found.bleu.signature) == lowercase
        assert ("case:lc" in found.chrf.signature) == lowercase
        assert ("case:lc" in found.ter.signature) == lowercase
        if lowercase:
            hyps, refs = [hyp.lower() for hyp in hyps], [ref.lower() for ref in refs]
        assert found.chrf.value == sacrebleu.corpus_chrf(hyps, [refs]).score
        assert found.ter.value == sacrebleu.corpus_ter(hyps, [refs], case_sensitive=True).score


def test_bleu_by_hand() -> None:
    hyps, refs = ["a b c d e f g"], ["a b c d e x g h"]
    matches = []
    for order in range(1, 5):
        grams = [
            Counter(tuple(text.split()[place : place + order]) for place in range(len(text.split()) - order + 1))
            for text in (hyps[0], refs[0])
        ]
        matches.append(sum((grams[0] & grams[1]).values()) / sum(grams[0].values()))
    expected = 100 * exp(1 - 8 / 7) * exp(sum(map(log, matches)) / 4)
    assert score(hyps, refs, EvaluateConfig(tokenize="none")).bleu.value == pytest.approx(expected)


def test_identical_text_is_perfect() -> None:
    found = score(REFS, REFS, PLAIN)
    assert [found.bleu.value, found.chrf.value, found.ter.value] == pytest.approx([100.0, 100.0, 0.0])
    assert found.bleu.name == "BLEU"
    assert str(found.bleu).startswith("BLEU = 100.00  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_lowercase_forgives_case() -> None:
    forgiving = EvaluateConfig(lowercase=True)
    upper = [ref.upper() for ref in REFS]
    found = score(upper, REFS, forgiving)
    assert (round(found.bleu.value), round(found.chrf.value), found.ter.value) == (100, 100, 0.0)
    assert score(upper, REFS, PLAIN).bleu.value < 50


def test_unequal_counts_are_refused_with_both() -> None:
    for hyps, refs in itertools.permutations(range(4), 2):
        with pytest.raises(DataError, match=rf"found {hyps} hypotheses and {refs} references"):
            score(["a"] * hyps, ["a"] * refs, PLAIN)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="found no lines"):
        score([], [], PLAIN)
    with pytest.raises(DataError, match="all 2 references are blank"):
        score(["a", "b"], ["", " "], PLAIN)


def test_empty_hypotheses_count() -> None:
    full = score(HYPS, REFS, PLAIN)
    partly = score([*HYPS[:2], ""], REFS, PLAIN)
    assert (full.empty, partly.empty, partly.sentences) == (0, 1, 3)
    assert partly.bleu.value < full.bleu.value
    nothing = score(["", "", " "], REFS, PLAIN)
    assert (nothing.bleu.value, nothing.chrf.value, nothing.empty) == (0.0, 0.0, 3)
    assert nothing.ter.value == pytest.approx(100.0)


def test_json_round_trip() -> None:
    found = score(HYPS, REFS, PLAIN)
    assert Scores.from_json(json.loads(json.dumps(found.to_json()))) == found
