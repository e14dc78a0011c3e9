"""How many times as fast, when two took turns: each pair of neighbouring turns gives one ratio."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# fmt: off
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""97.5 % quantiles of Student's t for 1, 2, 3, ... degrees of freedom; more have the last."""


@dataclass(frozen=True)
class Ratio:
    """A mean ratio and the interval that holds the true one in 95 of 100 such runs."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(rates: Sequence[float], others: Sequence[float]) -> Ratio:
    """rates[i] / others[i], averaged; what slowed both of a pair down alike drops out.

    The mean is geometric, so that the ratio the other way round is its inverse, and the interval is that of the mean
    logarithm, by the t distribution. One pair alone has no interval.
    """
    logs = [math.log(rate / other) for rate, other in zip(rates, others, strict=True)]
    mean = statistics.mean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(mean), 0.0, math.inf)
    half = T_95[min(len(logs) - 1, len(T_95)) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
