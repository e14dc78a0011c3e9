"""Which training pairs are dropped, and an account of every one of them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from translate.config import CleaningConfig

EXAMPLES = 10
SHORT = 10
"""Pieces up to which a pair is too short for its ratio to mean anything."""
KEY = np.dtype("V16")
"""How arrays hold what `pair_key` gives."""
KEYS_AT_ONCE = 2**20
"""Keys that are sorted together when repeated pairs are looked for, in about 80 bytes each."""

Keys = NDArray[np.void]
Marks = NDArray[np.bool_]
Codes = NDArray[np.uint8]
"""(N,) what became of each pair: KEPT, or the place of its reason in REASONS."""


class Reason(StrEnum):
    """Why a pair is dropped; a pair with several faults counts under the first."""

    EMPTY = "empty"
    IDENTICAL = "source equals target"
    DUPLICATE = "duplicate"
    TOO_LONG = "too long"
    RATIO = "ratio"


KEPT = 0
REASONS = (None, *Reason)
"""Reasons by their code."""


def code(reason: Reason | None) -> int:
    """The number that stands for a reason in arrays; None is KEPT."""
    return REASONS.index(reason)


@dataclass
class Account:
    """What became of the pairs of one corpus."""

    name: str
    read: int = 0
    kept: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[str]] = field(default_factory=dict)
    """The first few places, `origin:line`, for each reason."""

    def enter(self, codes: Codes, place: Callable[[int], str]) -> None:
        """Count what became of the next pairs; `place` gives where pair i of them stands, as `origin:line`."""
        self.read += len(codes)
        counts = np.bincount(codes, minlength=len(REASONS))
        self.kept += int(counts[KEPT])
        for reason in Reason:
            if count := int(counts[code(reason)]):
                self.dropped[reason] += count
                places = self.examples.setdefault(reason, [])
                found = np.flatnonzero(codes == code(reason))[: EXAMPLES - len(places)]
                places += [place(int(i)) for i in found]

    def facts(self) -> dict[str, Any]:
        """For JSON; `of` is the way back."""
        return {
            "name": self.name,
            "read": self.read,
            "kept": self.kept,
            "dropped": {reason.value: self.dropped[reason] for reason in Reason if self.dropped[reason]},
            "examples": {reason.value: self.examples[reason] for reason in Reason if reason in self.examples},
        }

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """From what `facts` gave."""
        dropped = Counter({Reason(reason): count for reason, count in facts["dropped"].items()})
        examples = {Reason(reason): places for reason, places in facts["examples"].items()}
        return cls(facts["name"], facts["read"], facts["kept"], dropped, examples)

    def close(self) -> None:
        """Check that every pair that was read is either kept or dropped."""
        assert self.read == self.kept + self.dropped.total(), f"the account of {self.name} does not add up: {self}"

    def summary(self) -> str:
        """`kept 98 of 100 (dropped: 1 empty, 1 duplicate)`."""
        text = f"kept {self.kept:,} of {self.read:,} pairs"
        if not self.dropped:
            return text
        return f"{text} (dropped: {', '.join(f'{self.dropped[r]:,} {r}' for r in Reason if self.dropped[r])})"


class Cleaner:
    """Judges pairs, each by itself; `repeated` finds those that came before."""

    def __init__(self, config: CleaningConfig) -> None:
        self.config = config

    def judge_text(self, src: str, tgt: str) -> Reason | None:
        """The reason to drop a pair that its normalised text gives, or None."""
        if not src or not tgt:
            return Reason.EMPTY
        if src == tgt and not self.config.keep_identical:
            return Reason.IDENTICAL
        return None

    def judge_lengths(self, src_pieces: int, tgt_pieces: int) -> Reason | None:
        """The reason to drop a pair that its lengths in pieces give, or None."""
        shorter, longer = sorted((src_pieces, tgt_pieces))
        if shorter == 0:
            return Reason.EMPTY
        if longer > self.config.max_length:
            return Reason.TOO_LONG
        if longer > SHORT and longer > self.config.max_ratio * shorter:
            return Reason.RATIO
        return None


def pair_key(src: str, tgt: str) -> bytes:
    """A pair as 128 bits; normalised text holds no line feed, so the sides cannot run into each other."""
    return hashlib.blake2b(f"{src}\n{tgt}".encode(), digest_size=16).digest()


def as_keys(keys: Iterable[bytes]) -> Keys:
    """Keys (N,) as an array."""
    return np.frombuffer(b"".join(keys), KEY)


def repeated(parts: Callable[[], Iterable[Keys]]) -> Marks:
    """Which of all keys stood before; (N,) over the keys of all parts, one part after the other.

    `parts` gives them anew at each call, since it is called once for every KEYS_AT_ONCE of them: each time those keys
    are sorted whose first bytes leave one remainder. So memory holds one part, KEYS_AT_ONCE, and one byte a key.
    """
    marks = np.zeros(sum(map(len, parts())), dtype=np.bool_)
    groups = -(-len(marks) // KEYS_AT_ONCE)
    for group in range(groups):
        chosen: list[Keys] = []
        places: list[NDArray[np.int64]] = []
        first = 0
        for keys in parts():
            mine = np.flatnonzero(keys.view(np.uint64)[::2] % np.uint64(groups) == group)
            chosen.append(keys[mine])
            places.append(first + mine)
            first += len(keys)
        found, where = np.concatenate(chosen), np.concatenate(places)
        order = np.argsort(found, kind="stable")  # stable: of equal keys the first in the text comes first
        found = found[order]
        marks[where[order[1:]]] = found[1:] == found[:-1]
    return marks
