"""Greedy search: the most probable token at every step."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from translate.decoding.scorer import Hypothesis, Scorer, limits_of
from translate.models.seq2seq import Tokens
from translate.text.tokenizer import BOS, EOS


def greedy(
    scorer: Scorer, src: Tokens, max_len: Tensor | Sequence[int] | int, length_penalty: float = 1.0
) -> list[Hypothesis | None]:
    """Translate src (B, S); each translation has at most `max_len` pieces and is then closed with EOS.

    A sentence for which the model gives no finite probability at some step has no translation (None); the others are
    untouched by it.
    """
    limits = limits_of(max_len, src.ids.size(0))
    steps = max(limits) + 1  # the last one can only be EOS
    device = src.ids.device
    written = torch.full((len(limits), steps), EOS, device=device)  # (B, T)
    log_prob = torch.zeros(len(limits), dtype=torch.float64, device=device)
    last = torch.tensor(limits, device=device)  # position at which EOS is forced
    live = torch.arange(len(limits), device=device)  # sentences still carried along, (B',)
    done = torch.zeros(len(limits), dtype=torch.bool, device=device)  # (B'), among those
    token = torch.full((len(limits), 1), BOS, device=device)

    scorer.start(src, steps)
    for time in range(steps):
        log_probs = scorer.step(token, time)[:, 0]  # (B', V)
        best, choice = log_probs.max(-1)  # NaN counts as the largest
        closing = last[live] == time
        choice = choice.masked_fill(closing, EOS)
        best = torch.where(closing, log_probs[:, EOS], best)
        written[live, time] = choice.masked_fill(done, EOS)
        log_prob[live] += best.masked_fill(done, 0.0)
        done = done | (choice == EOS) | ~best.isfinite()
        finished = int(done.sum())
        if finished == live.numel():
            break
        if 4 * finished >= live.numel():
            rows = (~done).nonzero()[:, 0]
            scorer.keep(rows)
            live, choice, done = live[rows], choice[rows], done[rows]
        token = choice[:, None]
    return [
        Hypothesis.finish(ids[: ids.index(EOS)], total, length_penalty) if math.isfinite(total) else None
        for ids, total in zip(written.tolist(), log_prob.tolist(), strict=True)
    ]
