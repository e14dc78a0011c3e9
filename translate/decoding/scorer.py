"""What search asks of a model: log-probabilities of the next token, one step at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from translate.models.seq2seq import Memory, Seq2Seq, State, Tokens
from translate.text.tokenizer import BOS, EOS, PAD


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation: ids without EOS, its log-probability with EOS, and the score it is ranked by."""

    ids: list[int]
    log_prob: float
    score: float

    @classmethod
    def finish(cls, ids: list[int], log_prob: float, length_penalty: float) -> "Hypothesis":
        """Score a hypothesis by log_prob / length ** length_penalty, where the length counts EOS."""
        return cls(ids, log_prob, log_prob / (len(ids) + 1) ** length_penalty)


class Scorer:
    """One model, or an ensemble that averages the probabilities of several with the same target vocabulary.

    It carries the decoder states of one batch: `start` begins a batch, `step`, `reorder` and `keep` go on with it.
    """

    def __init__(self, models: Sequence[Seq2Seq]) -> None:
        self.models = list(models)
        sizes = {model.output.out_features for model in self.models}
        assert len(sizes) == 1, f"the models of an ensemble share one vocabulary, found sizes {sorted(sizes)}"
        self.vocab_size = sizes.pop()
        self._memories: list[Memory] = []
        self._states: list[State] = []

    def start(self, src: Tokens, steps: int, beam: int = 1) -> None:
        """Read src (B, S) and prepare for at most `steps` steps of `beam` hypotheses a sentence."""
        assert not any(model.training for model in self.models), "search needs models in evaluation mode"
        self._memories = [model.encoder(src) for model in self.models]
        self._states = [
            model.decoder.start(memory, steps, beam) for model, memory in zip(self.models, self._memories, strict=True)
        ]

    def step(self, token: Tensor, time: int) -> Tensor:
        """Log-probabilities (B, K, V), float32, of what follows token (B, K), the input at position `time`.

        PAD and BOS are impossible (-inf). Where a model gave no distribution (a NaN or +inf among its logits), all
        the other entries of the row are NaN.
        """
        logits = []
        for index, model in enumerate(self.models):
            features, state = model.decoder.step(token, self._memories[index], self._states[index], time)
            self._states[index] = state
            logits.append(model.project(features))
        return _log_probs(logits)

    def reorder(self, parents: Tensor) -> None:
        """Let row k of each sentence go on from row parents[b, k] (B, K)."""
        self._states = [state.reorder(parents) for state in self._states]

    def keep(self, sentences: Tensor) -> None:
        """Go on with the given sentences (B',) only."""
        self._memories = [memory.keep(sentences) for memory in self._memories]
        self._states = [state.keep(sentences) for state in self._states]


def force_score(scorer: Scorer, src: Tokens, ids: Sequence[int]) -> float:
    """Log-probability of the translation `ids` (no EOS) of the one sentence src (1, S), by teacher forcing."""
    device = src.ids.device
    tgt_in = torch.tensor([[BOS, *ids]], device=device)
    tgt_out = torch.tensor([[*ids, EOS]], device=device)
    tokens = Tokens(tgt_in, torch.tensor([len(ids) + 1], device=device), len(ids) + 1)
    with torch.no_grad():
        log_probs = _log_probs([model.project(model(src, tokens)[0]) for model in scorer.models])  # (1, T, V)
    return log_probs.gather(2, tgt_out[..., None]).double().sum().item()


def limits_of(max_len: Tensor | Sequence[int] | int, sentences: int) -> list[int]:
    """The most pieces, EOS not counted, of each sentence's translation, known to the host."""
    if isinstance(max_len, int):
        return [max_len] * sentences
    limits = [int(limit) for limit in max_len]
    assert len(limits) == sentences, f"{len(limits)} limits for {sentences} sentences"
    return limits


def _log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The logits (..., V) of each model -> log of the mean of their probabilities (..., V)."""
    log_probs = [torch.log_softmax(each, dim=-1, dtype=torch.float32) for each in logits]
    mean = log_probs[0] if len(log_probs) == 1 else torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))
    mean[..., PAD] = -math.inf
    mean[..., BOS] = -math.inf
    return mean
