"""Worked calculations of small random models, one for each pair of choices of attention."""

from typing import cast

from tests.choices import Choice, Kind, covering, decoder_of, encoder_for, name_of, valid_choices
from tests.invariants import build
from translate.config import Config, DecoderConfig, EncoderConfig
from translate.report.blackboard.numbers import Worked
from translate.stages.inspected_pair import Pair
from translate.stages.worked_steps import work_out
from translate.text.tokenizer import EOS, Tokenizer
from translate.training.checkpoint import LoadedModel

SRC, TGT = [5, 9, 4, 9, 7, EOS], [8, 4, 6]
KINDS: tuple[Kind, ...] = ("rnn", "conv", "transformer")
CHOICES = {f"{kind}-{name_of(choice)}": (kind, choice) for kind in KINDS for choice in covering(valid_choices(kind))}


class Letters:
    """Stands for a tokenizer: the piece of id 5 is ▁f."""

    def pieces_src(self, ids: list[int]) -> list[str]:
        return [f"▁{chr(ord('a') + i)}" for i in ids]

    pieces_tgt = pieces_src


def loaded_model(encoder: EncoderConfig, decoder: DecoderConfig) -> LoadedModel:
    corpus = [{"src": "a", "tgt": "b"}]
    config = Config.model_validate({"data": {"train": corpus, "valid": corpus}, "train": {"max_steps": 1}})
    return LoadedModel(build(encoder, decoder), cast(Tokenizer, Letters()), config, 7, "x")


def worked_out(
    encoder: EncoderConfig, decoder: DecoderConfig, layer: int | None = None, head: int = 1, step: int = 3
) -> tuple[Worked, LoadedModel]:
    """A step of a random model along SRC and TGT, and the model."""
    loaded = loaded_model(encoder, decoder)
    return work_out(loaded, Pair("a sentence", "its translation", SRC, TGT), layer, head, step), loaded


def chosen_step(name: str) -> tuple[Worked, LoadedModel, Choice]:
    """The third step of a model that attends as CHOICES says, in its last head."""
    kind, choice = CHOICES[name]
    return *worked_out(encoder_for(kind, choice), decoder_of(kind, choice), head=choice["heads"]), choice
