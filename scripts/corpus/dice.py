"""Chance that is the same on every machine and in every Python: only `random.random` is promised never to change."""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """Draws from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(seed)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._generator.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each equally likely."""
        return items[int(self._generator.random() * len(items))]

    def weighted(self, items: Sequence[tuple[float, Item]]) -> Item:
        """One of the items, likely as its weight."""
        point = self._generator.random() * sum(weight for weight, _ in items)
        for weight, item in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][1]
