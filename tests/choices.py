"""The choices that attention is put together from, read off the config, and sets of combinations of them.

A new score, scope or whatever else is in every set by itself as soon as the config knows it.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations, product
from typing import Any, Literal, get_args

from translate.config import (
    AttentionConfig,
    Config,
    ConvAttentionConfig,
    ConvDecoderConfig,
    ConvEncoderConfig,
    CrossAttentionConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.config.rules import conflicts

Kind = Literal["rnn", "conv", "transformer"]
Choice = dict[str, Any]
"""One value for each axis."""

SHARED = ("score", "scope", "selection", "normalizer", "features")
SIZES = {
    **{"window": 1, "temperature": 0.7, "max_positions": 9},
    **{"coverage_weight": 0.8, "entropy_weight": 0.3, "soft_share": 0.4},
}
"""Small enough for the edge of a window to lie inside a sentence of five words."""


def values_of(section: type[AttentionConfig], name: str) -> tuple[str, ...]:
    """The words that a key takes, but for the score `none`."""
    return tuple(word for word in get_args(section.model_fields[name].annotation) if word != "none")


def axes(kind: Kind) -> dict[str, tuple[Any, ...]]:
    """Everything a decoder of this kind lets one choose about attention."""
    sections: dict[Kind, type[AttentionConfig]] = {
        "rnn": RnnAttentionConfig,
        "conv": ConvAttentionConfig,
        "transformer": CrossAttentionConfig,
    }
    section = sections[kind]
    found: dict[str, tuple[Any, ...]] = {name: values_of(section, name) for name in SHARED}
    found |= {"coverage": (False, True), "heads": (1, 2)}
    if kind == "rnn":
        found |= {"placement": values_of(section, "placement"), "input_feeding": (False, True)}
    return found


def decoder_of(kind: Kind, choice: Choice) -> DecoderConfig:
    """A small decoder that attends so; half of them are GRUs."""
    common = {name: choice[name] for name in (*SHARED, "coverage")} | SIZES
    match kind:
        case "rnn":
            attention = RnnAttentionConfig(**common, heads=choice["heads"], placement=choice["placement"])
            cell: Literal["lstm", "gru"] = "gru" if choice["coverage"] else "lstm"
            feeding = choice["input_feeding"]
            return RnnDecoderConfig(
                cell=cell, width=8, embedding=5, dropout=0.3, input_feeding=feeding, attention=attention
            )
        case "conv":
            across = ConvAttentionConfig(**common, heads=choice["heads"])
            return ConvDecoderConfig(layers=2, width=8, embedding=6, kernel=2, dropout=0.3, attention=across)
        case "transformer":
            return TransformerDecoderConfig(
                layers=1,
                width=8,
                heads=choice["heads"],
                feed_forward=6,
                dropout=0.3,
                attention_dropout=0.2,
                attention=CrossAttentionConfig(**common),
            )


def encoder_for(kind: Kind, choice: Choice) -> EncoderConfig:
    """An encoder of another kind than the decoder, and for half of the scopes of another width."""
    width = 8 if choice["scope"] == "global" else 6
    match kind:
        case "rnn":
            return ConvEncoderConfig(layers=1, width=width, dropout=0.3)
        case "conv":
            return TransformerEncoderConfig(layers=1, width=width, heads=2, feed_forward=6, dropout=0.3)
        case "transformer":
            return RnnEncoderConfig(cell="gru", width=width, dropout=0.3)


def is_valid(kind: Kind, choice: Choice) -> bool:
    """Whether the rules for configs let it pass."""
    model = ModelConfig(encoder=encoder_for(kind, choice), decoder=decoder_of(kind, choice), tie="none")
    corpus = [{"src": "a", "tgt": "b"}]
    data = {"train": corpus, "valid": corpus, "cleaning": {"max_length": 8}}
    config = Config.model_validate({"data": data, "train": {"max_steps": 1}})
    return not list(conflicts(config.model_copy(update={"model": model})))


def all_choices(kind: Kind) -> Iterator[Choice]:
    """The full product of the axes, valid or not."""
    named = axes(kind)
    for values in product(*named.values()):
        yield dict(zip(named, values, strict=True))


def valid_choices(kind: Kind) -> Iterator[Choice]:
    """The combinations that the rules for configs let pass."""
    return (choice for choice in all_choices(kind) if is_valid(kind, choice))


Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(choice: Choice) -> Iterator[Pair]:
    """What is chosen on two axes, for every two of them."""
    return combinations(choice.items(), 2)


def covering(choices: Iterable[Choice]) -> list[Choice]:
    """Few of the choices, among which each pair that occurs in all of them occurs: greedily the one that adds most."""
    choices = list(choices)
    numbers: dict[Pair, int] = {}
    masks = [sum(1 << numbers.setdefault(pair, len(numbers)) for pair in pairs_of(choice)) for choice in choices]
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        best = max(range(len(choices)), key=lambda index: (masks[index] & missing).bit_count())
        chosen.append(choices[best])
        missing &= ~masks[best]
    return chosen


def name_of(choice: Choice) -> str:
    """A choice as the name of a test."""
    words = {True: "on", False: "off"}
    return "-".join(f"{name}_{words[v]}" if isinstance(v, bool) else str(v) for name, v in choice.items())
