"""Which training pairs are dropped, and an account of every one of them."""

import hashlib
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from translate.config import CleaningConfig
from translate.text.corpus import Pair

EXAMPLES = 10
SHORT = 10
"""Pieces up to which a pair is too short for its ratio to mean anything."""


class Reason(StrEnum):
    """Why a pair is dropped; a pair with several faults counts under the first."""

    EMPTY = "empty"
    IDENTICAL = "source equals target"
    DUPLICATE = "duplicate"
    TOO_LONG = "too long"
    RATIO = "ratio"


@dataclass
class Account:
    """What became of the pairs of one corpus."""

    name: str
    read: int = 0
    kept: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[str]] = field(default_factory=dict)
    """The first few places, `origin:line`, for each reason."""

    def drop(self, pair: Pair, reason: Reason) -> None:
        """Count a dropped pair under its reason."""
        self.dropped[reason] += 1
        places = self.examples.setdefault(reason, [])
        if len(places) < EXAMPLES:
            places.append(f"{pair.origin}:{pair.line}")

    def facts(self) -> dict[str, Any]:
        """For JSON; `of` is the way back."""
        return {
            "name": self.name,
            "read": self.read,
            "kept": self.kept,
            "dropped": {reason.value: self.dropped[reason] for reason in Reason if self.dropped[reason]},
            "examples": {reason.value: places for reason, places in self.examples.items()},
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
    """Judges pairs one after the other; it remembers the pairs it saw, for duplicates.

    Keys in `watched` (see `pair_key`) that come by are put into `found`.
    """

    def __init__(self, config: CleaningConfig, watched: Set[bytes] = frozenset()) -> None:
        self.config = config
        self.seen: set[bytes] = set()
        self.watched = watched
        self.found: set[bytes] = set()

    def judge_text(self, src: str, tgt: str) -> Reason | None:
        """The reason to drop a pair that its normalised text gives, or None."""
        if not src or not tgt:
            return Reason.EMPTY
        if src == tgt and not self.config.keep_identical:
            return Reason.IDENTICAL
        key = pair_key(src, tgt)
        if key in self.watched:
            self.found.add(key)
        if not self.config.keep_duplicates:
            if key in self.seen:
                return Reason.DUPLICATE
            self.seen.add(key)
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
