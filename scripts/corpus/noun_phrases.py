"""Noun phrases: names, pronouns, and nouns with their determiners, adjectives and numbers."""

from dataclasses import dataclass, replace

from corpus import conjugation, english
from corpus.conjugation import Style
from corpus.dice import Dice
from corpus.english import Agreement
from corpus.lexicon import ADJECTIVES, FAMILY, HUMAN, NAMES, NOUNS, NUMBERS, Adjective, Noun
from corpus.phrase import EnglishWords, Phrase, phrase
from corpus.phrase import english as words


@dataclass(frozen=True)
class Context:
    """Who speaks how: the source of chance and the politeness of the whole sentence."""

    dice: Dice
    style: Style


@dataclass(frozen=True)
class NounPhrase:
    """A phrase that can be subject or object; `noun` is None for names and pronouns."""

    text: Phrase
    agreement: Agreement
    noun: Noun | None = None
    person: int = 3
    is_object: EnglishWords | None = None
    """The English form after a verb, where it differs (me, him)."""

    @property
    def human(self) -> bool:
        """Whether it is asked for with 'who'."""
        return self.noun is None or self.noun.kind in HUMAN

    def as_object(self) -> Phrase:
        """The phrase as an object."""
        return self.text if self.is_object is None else replace(self.text, en=self.is_object)


# person: (plain, polite) Korean, subject, object, possessive, agreement, person
PRONOUNS: tuple[tuple[str, str, str, str, str, Agreement, int], ...] = (
    ("나", "저", "I", "me", "my", "1s", 1),
    ("너", "당신", "you", "you", "your", "p", 2),
    ("그", "그", "he", "him", "his", "3s", 3),
    ("그녀", "그녀", "she", "her", "her", "3s", 3),
    ("우리", "우리", "we", "us", "our", "p", 4),
    ("그들", "그들", "they", "them", "their", "p", 5),
)
CONTRACTED = {"나가": "내가", "저가": "제가", "너가": "네가", "누구가": "누가"}


def pronoun(ctx: Context, index: int) -> NounPhrase:
    """The pronoun of a row of `PRONOUNS` in the style of the context."""
    plain, polite, subject, other, _, agreement, person = PRONOUNS[index]
    text = phrase(plain if ctx.style == "plain" else polite, subject)
    return NounPhrase(text, agreement, None, person, words(other, text.ko[0].key))


def name(ctx: Context) -> NounPhrase:
    """A person's name."""
    return NounPhrase(phrase(*ctx.dice.pick(NAMES)), "3s")


def subject_marked(text: Phrase, pair: str) -> Phrase:
    """With 은/는 or 이/가, and the pronouns' contractions with 가; nothing where Korean says nothing."""
    if not text.ko:
        return text
    marked = text.marked(pair)
    last = marked.ko[-1]
    return replace(marked, ko=(*marked.ko[:-1], replace(last, text=CONTRACTED.get(last.text, last.text))))


def possessor(ctx: Context) -> Phrase:
    """my, your, Minsu's."""
    if ctx.dice.chance(0.3):
        ko, en = ctx.dice.pick(NAMES)
        return phrase(ko + "의", en + "'s")
    plain, polite, _, _, possessive, _, _ = ctx.dice.pick(PRONOUNS)
    return phrase((plain if ctx.style == "plain" else polite) + "의", possessive)


def join(*parts: Phrase) -> Phrase:
    """Phrases one after the other, in the same order in both languages."""
    return Phrase(tuple(w for part in parts for w in part.ko), tuple(w for part in parts for w in part.en))


def attribute(entry: Adjective) -> Phrase:
    """An adjective before its noun: 큰 / big."""
    return phrase(conjugation.attributive(entry.stem, "present"), entry.en)


def fitting(noun: Noun) -> list[Adjective]:
    """The adjectives that can be said of a noun."""
    return [entry for entry in ADJECTIVES if noun.kind in entry.kinds]


def with_article(text: Phrase) -> Phrase:
    """With a or an, which Korean does not have: it is aligned to the noun."""
    return text.after(english.article(text.en[0].text))


def noun_phrase(ctx: Context, noun: Noun, indefinite: bool = False) -> NounPhrase:
    """A noun with a determiner, perhaps an adjective: a book, this big book, my books, three books, water.

    What is said to exist or to be owned is `indefinite`: neither 'the' nor 'my'.
    """
    dice = ctx.dice
    if noun.kind == "subject":
        return NounPhrase(phrase(noun.ko, noun.en), "3s", noun)
    describing = fitting(noun)
    adjective = attribute(dice.pick(describing)) if describing and dice.chance(0.28) else Phrase((), ())
    options = [(0.34, "a")]
    if not indefinite:
        options += [(0.26, "그"), (0.1, "이"), (0.05, "저"), (0.25, "own")]
    if noun.kind == "family":
        options = [(1.0, "own")]
    elif not noun.mass:
        options += [(0.1, "many"), (0.14, "number")]
    elif noun.counter == "잔":
        options += [(0.2, "number")]
    kind = dice.weighted(options)
    if kind == "number":
        return _counted(ctx, noun, adjective)
    several = not noun.mass and noun.kind != "family" and (kind == "many" or (kind in "그이저" and dice.chance(0.2)))
    en = english.plural(noun.en) if several else noun.en
    core = join(adjective, phrase(noun.ko + ("들" if several else ""), en))
    match kind:
        case "a":
            core = core if noun.mass else with_article(core)
        case "own":
            core = join(possessor(ctx), core)
        case "그" | "이" | "저":
            core = join(phrase(kind, DEMONSTRATIVES[kind][several]), core)
    return NounPhrase(core, "p" if several else "3s", noun)


DEMONSTRATIVES = {"그": ("the", "the"), "이": ("this", "these"), "저": ("that", "those")}


def _counted(ctx: Context, noun: Noun, adjective: Phrase) -> NounPhrase:
    """사과 세 개 / three apples; 커피 두 잔 / two cups of coffee."""
    number, en_number = ctx.dice.pick(NUMBERS)
    several = en_number != "one"
    amount = phrase(f"{number} {noun.counter}", en_number)
    if noun.mass:
        cups = words(("cups" if several else "cup") + " of", amount.ko[1].key)
        amount = replace(amount, en=(*words(en_number, amount.ko[0].key), *cups))
    core = join(adjective, phrase(noun.ko, english.plural(noun.en) if several and not noun.mass else noun.en))
    return NounPhrase(Phrase(core.ko + amount.ko, amount.en + core.en), "p" if several else "3s", noun)


def any_noun(ctx: Context, kinds: tuple[str, ...]) -> Noun:
    """A noun of one of the kinds, each noun equally likely."""
    pool = [noun for kind in kinds for noun in (FAMILY if kind == "family" else NOUNS[kind])]
    return ctx.dice.pick(pool)
