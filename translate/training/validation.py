"""One look at the validation text: loss of the references, and BLEU of real, greedy translations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from translate.config import Config, DecodeConfig
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.device import Machine
from translate.evaluation.scores import bleu
from translate.text.batches import batches_in_order
from translate.text.encoded import EncodedSplit
from translate.training.checkpoint import Learner
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

    def __call__(self, learner: Learner, check: Callable[[], None]) -> Validation:
        """Validate; `check` is called between batches and may raise to break off."""
        learner.model.eval()
        with torch.no_grad():
            loss = self.loss(learner, check)
            bleu = self.bleu(learner, check) if self.src else None
        return Validation(learner.progress.step, loss, bleu)

    def loss(self, learner: Learner, check: Callable[[], None]) -> float:
        """Negative log-likelihood in nats a target token, without label smoothing."""
        objective = Objective(learner.model, 0.0).eval()
        total, tokens = 0.0, 0
        for batch in batches_in_order(self.split, LOSS_BATCH_TOKENS):
            check()
            with self.machine.autocast():
                loss, count = objective(TensorBatch.of(batch, torch.device(self.machine.device)))
            total, tokens = total + loss.item(), tokens + count
        return total / tokens

    def bleu(self, learner: Learner, check: Callable[[], None]) -> float:
        """sacreBLEU of greedy translations against the untouched references."""
        greedy = DecodeConfig(beam=1, max_length=self.config.decode.max_length)
        device = torch.device(self.machine.device)
        translator = Translator(Scorer([learner.model]), learner.tokenizer, greedy, device, check)
        hyps = [translations[0].text for translations in translator.translate(self.src)]
        return bleu(hyps, self.refs, self.config.evaluate).value


def first_lines(sources: Sequence[Sequence[str]], count: int) -> list[str]:
    """The first `count` lines of several texts, taken in turn so that each is represented."""
    turns = (text[row] for row in range(max(map(len, sources), default=0)) for text in sources if row < len(text))
    return list(islice(turns, count))
