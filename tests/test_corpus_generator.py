"""The quickstart corpus: Korean and English grammar against forms from a schoolbook, and the files as promised."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import conjugation, english, hangul
from corpus.conjugation import Stem
from corpus.dice import Dice
from corpus.phrase import finish, phrase
from corpus.sentences import sentence
from corpus.split import SIZES, UNSEEN

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "quickstart"
PARTS = ("train", "valid", "test")

# stem, irregular class: plain, polite, formal present; polite past; before a noun; with 면; future before 것
VERBS = [
    ("읽", "", "읽는다", "읽어요", "읽습니다", "읽었어요", "읽는", "읽으면", "읽을"),
    ("가", "", "간다", "가요", "갑니다", "갔어요", "가는", "가면", "갈"),
    ("오", "", "온다", "와요", "옵니다", "왔어요", "오는", "오면", "올"),
    ("마시", "", "마신다", "마셔요", "마십니다", "마셨어요", "마시는", "마시면", "마실"),
    ("배우", "", "배운다", "배워요", "배웁니다", "배웠어요", "배우는", "배우면", "배울"),
    ("보내", "", "보낸다", "보내요", "보냅니다", "보냈어요", "보내는", "보내면", "보낼"),
    ("되", "", "된다", "돼요", "됩니다", "됐어요", "되는", "되면", "될"),
    ("쉬", "", "쉰다", "쉬어요", "쉽니다", "쉬었어요", "쉬는", "쉬면", "쉴"),
    ("쓰", "", "쓴다", "써요", "씁니다", "썼어요", "쓰는", "쓰면", "쓸"),
    ("하", "", "한다", "해요", "합니다", "했어요", "하는", "하면", "할"),
    ("만들", "", "만든다", "만들어요", "만듭니다", "만들었어요", "만드는", "만들면", "만들"),
    ("앉", "", "앉는다", "앉아요", "앉습니다", "앉았어요", "앉는", "앉으면", "앉을"),
    ("씻", "", "씻는다", "씻어요", "씻습니다", "씻었어요", "씻는", "씻으면", "씻을"),
    ("듣", "ㄷ", "듣는다", "들어요", "듣습니다", "들었어요", "듣는", "들으면", "들을"),
    ("돕", "ㅂ", "돕는다", "도와요", "돕습니다", "도왔어요", "돕는", "도우면", "도울"),
    ("굽", "ㅂ", "굽는다", "구워요", "굽습니다", "구웠어요", "굽는", "구우면", "구울"),
    ("짓", "ㅅ", "짓는다", "지어요", "짓습니다", "지었어요", "짓는", "지으면", "지을"),
    ("부르", "르", "부른다", "불러요", "부릅니다", "불렀어요", "부르는", "부르면", "부를"),
    ("자르", "르", "자른다", "잘라요", "자릅니다", "잘랐어요", "자르는", "자르면", "자를"),
]
ADJECTIVES = [
    ("크", "", "크다", "커요", "큽니다", "컸어요", "큰"),
    ("나쁘", "", "나쁘다", "나빠요", "나쁩니다", "나빴어요", "나쁜"),
    ("예쁘", "", "예쁘다", "예뻐요", "예쁩니다", "예뻤어요", "예쁜"),
    ("길", "", "길다", "길어요", "깁니다", "길었어요", "긴"),
    ("좋", "", "좋다", "좋아요", "좋습니다", "좋았어요", "좋은"),
    ("아름답", "ㅂ", "아름답다", "아름다워요", "아름답습니다", "아름다웠어요", "아름다운"),
    ("빨갛", "ㅎ", "빨갛다", "빨개요", "빨갛습니다", "빨갰어요", "빨간"),
    ("하얗", "ㅎ", "하얗다", "하얘요", "하얗습니다", "하얬어요", "하얀"),
    ("게으르", "르", "게으르다", "게을러요", "게으릅니다", "게을렀어요", "게으른"),
    ("맛있", "", "맛있다", "맛있어요", "맛있습니다", "맛있었어요", "맛있는"),
]
COPULAS = [
    ("학생이", "학생이다", "학생이에요", "학생입니다", "학생이었어요", "학생이니"),
    ("의사이", "의사이다", "의사예요", "의사입니다", "의사였어요", "의사이니"),
    ("아니", "아니다", "아니에요", "아닙니다", "아니었어요", "아니니"),
]


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def present_forms(stem: Stem) -> tuple[str, ...]:
    return (
        conjugation.finite(stem, "present", "plain", False),
        conjugation.finite(stem, "present", "polite", False),
        conjugation.finite(stem, "present", "formal", False),
        conjugation.finite(stem, "past", "polite", False),
    )


@pytest.mark.parametrize(
    ("text", "irregular", "plain", "polite", "formal", "past", "noun", "condition", "future"), VERBS
)
def test_verbs_are_conjugated(
    text: str, irregular: str, plain: str, polite: str, formal: str, past: str, noun: str, condition: str, future: str
) -> None:
    stem = Stem(text, "verb", irregular)
    assert present_forms(stem) == (plain, polite, formal, past)
    assert conjugation.attributive(stem, "present") == noun
    assert conjugation.linking_form(stem) + "면" == condition
    assert conjugation.future_attributive(stem) == future


@pytest.mark.parametrize(("text", "irregular", "plain", "polite", "formal", "past", "noun"), ADJECTIVES)
def test_adjectives_are_conjugated(
    text: str, irregular: str, plain: str, polite: str, formal: str, past: str, noun: str
) -> None:
    stem = Stem(text, "adjective", irregular)
    assert present_forms(stem) == (plain, polite, formal, past)
    assert conjugation.attributive(stem, "present") == noun


@pytest.mark.parametrize(("text", "plain", "polite", "formal", "past", "question"), COPULAS)
def test_copulas_are_conjugated(text: str, plain: str, polite: str, formal: str, past: str, question: str) -> None:
    stem = Stem(text, "copula")
    assert present_forms(stem) == (plain, polite, formal, past)
    assert conjugation.finite(stem, "present", "plain", True) == question


@pytest.mark.parametrize(
    ("word", "pair", "marked"),
    [
        ("학생", "은/는", "학생은"),
        ("의사", "은/는", "의사는"),
        ("책", "을/를", "책을"),
        ("친구", "과/와", "친구와"),
        ("버스", "으로/로", "버스로"),
        ("지하철", "으로/로", "지하철로"),
        ("손", "으로/로", "손으로"),
    ],
)
def test_particles_follow_the_last_sound(word: str, pair: str, marked: str) -> None:
    assert hangul.particle(word, pair) == marked


def test_syllables_come_apart_and_together() -> None:
    assert hangul.split_syllable("한") == ("ㅎ", "ㅏ", "ㄴ")
    for code in range(0xAC00, 0xD7A4):
        assert hangul.join_syllable(*hangul.split_syllable(chr(code))) == chr(code)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (english.third_person("watch"), "watches"),
        (english.third_person("study"), "studies"),
        (english.third_person("play"), "plays"),
        (english.third_person("have"), "has"),
        (english.past("study"), "studied"),
        (english.past("buy"), "bought"),
        (english.past("bake"), "baked"),
        (english.participle("write"), "writing"),
        (english.participle("run"), "running"),
        (english.participle("see"), "seeing"),
        (english.plural("police officer"), "police officers"),
        (english.plural("child"), "children"),
        (english.plural("story"), "stories"),
        (english.article("apple"), "an"),
        (english.article("big"), "a"),
    ],
)
def test_english_is_inflected(form: str, expected: str) -> None:
    assert form == expected


def test_alignment_follows_the_words_through_reordering() -> None:
    subject, verb, thing = phrase("민수는", "Minsu"), phrase("읽는다", "reads"), phrase("그 책을", "the book")
    pair = finish((*subject.ko, *thing.ko, *verb.ko), (*subject.en, *verb.en, *thing.en), ".")
    assert (pair.ko, pair.en) == ("민수는 그 책을 읽는다", "Minsu reads the book.")
    assert pair.alignment == "0-0 1-2 1-3 2-2 2-3 3-1"


def test_dice_are_the_promised_ones() -> None:
    """random.Random(1).random() begins 0.13, 0.84, 0.76, 0.25, 0.49, 0.44, 0.65, 0.78, 0.09, 0.02 everywhere."""
    dice = Dice(1)
    assert [dice.pick("abcdefghij") for _ in range(10)] == list("bihceeghaa")


def test_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "make_corpus.py", "--output", tmp_path], check=True)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == sorted(path.name for path in DATA.iterdir())
    for name, content in written.items():
        assert content == (DATA / name).read_bytes(), f"{name}: run python scripts/make_corpus.py"


def test_sizes() -> None:
    for part in PARTS:
        assert len(lines(f"{part}.ko")) == len(lines(f"{part}.en")) == SIZES[part]
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 2_000_000


def test_no_sentence_is_in_two_parts_on_either_side() -> None:
    for side in ("ko", "en"):
        parts = [set(lines(f"{part}.{side}")) for part in (*PARTS, "unseen")]
        for one, other in itertools.combinations(parts, 2):
            assert not one & other


def test_the_second_test_part_holds_as_many_different_sentences() -> None:
    for side in ("ko", "en"):
        assert len(set(lines(f"unseen.{side}"))) == len(lines(f"unseen.{side}")) == UNSEEN == SIZES["test"]


def test_a_korean_sentence_has_one_translation() -> None:
    pairs = {(ko, en) for part in PARTS for ko, en in zip(lines(f"{part}.ko"), lines(f"{part}.en"), strict=True)}
    assert len({ko for ko, _ in pairs}) == len(pairs) == sum(SIZES.values())


def test_the_held_out_sentence() -> None:
    train = dict(zip(lines("train.ko"), lines("train.en"), strict=True))
    assert (lines("test.ko")[0], lines("test.en")[0]) == ("나는 학생이다", "I am a student.")
    assert "나는 학생이다" not in train
    assert "I am a student." not in train.values()
    assert train["너는 학생이다"] == "You are a student."
    assert train["나는 선생님이다"] == "I am a teacher."


@pytest.mark.parametrize("part", ["test", "unseen"])
def test_alignments_link_every_english_word_to_a_korean_one(part: str) -> None:
    rows = zip(lines(f"{part}.ko"), lines(f"{part}.en"), lines(f"{part}.align"), strict=True)
    for ko, en, alignment in rows:
        links = [tuple(map(int, link.split("-"))) for link in alignment.split()]
        assert links == sorted(set(links))
        assert max(source for source, _ in links) < len(ko.split())
        assert {target for _, target in links} == set(range(len(en.split()))), (ko, en, alignment)


def test_alignments_reorder() -> None:
    """Word order really differs: in most test sentences some links cross."""
    crossing = 0
    for alignment in lines("test.align"):
        links = [tuple(map(int, link.split("-"))) for link in alignment.split()]
        crossing += any(a < c and b > d for a, b in links for c, d in links)
    assert crossing > len(lines("test.align")) / 2


def test_sentences_are_well_formed() -> None:
    dice = Dice(7)
    for _ in range(500):
        pair = sentence(dice)
        assert pair.en[0].isupper()
        assert pair.en[-1] in ".?"
        assert (pair.en[-1] == "?") == (pair.ko[-1] == "?")
        assert "  " not in pair.ko + pair.en
        for before, word in zip(pair.en.split(), pair.en.split()[1:], strict=False):
            if before.lower() in ("a", "an"):
                assert (before.lower() == "an") == (word[0] in "aeiou"), pair.en
