"""Korean verbs and adjectives: from a stem to its endings.

Vowel harmony, contraction, the loss of ㄹ and of ㅡ follow from the stem's letters; the irregular classes (ㄷ, ㅂ, ㅅ,
ㅎ, 르) do not, and are written in the lexicon.
"""

from dataclasses import dataclass
from typing import Literal

from corpus.hangul import final_of, vowel_of, with_final, with_vowel

Style = Literal["plain", "polite", "formal"]
Tense = Literal["present", "past", "future"]

BRIGHT = "ㅏㅑㅗ"
CONTRACTIONS = {"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ"}
SWALLOW = "ㅏㅓㅐㅔㅕ"  # vowels that take in the vowel of the ending


@dataclass(frozen=True)
class Stem:
    """What is left of a dictionary form without 다; `irregular` is '' or its class: ㄷ, ㅂ, ㅅ, ㅎ, 르."""

    text: str
    kind: Literal["verb", "adjective", "copula"] = "verb"
    irregular: str = ""

    def __add__(self, ending: str) -> str:
        """The stem before an ending that changes nothing: 고, 지, 기, 자."""
        return self.text + ending


def vowel_form(stem: Stem) -> str:
    """The form before 요 and the past ㅆ: 읽 -> 읽어, 가 -> 가, 마시 -> 마셔, 돕 -> 도와, 하 -> 해."""
    text = stem.text
    if stem.irregular:
        return _irregular_vowel_form(text, stem.irregular)
    if text.endswith("하"):
        return with_vowel(text, "ㅐ")
    vowel = vowel_of(text)
    if final_of(text) == "ㅆ":
        return text + "어"  # the past, and 있, know no harmony
    if final_of(text):
        return text + ("아" if vowel in BRIGHT else "어")
    if vowel == "ㅡ":
        return with_vowel(text, "ㅏ" if len(text) > 1 and vowel_of(text[:-1]) in BRIGHT else "ㅓ")
    if vowel in SWALLOW:
        return text
    return with_vowel(text, CONTRACTIONS[vowel]) if vowel in CONTRACTIONS else text + "어"


def _irregular_vowel_form(text: str, irregular: str) -> str:
    match irregular:
        case "ㄷ":
            return with_final(text, "ㄹ") + ("아" if vowel_of(text) in BRIGHT else "어")
        case "ㅂ":
            return with_final(text, "") + ("와" if text == "돕" else "워")
        case "ㅅ":
            return with_final(text, "") + ("아" if vowel_of(text) in BRIGHT else "어")
        case "ㅎ":
            return with_vowel(text, "ㅒ" if vowel_of(text) == "ㅑ" else "ㅐ")
        case "르":
            return with_final(text[:-1], "ㄹ") + ("라" if vowel_of(text[:-1]) in BRIGHT else "러")
    raise AssertionError(f"no irregular class {irregular!r}")


def linking_form(stem: Stem) -> str:
    """The form before 면, 세요 and before a consonant that closes it: 읽 -> 읽으, 듣 -> 들으, 돕 -> 도우, 가 -> 가."""
    text = stem.text
    match stem.irregular:
        case "ㄷ":
            return with_final(text, "ㄹ") + "으"
        case "ㅂ":
            return with_final(text, "") + "우"
        case "ㅅ":
            return with_final(text, "") + "으"
        case "ㅎ":
            return with_final(text, "")
    return text if final_of(text) in ("", "ㄹ") else text + "으"


def short_form(stem: Stem) -> str:
    """The stem before ㄴ, 니 and 는, where a last ㄹ falls: 만들 -> 만드, 읽 -> 읽."""
    return with_final(stem.text, "") if final_of(stem.text) == "ㄹ" else stem.text


def formal_base(stem: Stem) -> str:
    """The form before 니다 and 니까: 읽습, 갑, 만듭."""
    if final_of(stem.text) in ("", "ㄹ"):
        return with_final(stem.text, "ㅂ")
    return stem.text + "습"


def past_stem(stem: Stem) -> Stem:
    """읽 -> 읽었, 가 -> 갔, 학생이 -> 학생이었, 의사이 -> 의사였."""
    if stem.kind == "copula":
        return Stem(_copula_past(stem.text), "adjective")
    return Stem(with_final(vowel_form(stem), "ㅆ"), "adjective")


def _copula_past(text: str) -> str:
    host = text[:-1]
    if text.endswith("이") and not final_of(host):
        return host + "였"
    return text + "었"


def finite(stem: Stem, tense: Tense, style: Style, question: bool) -> str:
    """A finished sentence's last word in the present or past; the future is built of words around 것."""
    if tense == "past":
        stem = past_stem(stem)
    match style:
        case "plain":
            return short_form(stem) + "니" if question else _plain(stem)
        case "polite":
            return _polite_copula(stem) if stem.kind == "copula" else vowel_form(stem) + "요"
        case "formal":
            return formal_base(stem) + ("니까" if question else "니다")


def _plain(stem: Stem) -> str:
    if stem.kind != "verb":
        return stem + "다"
    if final_of(stem.text) in ("", "ㄹ"):
        return with_final(stem.text, "ㄴ") + "다"
    return stem + "는다"


def _polite_copula(stem: Stem) -> str:
    host = stem.text[:-1]
    if stem.text.endswith("이") and not final_of(host):
        return host + "예요"
    return stem + "에요"


def future_attributive(stem: Stem) -> str:
    """읽 -> 읽을, 가 -> 갈, 만들 -> 만들."""
    return with_final(linking_form(stem), "ㄹ")


def attributive(stem: Stem, tense: Tense) -> str:
    """The form before the noun it describes: 읽는, 읽은, 읽을, 큰, 맛있는."""
    if tense == "future":
        return future_attributive(stem)
    if tense == "present" and (stem.kind == "verb" or stem.text[-1] in "있없"):
        return short_form(stem) + "는"
    return with_final(linking_form(stem), "ㄴ")


def imperative(stem: Stem, style: Style) -> str:
    """읽어라, 읽으세요, 읽으십시오."""
    if style == "plain":
        return vowel_form(stem) + "라"
    base = with_final(stem.text, "") if final_of(stem.text) == "ㄹ" else linking_form(stem)
    return base + ("세요" if style == "polite" else "십시오")


def proposal(stem: Stem, style: Style) -> str:
    """읽자, 읽읍시다."""
    return stem + "자" if style == "plain" else with_final(linking_form(stem), "ㅂ") + "시다"
