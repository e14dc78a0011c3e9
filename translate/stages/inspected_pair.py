"""The sentence and its translation that an inspection looks at, read with the run's model."""

from dataclasses import dataclass

import torch

from translate.config import Config
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.device import resolve_for_use
from translate.errors import DataError
from translate.run import RunDirectory
from translate.text.tokenizer import BOS, EOS, Tokenizer
from translate.training.checkpoint import LoadedModel, load_model


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation as text, and as ids: src ends in EOS, tgt has neither BOS nor EOS."""

    sentence: str
    translation: str
    src_ids: list[int]
    tgt_ids: list[int]

    def src(self, tokenizer: Tokenizer) -> list[str]:
        """Source pieces (S), the last one </s>."""
        return tokenizer.pieces_src(self.src_ids)

    def tgt(self, tokenizer: Tokenizer) -> list[str]:
        """What each step writes (T), the last one </s>."""
        return tokenizer.pieces_tgt([*self.tgt_ids, EOS])

    def tgt_in(self, tokenizer: Tokenizer) -> list[str]:
        """What each step reads (T), the first one <s>."""
        return tokenizer.pieces_tgt([BOS, *self.tgt_ids])


@dataclass
class Inspected:
    """A run's model, and how it translates."""

    loaded: LoadedModel
    device: torch.device
    config: Config

    @classmethod
    def open(cls, run: RunDirectory, config: Config) -> "Inspected":
        """Load the weights that config.decode names, on the device that the config names."""
        machine = resolve_for_use(config, run)
        device = torch.device(machine.device)
        return cls(load_model(run, config.decode.weights, device), device, config)

    def read(self, sentence: str, target: str | None = None) -> Pair:
        """A sentence with `target` as its translation, or with the model's own.

        Raises DataError for a blank text, and for a model whose probabilities are not finite.
        """
        tokenizer = self.loaded.tokenizer
        src_ids = tokenizer.encode_src(sentence)
        if len(src_ids) < 2:
            raise DataError("no attention to show: the sentence is blank; give one with words in it")
        if target is None:
            translator = Translator(Scorer([self.loaded.model]), tokenizer, self.config.decode, self.device)
            found = next(translator.translate([sentence]))[0]
            if not found.found:
                raise DataError(
                    "no attention to show: the model gave no finite probabilities; try decode.weights: last"
                )
            return Pair(tokenizer.normalize(sentence), found.text, src_ids, found.ids)
        tgt_ids = tokenizer.encode_tgt(target)
        if not tgt_ids:
            raise DataError("no attention to show: the target is blank; leave it out to see the model's own")
        return Pair(tokenizer.normalize(sentence), tokenizer.normalize(target), src_ids, tgt_ids)


def refuse_without_attention(config: Config) -> None:
    """Raise DataError for a model that does not attend to the source."""
    if config.model.decoder.attention.score == "none":
        raise DataError(
            "no attention to show: model.decoder.attention.score is none; train a run with general or additive, say"
        )
