"""One look at the validation text: loss of the references, and BLEU of real, greedy translations."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.distributed.tensor import DTensor

from translate.config import Config, DecodeConfig
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.device import Machine
from translate.errors import Interrupted
from translate.evaluation.scores import bleu
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq
from translate.text.batches import batches_in_order
from translate.text.encoded import EncodedSplit
from translate.text.tokenizer import Tokenizer
from translate.training.checkpoint import Learner
from translate.training.distributed import Ranks, whole
from translate.training.loss import Objective, TensorBatch
from translate.training.progress import Validation

LOSS_BATCH_TOKENS = 4096
"""Target tokens scored at once; memory, not the result, depends on it."""


@dataclass(frozen=True)
class Validator:
    """The validation text, encoded for the loss and as lines for BLEU."""

    config: Config
    machine: Machine
    split: EncodedSplit
    src: Sequence[str]
    refs: Sequence[str]
    ranks: Ranks = Ranks()  # noqa: RUF009 - a constant

    def __call__(self, learner: Learner, check: Callable[[], None]) -> Validation:
        """Validate, each rank its share; `check` is called between batches and may raise to break off."""
        model = self._whole(learner).eval()
        with torch.no_grad():
            loss = self.loss(model, check)
            bleu = self.bleu(model, learner.tokenizer, check) if self.src else None
        return Validation(learner.progress.step, loss, bleu)

    def loss(self, model: Seq2Seq, check: Callable[[], None]) -> float:
        """Negative log-likelihood in nats a target token, without label smoothing."""
        objective = Objective(model, 0.0).eval()
        total, tokens = 0.0, 0.0
        batches = batches_in_order(self.split, LOSS_BATCH_TOKENS)
        with self._together():
            for batch in islice(batches, self.ranks.number, None, self.ranks.count):
                check()
                with self.machine.autocast():
                    loss, count = objective(TensorBatch.of(batch, torch.device(self.machine.device)))
                total, tokens = total + loss.item(), tokens + count
        total, tokens = self.ranks.total(total, tokens)
        return total / tokens

    def bleu(self, model: Seq2Seq, tokenizer: Tokenizer, check: Callable[[], None]) -> float:
        """sacreBLEU of greedy translations against the untouched references."""
        greedy = DecodeConfig(beam=1, max_length=self.config.decode.max_length)
        translator = Translator(Scorer([model]), tokenizer, greedy, torch.device(self.machine.device), check)
        mine = self.src[self.ranks.number :: self.ranks.count]
        with self._together():
            found = [translations[0].text for translations in translator.translate(mine)]
        hyps = self.ranks.in_turn(found)
        return bleu(hyps, self.refs, self.config.evaluate).value

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Each rank's share of the work: if a signal breaks off that of one, all are interrupted at its end."""
        broken: Interrupted | None = None
        try:
            yield
        except Interrupted as error:
            broken = error
        (code,) = self.ranks.most(0 if broken is None else broken.exit_code)
        if code:
            raise broken or Interrupted(int(code), "stopped with another process; the same command goes on from here")

    def _whole(self, learner: Learner) -> Seq2Seq:
        """The model; where each rank holds shards of its weights, a copy that has all of them."""
        shards = dict(learner.model.named_parameters())
        if not any(isinstance(shard, DTensor) for shard in shards.values()):
            return learner.model
        sizes = learner.tokenizer.src_size, learner.tokenizer.tgt_size
        model = build_model(self.config.model, *sizes).to(self.machine.device)
        with torch.no_grad():  # one after the other, for there may be no room for all of them twice
            for name, parameter in model.named_parameters():
                parameter.copy_(whole(shards[name]))
        return model


def first_lines(sources: Sequence[Sequence[str]], count: int) -> list[str]:
    """The first `count` lines of several texts, taken in turn so that each is represented."""
    turns = (text[row] for row in range(max(map(len, sources), default=0)) for text in sources if row < len(text))
    return list(islice(turns, count))
