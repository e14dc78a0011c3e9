"""Predicates: what is said of a subject, before tense, politeness and word order are chosen.

In Korean modality and negation are chains of words of which only the last is conjugated (읽고 싶지 않다); in English
they are auxiliaries before the verb (does not want to read). A `Predicate` holds both until a sentence asks for one
form.
"""

from dataclasses import dataclass, field, replace

from corpus import conjugation, english
from corpus.conjugation import Stem, Style, Tense
from corpus.english import Agreement
from corpus.lexicon import Adjective, Verb
from corpus.phrase import English, EnglishWords, Korean, KoreanWords, Phrase, fresh_key
from corpus.phrase import english as words

EXIST = Stem("있", "adjective")
LACK = Stem("없", "adjective")
WANT = Stem("싶", "adjective")
DO = Stem("하")
NOT = "않"
THING = "것"  # the future is 'it is a thing to do'


@dataclass(frozen=True)
class Predicate:
    """A Korean chain whose last word is `stem`, and an English one whose first word is `head`."""

    before: KoreanWords
    stem: Stem
    key: int
    """Of the word that `stem` becomes."""
    head: str
    """The English word that is inflected: be, can, must or a verb."""
    head_keys: tuple[int, ...]
    tail: EnglishWords = ()
    not_keys: tuple[int, ...] = ()
    """The Korean words that say 'not'; none if it is affirmed."""
    future_key: int = field(default_factory=fresh_key)

    def extended(self, stem: Stem, ending: str) -> "Predicate":
        """With one more Korean word, `stem`, after this one's, which gets the ending that links them."""
        before = (*self.before, Korean(self.stem + ending, self.key))
        return replace(self, before=before, stem=stem, key=fresh_key())

    def negated(self) -> "Predicate":
        """The long negation: 읽지 않다."""
        longer = self.extended(Stem(NOT, self.stem.kind), "지")
        return replace(longer, not_keys=(longer.key,))

    def negated_before(self) -> "Predicate":
        """The short negation: 안 읽다."""
        adverb = Korean("안", fresh_key())
        return replace(self, before=(*self.before, adverb), not_keys=(adverb.key,))


def verb(entry: Verb) -> Predicate:
    """The bare verb."""
    key = fresh_key()
    return Predicate((), entry.stem, key, entry.en, (key,), words(entry.after, key))


def progressive(entry: Verb) -> Predicate:
    """읽고 있다: is reading."""
    plain = verb(entry)
    chain = plain.extended(EXIST, "고")
    doing = (*words(english.participle(entry.en), plain.key), *plain.tail)
    return replace(chain, head="be", head_keys=(chain.key,), tail=doing)


def wish(entry: Verb, familiar: bool) -> Predicate:
    """읽고 싶다, said of me and you; of others 읽고 싶어 한다: wants to read."""
    plain = verb(entry)
    chain = plain.extended(WANT, "고")
    keys: tuple[int, ...] = (chain.key,)
    if not familiar:
        chain = replace(chain.extended(DO, ""), before=(*chain.before, Korean("싶어", chain.key)))
        keys = (*keys, chain.key)
    to = (*words("to", *keys), *words(entry.en, plain.key), *plain.tail)
    return replace(chain, head="want", head_keys=keys, tail=to)


def ability(entry: Verb, able: bool) -> Predicate:
    """읽을 수 있다: can read; 읽을 수 없다: cannot read."""
    plain = verb(entry)
    way, last = fresh_key(), fresh_key()
    before = (Korean(conjugation.future_attributive(entry.stem), plain.key), Korean("수", way))
    tail = (*words(entry.en, plain.key), *plain.tail)
    denied = () if able else (last,)
    return Predicate(before, EXIST if able else LACK, last, "can", (way, last), tail, denied)


def duty(entry: Verb) -> Predicate:
    """읽어야 한다: must read."""
    plain, last = verb(entry), fresh_key()
    before = (Korean(conjugation.vowel_form(entry.stem) + "야", plain.key),)
    return Predicate(before, DO, last, "must", (last,), (*words(entry.en, plain.key), *plain.tail))


def quality(entry: Adjective) -> Predicate:
    """크다: is big."""
    key = fresh_key()
    return Predicate((), entry.stem, key, "be", (key,), words(entry.en, key))


def comparison(entry: Adjective, other: Phrase) -> Predicate:
    """B보다 더 크다: is bigger than B."""
    more, key = Korean("더", fresh_key()), fresh_key()
    standard = other.marked("보다").after("than")
    tail = (*words(entry.comparative, more.key, key), *standard.en)
    return Predicate((*standard.ko, more), entry.stem, key, "be", (key,), tail)


def identity(complement: Phrase) -> Predicate:
    """학생이다: is a student."""
    *before, last = complement.ko
    return Predicate(tuple(before), Stem(last.text + "이", "copula"), last.key, "be", (last.key,), complement.en)


def difference(complement: Phrase) -> Predicate:
    """학생이 아니다: is not a student."""
    key = fresh_key()
    return Predicate(complement.marked("이/가").ko, Stem("아니", "copula"), key, "be", (key,), complement.en, (key,))


def change(complement: Phrase) -> Predicate:
    """학생이 되다: become a student."""
    key = fresh_key()
    return Predicate(complement.marked("이/가").ko, Stem("되"), key, "become", (key,), complement.en)


def existence(thing: Phrase, head: str, exists: bool) -> Predicate:
    """책이 있다: (there) is a book, or with the head `have`: has a book; 없다 denies it."""
    key = fresh_key()
    stem = EXIST if exists else LACK
    return Predicate(thing.marked("이/가").ko, stem, key, head, (key,), thing.en, () if exists else (key,))


def weather(noun: str, stem: Stem, en: str) -> Predicate:
    """비가 오다: (it) rains."""
    first, key = Korean(noun, fresh_key()), fresh_key()
    return Predicate((first,), stem, key, en, (first.key, key))


def korean_final(predicate: Predicate, tense: Tense, style: Style, question: bool) -> KoreanWords:
    """The predicate at the end of a sentence."""
    if tense != "future":
        text = conjugation.finite(predicate.stem, tense, style, question)
        return (*predicate.before, Korean(text, predicate.key))
    if style == "polite":
        will = "거예요"
    else:
        will = ("거니" if question else "것이다") if style == "plain" else ("것입니까" if question else "것입니다")
    doing = Korean(conjugation.future_attributive(predicate.stem), predicate.key)
    return (*predicate.before, doing, Korean(will, predicate.future_key))


def korean_attributive(predicate: Predicate, tense: Tense) -> KoreanWords:
    """The predicate before the noun that it describes."""
    return (*predicate.before, Korean(conjugation.attributive(predicate.stem, tense), predicate.key))


def korean_linked(predicate: Predicate, tense: Tense, ending: str) -> KoreanWords:
    """The predicate of a clause that another follows; '(으)면' marks an ending that needs the linking form."""
    stem = conjugation.past_stem(predicate.stem) if tense == "past" else predicate.stem
    if ending == "(으)ㄹ 때":
        host = conjugation.future_attributive(stem) + " 때"
    elif ending.startswith("(으)"):
        host = conjugation.linking_form(stem) + ending.removeprefix("(으)")
    else:
        host = stem + ending
    first, *rest = host.split()
    return (*predicate.before, Korean(first, predicate.key), *(Korean(word, fresh_key()) for word in rest))


def english_parts(
    predicate: Predicate, tense: Tense, agreement: Agreement, inverted: bool
) -> tuple[EnglishWords, EnglishWords]:
    """The finite auxiliary with 'not', and the rest; a question puts the subject between the first word and these.

    The auxiliary is empty where English has none: a verb affirmed in a statement.
    """
    p = predicate
    if tense == "future":
        aux, rest = words("will", p.future_key), (*words(p.head, *p.head_keys), *p.tail)
        return (*aux, *words("not", *p.not_keys)) if p.not_keys else aux, rest
    if p.head == "can" and p.not_keys and tense == "present" and not inverted:
        return (English("cannot", frozenset(p.head_keys)),), p.tail
    if p.head in ("be", "can", "must"):
        aux = words(_finite_auxiliary(p.head, tense, agreement), *p.head_keys)
        return (*aux, *words("not", *p.not_keys)) if p.not_keys else aux, p.tail
    if p.not_keys or inverted:
        aux = words(english.do(agreement, tense == "past"), p.key)
        rest = (*words(p.head, *p.head_keys), *p.tail)
        return (*aux, *words("not", *p.not_keys)) if p.not_keys else aux, rest
    finite = english.past(p.head) if tense == "past" else english.present(p.head, agreement)
    return (), (*words(finite, *p.head_keys), *p.tail)


def _finite_auxiliary(head: str, tense: Tense, agreement: Agreement) -> str:
    if head == "be":
        return english.be(agreement, tense == "past")
    return "could" if head == "can" and tense == "past" else head
