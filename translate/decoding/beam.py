"""Beam search with length normalisation (Wu et al. 2016, with the plain power of the length as the penalty).

Each step looks at the 2K best ways to go on from the K live hypotheses of a sentence. Those among the first K that end
are finished; the first K that do not end live on, so that the beam stays full. A sentence is done when it has K
finished hypotheses, or at its longest length, where all that live are closed with EOS. With one hypothesis this is
greedy search; with as many as there are translations it is exhaustive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from translate.decoding.scorer import Hypothesis, Scorer, limits_of
from translate.models.seq2seq import Tokens
from translate.text.tokenizer import BOS, EOS

BLOCK = 100
"""Words whose best stands for them all in the first of two rounds of `best_candidates`."""


@dataclass
class Candidates:
    """The best ways to go on, best first, each (B, C): log-probability so far (float64), row it goes on from, token."""

    log_prob: Tensor
    parent: Tensor
    token: Tensor

    def take(self, places: Tensor) -> "Candidates":
        """The candidates at places (B, C')."""
        return Candidates(self.log_prob.gather(1, places), self.parent.gather(1, places), self.token.gather(1, places))


@dataclass
class Beams:
    """The hypotheses of the B sentences that are still carried along."""

    sentences: list[int]  # B: place in the batch that was given
    limits: list[int]  # B: most pieces
    done: list[bool]  # B: done, but not yet dropped
    log_prob: Tensor  # (B, K) float64; -inf where there is no hypothesis
    ids: Tensor  # (B, K, T) written so far
    finished: list[list[Hypothesis]]  # of every sentence of the batch that was given

    @classmethod
    def start(cls, limits: list[int], beam: int, device: torch.device) -> "Beams":
        """One hypothesis a sentence, which is empty."""
        log_prob = torch.full((len(limits), beam), -math.inf, dtype=torch.float64, device=device)
        log_prob[:, 0] = 0.0
        ids = torch.empty((len(limits), beam, 0), dtype=torch.int64, device=device)
        places = list(range(len(limits)))
        return cls(places, list(limits), [False] * len(limits), log_prob, ids, [[] for _ in limits])

    def give_up(self, log_probs: Tensor) -> None:
        """End without a result the sentences of which a live row of log_probs (B, K, V) is NaN; blank the row."""
        broken = log_probs[..., EOS].isnan()  # (B, K)
        if not broken.any():
            return
        for row in (broken & self.log_prob.isfinite()).any(1).nonzero()[:, 0].tolist():
            if not self.done[row]:
                self.done[row] = True
                self.finished[self.sentences[row]] = []
        log_probs[broken] = -math.inf

    def force_end(self, log_probs: Tensor) -> None:
        """Leave only EOS possible in log_probs (B, K, V) for sentences that have reached their longest length."""
        full = [row for row, limit in enumerate(self.limits) if limit == self.ids.size(2)]
        if full:
            end = log_probs[full, :, EOS]
            log_probs[full] = -math.inf
            log_probs[full, :, EOS] = end

    def collect(self, candidates: Candidates, length_penalty: float) -> None:
        """Put the finished ones among the first K candidates aside, and see which sentences are done."""
        beam = self.log_prob.size(1)
        log_prob, token = candidates.log_prob[:, :beam], candidates.token[:, :beam]
        rows, places = ((token == EOS) & log_prob.isfinite()).nonzero(as_tuple=True)
        histories = self.ids[rows, candidates.parent[rows, places]].tolist()
        for row, ids, total in zip(rows.tolist(), histories, log_prob[rows, places].tolist(), strict=True):
            if not self.done[row]:
                self.finished[self.sentences[row]].append(Hypothesis.finish(ids, total, length_penalty))
        for row, sentence in enumerate(self.sentences):
            if len(self.finished[sentence]) >= beam or self.ids.size(2) >= self.limits[row]:
                self.done[row] = True

    def extend(self, candidates: Candidates) -> Tensor:
        """Go on with the first K candidates that do not end; returns the rows they go on from (B, K)."""
        beam = self.log_prob.size(1)
        order = (candidates.token == EOS).to(torch.uint8).argsort(dim=1, stable=True)
        chosen = candidates.take(order[:, :beam])
        rows = torch.arange(len(self.sentences), device=chosen.parent.device)[:, None]
        self.ids = torch.cat([self.ids[rows, chosen.parent], chosen.token[..., None]], dim=2)
        self.log_prob = chosen.log_prob
        return chosen.parent

    def drop_done(self) -> Tensor | None:
        """Drop sentences that are done once they are a quarter of the batch; returns the rows that stay."""
        if 4 * sum(self.done) < len(self.done):
            return None
        rows = [row for row, done in enumerate(self.done) if not done]
        self.sentences = [self.sentences[row] for row in rows]
        self.limits = [self.limits[row] for row in rows]
        self.done = [False] * len(rows)
        stay = torch.tensor(rows, dtype=torch.int64, device=self.ids.device)
        self.log_prob, self.ids = self.log_prob[stay], self.ids[stay]
        return stay


def beam_search(
    scorer: Scorer,
    src: Tokens,
    beam: int,
    max_len: Tensor | Sequence[int] | int,
    length_penalty: float = 1.0,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Translate src (B, S); at most `n_best` hypotheses a sentence, best first, of at most `max_len` pieces.

    Hypotheses are ranked by log-probability / length ** length_penalty, where the length counts EOS. A sentence for
    which the model gives no finite probability has an empty list; the others are untouched by it.
    """
    limits = limits_of(max_len, src.ids.size(0))
    beams = Beams.start(limits, beam, src.ids.device)
    token = torch.full((len(limits), beam), BOS, device=src.ids.device)
    steps = max(limits) + 1  # the last one can only be EOS
    scorer.start(src, steps, beam)
    for time in range(steps):
        log_probs = scorer.step(token, time)  # (B, K, V)
        beams.give_up(log_probs)
        beams.force_end(log_probs)
        candidates = best_candidates(beams.log_prob, log_probs, 2 * beam)
        beams.collect(candidates, length_penalty)
        if all(beams.done):
            break
        scorer.reorder(beams.extend(candidates))
        stay = beams.drop_done()
        if stay is not None:
            scorer.keep(stay)
        token = beams.ids[..., -1]
    return [sorted(found, key=lambda each: each.score, reverse=True)[:n_best] for found in beams.finished]


def best_candidates(log_prob: Tensor, log_probs: Tensor, count: int, block: int = BLOCK) -> Candidates:
    """The `count` best sums of log_prob (B, K) and log_probs (B, K, V), in two rounds.

    The best `count` words lie in the `count` blocks of words whose own best are best, so that only those are sorted:
    exact, and faster than sorting all K * V.
    """
    words = log_probs.size(2)
    maxima = _block_maxima(log_probs, block)  # (B, K, N)
    blocks = maxima.size(2)
    sums = (log_prob[:, :, None] + maxima).flatten(1)
    chosen = sums.topk(min(count, sums.size(1)), sorted=False).indices  # (B, C) of K * N
    token = (chosen % blocks * block)[:, :, None] + torch.arange(block, device=chosen.device)  # (B, C, block)
    parent = (chosen // blocks)[:, :, None].expand_as(token)
    inside = token < words
    token = token.clamp(max=words - 1)
    values = log_probs.flatten(1).gather(1, (parent * words + token).flatten(1))
    values = (log_prob.gather(1, parent.flatten(1)) + values).masked_fill(~inside.flatten(1), -math.inf)
    best = values.topk(min(count, values.size(1)))
    return Candidates(best.values, parent.flatten(1).gather(1, best.indices), token.flatten(1).gather(1, best.indices))


def _block_maxima(log_probs: Tensor, block: int) -> Tensor:
    """log_probs (B, K, V) -> the best of each `block` words (B, K, N); the last block may be shorter."""
    words = log_probs.size(2)
    even = words - words % block
    maxima = log_probs[:, :, :even].unflatten(2, (even // block, block)).amax(3)
    if even == words:
        return maxima
    return torch.cat([maxima, log_probs[:, :, even:].amax(2, keepdim=True)], dim=2)
