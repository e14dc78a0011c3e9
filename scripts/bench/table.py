"""What came out of a contest, as the reader sees it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ours import NAMES
from ratios import Ratio, paired

STOCK = "stock loop"


@dataclass(frozen=True)
class Result:
    """What was measured of one contestant."""

    name: str
    precision: str
    rates: Sequence[float]
    """Real target tokens a second of each turn; turn i of everybody was in the same round."""
    update_tokens: float
    """Real target tokens of an update, the mean."""
    memory: int
    """Bytes, at most."""
    flops: float
    """Operations a target token."""
    others: Sequence[float] = ()
    """Cores that others used in each turn."""

    @property
    def rate(self) -> float:
        """Target tokens a second, the median."""
        return statistics.median(self.rates)


def table(results: Sequence[Result], ceilings: Mapping[str, float]) -> list[str]:
    """A line for each contestant, the fastest first; `ceilings` in GFLOP/s by number format."""
    ours = [result for precision in NAMES for result in results if result.name == NAMES[precision]]
    head = [
        "",
        "target tokens/s: median (lowest to highest)",
        "tokens an update",
        "share of the ceiling",
        "peak memory",
    ]
    lines = [
        _row([*head, *(f"{mine.name} is so many times as fast" for mine in ours)]),
        "|---" + "|---:" * (4 + len(ours)) + "|",
    ]
    for result in sorted(results, key=lambda result: -result.rate):
        share = result.rate * result.flops / (1e9 * ceilings[result.precision])
        cells = [
            result.name,
            f"{result.rate:,.0f} ({min(result.rates):,.0f} to {max(result.rates):,.0f})",
            f"{result.update_tokens:,.0f}",
            f"{100 * share:.0f} % of {result.precision}",
            f"{result.memory / 2**30:.2f} GiB",
        ]
        lines.append(_row(cells + ["" if mine is result else str(paired(mine.rates, result.rates)) for mine in ours]))
    return lines


def verdict(results: Sequence[Result]) -> list[str]:
    """Ours against the best of the others and against the stock loop, in a sentence each."""
    others = [result for result in results if result.name not in NAMES.values()]
    peers = [result for result in others if result.name != STOCK]
    rivals = {f"the best peer ({best.name})": best for best in sorted(peers, key=lambda peer: peer.rate)[-1:]}
    for result in others:
        if result.name == STOCK:
            rivals["the stock loop"] = result
    if not peers:
        return ["no peer ran", *_sentences(results, rivals)]
    return _sentences(results, rivals)


def _sentences(results: Sequence[Result], rivals: Mapping[str, Result]) -> list[str]:
    return [
        f"{mine.name}: {_times(paired(mine.rates, rival.rates))} {name}"
        for mine in results
        if mine.name in NAMES.values()
        for name, rival in rivals.items()
    ]


def _times(ratio: Ratio) -> str:
    return f"{ratio.mean:.2f} times (95 %: {ratio.low:.2f} to {ratio.high:.2f})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
