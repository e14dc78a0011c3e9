"""The kinds of sentence, and how often each is made."""

from dataclasses import replace

from corpus import conjugation, english, noun_phrases, predicates
from corpus.clauses import (
    Clause,
    Sides,
    english_statement,
    goal,
    linked,
    modality,
    object_of,
    person,
    plain_subject,
    question,
    statement,
    with_circumstances,
)
from corpus.conjugation import Stem, Style, Tense
from corpus.dice import Dice
from corpus.lexicon import (
    ADJECTIVES,
    GIVING,
    HUMAN,
    INSIDE,
    INTRANSITIVE,
    LANDMARKS,
    MOTION,
    NOUNS,
    PLACES,
    RELATIONS,
    TRANSITIVE,
    Verb,
)
from corpus.noun_phrases import PRONOUNS, Context, NounPhrase, any_noun, fitting, noun_phrase, pronoun
from corpus.phrase import EnglishWords, Korean, Pair, Phrase, finish, fresh_key, phrase
from corpus.phrase import english as words

TOPIC, SUBJECT = "은/는", "이/가"
FINDABLE = ("thing", "animal", "food", "baked", "reading", "person", "flower")
OWNABLE = ("thing", "machine", "car", "bicycle", "reading", "animal", "instrument", "clothes")


def action(ctx: Context, busy: bool = False) -> Clause:
    """Someone does something; `busy` leaves out circumstances."""
    subject = person(ctx)
    kind = ctx.dice.weighted([(0.58, "transitive"), (0.16, "intransitive"), (0.14, "motion"), (0.12, "giving")])
    objects: tuple[Phrase, ...]
    match kind:
        case "transitive":
            verb = ctx.dice.pick(TRANSITIVE)
            objects = (object_of(ctx, verb, subject).as_object().marked("을/를"),)
        case "intransitive":
            verb, objects = ctx.dice.pick(INTRANSITIVE), ()
        case "motion":
            verb, objects = ctx.dice.pick(MOTION), (goal(ctx),)
        case _:
            verb = ctx.dice.pick(GIVING)
            objects = _gift(ctx, verb, subject)
    predicate, tense = modality(ctx, verb, subject)
    return with_circumstances(ctx, Clause(subject, predicate, tense), objects, busy)


def _gift(ctx: Context, verb: Verb, subject: NounPhrase) -> tuple[Phrase, ...]:
    """To whom and what: 친구에게 책을 / a book to a friend."""
    receiver = object_of(ctx, replace(verb, objects=HUMAN), subject)
    if receiver.text.ko[0].text == subject.text.ko[0].text:
        receiver = noun_phrase(ctx, any_noun(ctx, ("family",)))
    thing = noun_phrase(ctx, any_noun(ctx, verb.objects))
    return receiver.as_object().marked("에게").after("to"), thing.text.marked("을/를")


def quality(ctx: Context) -> Clause:
    """Something is big, or bigger than something else."""
    dice = ctx.dice
    adjective = dice.pick(ADJECTIVES)
    noun = any_noun(ctx, (dice.pick(adjective.kinds),))
    subject = plain_subject(ctx) if noun.kind in HUMAN and dice.chance(0.5) else noun_phrase(ctx, noun)
    tense: Tense = dice.pick(("present", "present", "past"))
    if dice.chance(0.3):
        other = noun_phrase(ctx, any_noun(ctx, (noun.kind,)))
        return Clause(subject, predicates.comparison(adjective, other.text), tense)
    predicate = predicates.quality(adjective)
    if dice.chance(0.25):
        predicate = predicate.negated()
    return Clause(subject, predicate, tense)


def being(ctx: Context) -> Clause:
    """Someone is, is not or becomes a student."""
    dice = ctx.dice
    subject = person(ctx)
    job = dice.pick(NOUNS["job"])
    adjectives = fitting(job)
    core = phrase(job.ko, job.en)
    if dice.chance(0.25):
        core = noun_phrases.join(noun_phrases.attribute(dice.pick(adjectives)), core)
    if subject.agreement == "p" and subject.person != 2:
        core = replace(core, en=(*core.en[:-1], replace(core.en[-1], text=english.plural(core.en[-1].text))))
    else:
        core = noun_phrases.with_article(core)
    kind = dice.weighted([(0.55, "is"), (0.25, "is not"), (0.2, "becomes")])
    match kind:
        case "is":
            return Clause(subject, predicates.identity(core), dice.pick(("present", "present", "past")))
        case "is not":
            return Clause(subject, predicates.difference(core), dice.pick(("present", "present", "past")))
    return Clause(subject, predicates.change(core), dice.pick(("past", "future")))


def possession(ctx: Context) -> Clause:
    """Someone has something."""
    subject = person(ctx)
    thing = noun_phrase(ctx, any_noun(ctx, OWNABLE), indefinite=True)
    exists = ctx.dice.chance(0.65)
    return Clause(subject, predicates.existence(thing.text, "have", exists), ctx.dice.pick(("present", "past")))


def presence(ctx: Context, asking: bool) -> Sides:
    """책상 위에 책이 있다 / There is a book on the desk."""
    dice = ctx.dice
    place = _spot(ctx)
    thing = noun_phrase(ctx, any_noun(ctx, FINDABLE), indefinite=True)
    predicate = predicates.existence(thing.text, "be", dice.chance(0.75))
    tense: Tense = dice.pick(("present", "present", "past"))
    (first, *rest_aux), tail = predicates.english_parts(predicate, tense, thing.agreement, inverted=asking)
    there = words("there", predicate.key)
    opening = (first, *there) if asking else (*there, first)
    ko = (*place.ko, *predicates.korean_final(predicate, tense, ctx.style, asking))
    return ko, (*opening, *rest_aux, *tail, *place.en)


def _spot(ctx: Context) -> Phrase:
    """Where something is: in the library, under the chair."""
    if ctx.dice.chance(0.35):
        place = ctx.dice.pick(PLACES)
        return phrase(place.ko, place.en).marked("에").after(place.at)
    ko, en = ctx.dice.pick(LANDMARKS)
    unfit = ("위", "아래") if ko in INSIDE else ("안",)
    relations = [entry for entry in RELATIONS if entry[0] not in unfit]
    relation, preposition = ctx.dice.pick(relations)
    landmark = phrase(ko, f"the {en}")
    side = Korean(relation + "에", fresh_key())
    return Phrase((*landmark.ko, side), (*words(preposition, side.key), *landmark.en))


def weather(ctx: Context, tense: Tense) -> Clause:
    """It rains, it snows."""
    noun, en = ctx.dice.pick((("비가", "rain"), ("눈이", "snow")))
    predicate = predicates.weather(noun, Stem("오"), en)
    return Clause(NounPhrase(Phrase((), words("it", predicate.before[0].key)), "3s"), predicate, tense)


def request(ctx: Context) -> Pair:
    """Read the book. Please read the book. Let's read the book. With 지 마: do not."""
    dice = ctx.dice
    verb = dice.pick([entry for entry in TRANSITIVE if not entry.stative])
    thing = noun_phrase(ctx, any_noun(ctx, verb.objects)).as_object().marked("을/를")
    key = fresh_key()
    doing = (*words(f"{verb.en} {verb.after}", key), *thing.en)
    kind = dice.weighted([(0.5, "do"), (0.25, "do not"), (0.25, "together")])
    ko: tuple[Korean, ...]
    match kind:
        case "together":
            ko = (Korean(conjugation.proposal(verb.stem, ctx.style), key),)
            return finish((*thing.ko, *ko), (*words("let's", key), *doing), ".")
        case "do not":
            no = Korean({"plain": "마라", "polite": "마세요", "formal": "마십시오"}[ctx.style], fresh_key())
            ko = (Korean(verb.stem + "지", key), no)
            return finish((*thing.ko, *ko), (*_please(ctx, no.key), *words("do not", no.key), *doing), ".")
    ko = (Korean(conjugation.imperative(verb.stem, ctx.style), key),)
    return finish((*thing.ko, *ko), (*_please(ctx, key), *doing), ".")


def _please(ctx: Context, key: int) -> EnglishWords:
    return () if ctx.style == "plain" else words("please", key)


def asked_for(ctx: Context) -> Sides:
    """A question with who, what, where or when."""
    dice = ctx.dice
    asking = dice.pick(("who", "what", "where", "when"))
    verb = dice.pick(MOTION if asking == "where" else TRANSITIVE)
    subject = person(ctx)
    if asking == "who":
        subject = NounPhrase(phrase("누구", "who"), "3s")
    predicate, tense = modality(ctx, verb, subject)
    clause = Clause(subject, predicate, tense)
    if asking == "what":
        return question(clause, ctx.style, phrase("무엇을", "what"))
    if asking == "where":
        return question(clause, ctx.style, phrase("어디에", "where"))
    clause = replace(clause, adjuncts=(object_of(ctx, verb, subject).as_object().marked("을/를"),))
    if asking == "when":
        return question(clause, ctx.style, phrase("언제", "when"))
    ending = predicates.korean_final(predicate, tense, ctx.style, question=True)
    subject_words = noun_phrases.subject_marked(subject.text, SUBJECT).ko
    return (*subject_words, *clause.korean_middle, *ending), english_statement(clause)


def compound(ctx: Context) -> Pair:
    """Two clauses: and, but, because, if, when. Korean puts the reason first, English last."""
    dice = ctx.dice
    kind = dice.pick(("and", "but", "because", "if", "when"))
    second = simple(ctx)
    first = simple(ctx)
    if dice.chance(0.3):
        first = weather(ctx, second.tense)
    if kind == "if" and second.tense == "past":
        second = replace(second, tense="present")
    if kind == "when":
        first = replace(first, tense="past" if second.tense == "past" else "present")
    elif kind == "if":
        first = replace(first, tense="present")
    elif first.tense == "future":
        first = replace(first, tense="past")
    marker = TOPIC if kind in ("and", "but") else SUBJECT
    ending = {"and": "고", "but": "지만", "because": "기 때문에", "if": "(으)면", "when": "(으)ㄹ 때"}[kind]
    first_ko, first_en = linked(first, ending, marker)
    second_ko, second_en = statement(second, ctx.style, TOPIC)
    link = words(kind, first_ko[-1].key)
    if kind in ("if", "when"):
        *start, last = first_en
        en = (*link, *start, replace(last, text=last.text + ","), *second_en)
    elif kind == "because":
        en = (*second_en, *link, *first_en)
    else:
        *start, last = first_en
        comma = replace(last, text=last.text + ",") if kind == "but" else last
        en = (*start, comma, *link, *second_en)
    return finish((*first_ko, *second_ko), en, ".")


def simple(ctx: Context) -> Clause:
    """A short clause to be put together with another."""
    kind = ctx.dice.weighted([(0.6, action), (0.25, quality), (0.15, being)])
    return kind(ctx, True) if kind is action else kind(ctx)


def told(ctx: Context, clause: Clause, asking: float) -> Pair:
    """A clause as a statement or, with the given probability, a question."""
    third = clause.subject.person != 1 or clause.subject.agreement != "1s"
    if third and ctx.dice.chance(asking):
        return finish(*question(clause, ctx.style), "?")
    return finish(*statement(clause, ctx.style, TOPIC if ctx.dice.chance(0.65) else SUBJECT), ".")


def sentence(dice: Dice) -> Pair:
    """Any sentence of the grammar."""
    ctx = Context(dice, dice.weighted([(0.4, "plain"), (0.3, "polite"), (0.3, "formal")]))
    kind = dice.weighted(
        [
            (0.4, "action"),
            (0.13, "quality"),
            (0.12, "being"),
            (0.05, "possession"),
            (0.07, "presence"),
            (0.05, "request"),
            (0.07, "asked"),
            (0.1, "compound"),
            (0.01, "weather"),
        ]
    )
    match kind:
        case "action":
            return told(ctx, action(ctx), 0.14)
        case "quality":
            return told(ctx, quality(ctx), 0.14)
        case "being":
            return told(ctx, being(ctx), 0.14)
        case "possession":
            return told(ctx, possession(ctx), 0.2)
        case "presence":
            asking = dice.chance(0.2)
            return finish(*presence(ctx, asking), "?" if asking else ".")
        case "request":
            return request(ctx)
        case "asked":
            return finish(*asked_for(ctx), "?")
        case "compound":
            return compound(ctx)
    clause = weather(ctx, dice.pick(("present", "past", "future")))
    return told(ctx, with_circumstances(ctx, clause, ()), 0.2)


def introductions(style: Style) -> list[Pair]:
    """나는 학생이다, 그녀는 의사이다, ...: every pronoun with every profession."""
    ctx = Context(Dice(0), style)
    pairs = []
    for job in NOUNS["job"]:
        for index in range(len(PRONOUNS)):
            subject = pronoun(ctx, index)
            several = subject.agreement == "p" and subject.person != 2
            text = phrase(job.ko, english.plural(job.en) if several else job.en)
            core = text if several else noun_phrases.with_article(text)
            clause = Clause(subject, predicates.identity(core), "present")
            pairs.append(finish(*statement(clause, style, TOPIC), "."))
    return pairs
