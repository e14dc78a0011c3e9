"""The learning rate as a pure function of the step and of the recorded validation history."""

import math
from collections.abc import Sequence

from translate.config import TrainConfig


def lr_at(step: int, train: TrainConfig, width: int, scores: Sequence[tuple[int, float]] = ()) -> float:
    """Learning rate of update `step` (from 1).

    `width` is the decoder's, for Noam's formula. `scores` are the validations so far as (step, score), higher is
    better; only `plateau` looks at them.
    """
    rise = min(1.0, step / train.warmup) if train.warmup else 1.0
    match train.schedule:
        case "constant":
            rate = train.lr * rise
        case "inverse_sqrt":  # Vaswani et al. 2017 with the peak, not the width, as the scale
            rate = train.lr * rise * math.sqrt(max(train.warmup, 1) / max(step, train.warmup, 1))
        case "noam":  # Vaswani et al. 2017, section 5.3
            rate = train.lr * width**-0.5 * min(step**-0.5, step * max(train.warmup, 1) ** -1.5)
        case "cosine":  # Loshchilov and Hutter 2017, one half period without restarts
            rate = train.lr * rise * 0.5 * (1 + math.cos(math.pi * _gone(step, train)))
        case "linear":
            rate = train.lr * rise * (1 - _gone(step, train))
        case "plateau":
            rate = train.lr * rise * train.plateau_factor ** _stalls(step, train, scores)
    return max(rate, train.min_lr) if step > train.warmup else rate


def _gone(step: int, train: TrainConfig) -> float:
    """Share of the way from the end of warm-up to max_steps."""
    assert train.max_steps is not None, "config rules demand max_steps for this schedule"
    return min(1.0, max(0, step - train.warmup) / max(1, train.max_steps - train.warmup))


def _stalls(step: int, train: TrainConfig, scores: Sequence[tuple[int, float]]) -> int:
    """How often validation has stood still for plateau_patience validations in a row before this step."""
    best, waited, stalls = -math.inf, 0, 0
    for validated, score in scores:
        if validated >= step:
            break
        if score > best:
            best, waited = score, 0
            continue
        waited += 1
        if waited == train.plateau_patience:
            stalls, waited = stalls + 1, 0
    return stalls
