"""English inflection: plurals, verb forms, articles, and the forms of be, do and have."""

from typing import Literal

Agreement = Literal["1s", "3s", "p"]
"""First person singular, third person singular, or everything else."""

PLURALS = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "sheep": "sheep",
    "knife": "knives",
    "potato": "potatoes",
    "tomato": "tomatoes",
}
_IRREGULAR = """
read=read write=wrote eat=ate drink=drank buy=bought sell=sold meet=met make=made find=found lose=lost sing=sang
teach=taught draw=drew wear=wore ride=rode drive=drove cut=cut throw=threw catch=caught hide=hid forget=forgot
know=knew build=built sleep=slept run=ran swim=swam sit=sat speak=spoke get=got go=went come=came give=gave
send=sent lend=lent have=had become=became
"""
PASTS = dict(entry.split("=") for entry in _IRREGULAR.split())
DOUBLED = {"cut", "run", "swim", "sit", "get", "forget"}
"""Verbs that double their last consonant before -ing and -ed."""


def plural(noun: str) -> str:
    """The plural of a noun; only the last word of a compound changes."""
    head, _, last = noun.rpartition(" ")
    return f"{head} {_plural_word(last)}".strip()


def _plural_word(noun: str) -> str:
    return PLURALS.get(noun) or add_s(noun)


def add_s(word: str) -> str:
    """The ending of plurals and of the third person: books, watches, studies."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) or word in ("go", "do") else "s")


def past(verb: str) -> str:
    """The simple past."""
    if verb in PASTS:
        return PASTS[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    if verb in DOUBLED:
        return verb + verb[-1] + "ed"
    return verb + ("d" if verb.endswith("e") else "ed")


def participle(verb: str) -> str:
    """The present participle: reading, writing, running."""
    if verb in DOUBLED:
        return verb + verb[-1] + "ing"
    return verb[:-1] + "ing" if verb.endswith("e") and not verb.endswith("ee") else verb + "ing"


def third_person(verb: str) -> str:
    """reads, goes, has."""
    return "has" if verb == "have" else add_s(verb)


def present(verb: str, agreement: Agreement) -> str:
    """The simple present."""
    return third_person(verb) if agreement == "3s" else verb


def be(agreement: Agreement, is_past: bool) -> str:
    """The finite form of be; 'p' also serves the second person."""
    if is_past:
        return "were" if agreement == "p" else "was"
    return {"1s": "am", "3s": "is", "p": "are"}[agreement]


def do(agreement: Agreement, is_past: bool) -> str:
    """The finite form of the auxiliary do."""
    if is_past:
        return "did"
    return "does" if agreement == "3s" else "do"


def article(following: str) -> str:
    """The indefinite article before a word."""
    return "an" if following[0] in "aeiou" else "a"
