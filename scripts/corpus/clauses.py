"""Clauses: a subject, a predicate and what lies between them, in Korean and in English order.

Korean puts everything before the verb; English puts objects, places and times after it, the nearest to the verb first.
"""

from dataclasses import dataclass, replace

from corpus import predicates
from corpus.conjugation import Style, Tense
from corpus.lexicon import FREQUENCIES, HUMAN, MOTION, PLACES, TIMES, TRANSITIVE, VEHICLES, Noun, Verb
from corpus.noun_phrases import (
    Context,
    NounPhrase,
    any_noun,
    name,
    noun_phrase,
    pronoun,
    subject_marked,
)
from corpus.phrase import EnglishWords, KoreanWords, Phrase, phrase
from corpus.phrase import english as words
from corpus.predicates import Predicate

NOTHING = Phrase((), ())
STATES = {verb.en for verb in TRANSITIVE if verb.stative}
MOVES = {verb.en for verb in MOTION}


@dataclass(frozen=True)
class Clause:
    """Everything a clause says; `adjuncts` are in Korean order (time, place, company, object)."""

    subject: NounPhrase
    predicate: Predicate
    tense: Tense
    adjuncts: tuple[Phrase, ...] = ()
    frequency: Phrase = NOTHING

    @property
    def korean_middle(self) -> KoreanWords:
        """What stands between subject and predicate."""
        return tuple(word for part in (*self.adjuncts, self.frequency) for word in part.ko)

    @property
    def english_end(self) -> EnglishWords:
        """What stands after the predicate: the Korean order reversed."""
        return tuple(word for part in reversed(self.adjuncts) for word in part.en)


Sides = tuple[KoreanWords, EnglishWords]


def statement(clause: Clause, style: Style, marker: str) -> Sides:
    """The clause as a finished statement; `marker` is 은/는 or 이/가."""
    subject = subject_marked(clause.subject.text, marker)
    ending = predicates.korean_final(clause.predicate, clause.tense, style, question=False)
    return (*subject.ko, *clause.korean_middle, *ending), english_statement(clause)


def linked(clause: Clause, ending: str, marker: str) -> Sides:
    """The clause before another one, with a linking ending such as 고."""
    subject = subject_marked(clause.subject.text, marker)
    verb = predicates.korean_linked(clause.predicate, clause.tense, ending)
    return (*subject.ko, *clause.korean_middle, *verb), english_statement(clause)


def english_statement(clause: Clause) -> EnglishWords:
    """Subject, auxiliary, how often, verb, the rest."""
    aux, rest = predicates.english_parts(clause.predicate, clause.tense, clause.subject.agreement, inverted=False)
    return (*clause.subject.text.en, *aux, *clause.frequency.en, *rest, *clause.english_end)


def question(clause: Clause, style: Style, asked: Phrase = NOTHING) -> Sides:
    """The clause as a question: yes or no, or for `asked` (무엇을 / what), which English puts first."""
    subject = subject_marked(clause.subject.text, "은/는")
    ending = predicates.korean_final(clause.predicate, clause.tense, style, question=True)
    (first, *aux), rest = predicates.english_parts(
        clause.predicate, clause.tense, clause.subject.agreement, inverted=True
    )
    en = (*asked.en, first, *clause.subject.text.en, *aux, *clause.frequency.en, *rest, *clause.english_end)
    return (*subject.ko, *clause.korean_middle, *asked.ko, *ending), en


def described(ctx: Context, noun: Noun) -> NounPhrase:
    """A noun with a relative clause: 책을 읽는 학생 / the student who reads a book, 민수가 산 책 / the book that ..."""
    dice = ctx.dice
    tense: Tense = dice.weighted([(0.5, "present"), (0.4, "past"), (0.1, "future")])
    buying = [verb for verb in TRANSITIVE if noun.kind in verb.objects]
    if noun.kind in HUMAN:
        verb = dice.pick(TRANSITIVE)
        thing = noun_phrase(ctx, any_noun(ctx, verb.objects)).as_object()
        before, after = thing.marked("을/를"), thing.en
        subject = NounPhrase(phrase("x", "who"), "3s")
    else:
        verb = dice.pick(buying)
        subject = plain_subject(ctx)
        before, after = subject_marked(subject.text, "이/가"), ()
    if verb.stative:
        tense = "present"
    predicate = predicates.verb(verb)
    ko_verb = predicates.korean_attributive(predicate, tense)
    aux, rest = predicates.english_parts(predicate, tense, subject.agreement, inverted=False)
    aux = tuple(replace(word, keys=frozenset({predicate.key})) for word in aux)  # 'will' has no word of its own here
    head = phrase(noun.ko, noun.en)
    link = words("who" if noun.kind in HUMAN else "that", predicate.key)
    doer = () if noun.kind in HUMAN else subject.text.en
    en = (*words("the", head.ko[0].key), *head.en, *link, *doer, *aux, *rest, *after)
    return NounPhrase(Phrase((*before.ko, *ko_verb, *head.ko), en), "3s", noun)


def plain_subject(ctx: Context) -> NounPhrase:
    """A name or a pronoun."""
    return name(ctx) if ctx.dice.chance(0.45) else pronoun(ctx, int(ctx.dice.pick("000112345")))


def person(ctx: Context) -> NounPhrase:
    """Someone who does something: a name, a pronoun, a person, perhaps with a relative clause."""
    chosen = ctx.dice.weighted([(0.55, "short"), (0.39, "noun"), (0.06, "described")])
    if chosen == "short":
        return plain_subject(ctx)
    if chosen == "noun":
        return noun_phrase(ctx, any_noun(ctx, HUMAN))
    return described(ctx, any_noun(ctx, ("job", "person")))


def object_of(ctx: Context, verb: Verb, subject: NounPhrase) -> NounPhrase:
    """Something the verb can be done to, never the subject itself."""
    noun = any_noun(ctx, (ctx.dice.pick(verb.objects),))
    if noun.kind in HUMAN and ctx.dice.chance(0.5):
        other = name(ctx) if ctx.dice.chance(0.5) else pronoun(ctx, int(ctx.dice.pick("012345")))
        if other.text.en[0].text != subject.text.en[0].text and {other.person, subject.person} not in ({1, 4}, {3, 5}):
            return other
    describable = not noun.mass and noun.kind not in ("family", "subject")
    if describable and subject.noun is None and ctx.dice.chance(0.09):
        return described(ctx, noun)
    return noun_phrase(ctx, noun)


def modality(ctx: Context, verb: Verb, subject: NounPhrase) -> tuple[Predicate, Tense]:
    """The verb in one of its moods, affirmed or denied, and a tense that goes with it."""
    dice = ctx.dice
    tense: Tense = dice.pick(("present", "past", "future"))
    mood = dice.weighted([(0.62, "plain"), (0.12, "progressive"), (0.1, "wish"), (0.1, "ability"), (0.06, "duty")])
    if verb.stative:
        mood = "plain"
    match mood:
        case "progressive":
            return predicates.progressive(verb), dice.pick(("present", "past"))
        case "wish":
            predicate = predicates.wish(verb, familiar=subject.person in (1, 2, 4))
            return (predicate.negated() if dice.chance(0.25) else predicate), dice.pick(("present", "present", "past"))
        case "ability":
            return predicates.ability(verb, able=dice.chance(0.6)), dice.pick(("present", "present", "past"))
        case "duty":
            return predicates.duty(verb), "present"
    predicate = predicates.verb(verb)
    if dice.chance(0.22):
        compound = verb.stem.text.endswith("하") or len(verb.stem.text) > 2
        predicate = predicate.negated() if compound or dice.chance(0.5) else predicate.negated_before()
    return predicate, tense


def time(ctx: Context, clause: Clause) -> Phrase:
    """When: yesterday, tomorrow, every day, now."""
    now = clause.predicate.head == "be" and clause.tense == "present"
    ko, en = ctx.dice.pick(TIMES["now" if now else clause.tense])
    return phrase(ko, en)


def location(ctx: Context) -> Phrase:
    """Where something is done: 도서관에서 / in the library."""
    place = ctx.dice.pick(PLACES)
    return phrase(place.ko, place.en).marked("에서").after(place.at)


def goal(ctx: Context) -> Phrase:
    """Where to: 학교에 / to school."""
    place = ctx.dice.pick(PLACES)
    return phrase(place.ko, place.en).marked("에").after("to")


def company(ctx: Context, subject: NounPhrase) -> Phrase:
    """With whom, or by what."""
    if ctx.dice.chance(0.4):
        return phrase(*ctx.dice.pick(VEHICLES)).marked("으로/로").after("by")
    other = name(ctx) if ctx.dice.chance(0.5) else noun_phrase(ctx, any_noun(ctx, HUMAN))
    if other.text.en[0].text == subject.text.en[0].text:
        other = noun_phrase(ctx, any_noun(ctx, ("family",)))
    return other.text.marked("과/와").after("with")


def with_circumstances(ctx: Context, clause: Clause, objects: tuple[Phrase, ...], busy: bool = False) -> Clause:
    """The clause with its objects, and perhaps a time, a place, company or a frequency. `busy` means none of these."""
    dice = ctx.dice
    predicate = clause.predicate
    stays = predicate.stem.text in ("없", "있", "싶") or predicate.head in ("must", "can", "want")
    if busy or predicate.head in STATES:
        return replace(clause, adjuncts=objects)
    parts: list[Phrase] = []
    moving = predicate.head in MOVES or any(part.en and part.en[0].text == "to" for part in objects)
    if dice.chance(0.32) and not stays:
        parts.append(time(ctx, clause))
    if dice.chance(0.14) and not moving:
        parts.append(location(ctx))
    if dice.chance(0.1):
        ride = company(ctx, clause.subject)
        if moving or ride.en[0].text != "by":
            parts.append(ride)
    often = NOTHING
    if clause.tense == "present" and not predicate.not_keys and predicate.head != "be" and not parts and not stays:
        often = phrase(*dice.pick(FREQUENCIES)) if dice.chance(0.3) else NOTHING
    return replace(clause, adjuncts=(*parts, *objects), frequency=often)
