"""Words that know what they translate: the alignment is carried along while a sentence is built."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from corpus.hangul import particle

_fresh = itertools.count()


def fresh_key() -> int:
    """A key for one Korean word, never used before."""
    return next(_fresh)


@dataclass(frozen=True)
class Korean:
    """A Korean word (what stands between two spaces); `key` stays when particles and endings change the text."""

    text: str
    key: int


@dataclass(frozen=True)
class English:
    """An English word and the keys of the Korean words it translates."""

    text: str
    keys: frozenset[int]


KoreanWords = tuple[Korean, ...]
EnglishWords = tuple[English, ...]


@dataclass(frozen=True)
class Phrase:
    """The same thing in both languages, each in its own order."""

    ko: KoreanWords
    en: EnglishWords

    def marked(self, pair: str) -> "Phrase":
        """With a particle on the last Korean word; `pair` is 은/는, 이/가, ... or one form for every word."""
        last = self.ko[-1]
        text = particle(last.text, pair) if "/" in pair else last.text + pair
        return replace(self, ko=(*self.ko[:-1], replace(last, text=text)))

    def after(self, words: str) -> "Phrase":
        """With English words (a preposition) before it, aligned to the last Korean word, which has the particle."""
        return replace(self, en=(*english(words, self.ko[-1].key), *self.en))


@dataclass(frozen=True)
class Pair:
    """A finished sentence pair; `alignment` is in Pharaoh format, 'Korean word-English word', counted from 0."""

    ko: str
    en: str
    alignment: str


def english(words: str, *keys: int) -> EnglishWords:
    """English words that all translate the same Korean words."""
    return tuple(English(word, frozenset(keys)) for word in words.split())


def phrase(ko: str, en: str) -> Phrase:
    """A phrase whose English words translate all its Korean words together."""
    words = tuple(Korean(word, fresh_key()) for word in ko.split())
    return Phrase(words, english(en, *(word.key for word in words)))


def finish(ko: Iterable[Korean], en: Iterable[English], mark: str) -> Pair:
    """The written pair: English gets its capital and its mark, Korean only a question mark."""
    ko_words, en_words = tuple(ko), tuple(en)
    place = {word.key: index for index, word in enumerate(ko_words)}
    links = sorted((place[key], index) for index, word in enumerate(en_words) for key in word.keys)
    en_text = " ".join(word.text for word in en_words) + mark
    return Pair(
        ko=" ".join(word.text for word in ko_words) + ("?" if mark == "?" else ""),
        en=en_text[0].upper() + en_text[1:],
        alignment=" ".join(f"{source}-{target}" for source, target in links),
    )
