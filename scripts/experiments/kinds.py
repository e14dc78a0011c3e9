"""The kinds of attention that are compared, and the trainings that several experiments share."""

from typing import get_args

from trainings import Training

from translate.config.architectures import ScoreName

SCORES: tuple[str, ...] = get_args(ScoreName)
WINDOW = 5
"""Of the local scopes. Luong's 10 to either side would see nearly all of sentences of this length."""
FORMS: dict[str, dict[str, str | int]] = {
    "local_m": {"scope": "local_m", "window": WINDOW},
    "local_p": {"scope": "local_p", "window": WINDOW},
    "hard": {"selection": "hard"},
    "gumbel": {"selection": "gumbel"},
    "heads": {"heads": 4},
    "multi_dimensional": {"features": "multi_dimensional"},
    "sparsemax": {"normalizer": "sparsemax"},
    "coverage": {"coverage": "true"},
}
"""What is changed besides `score: general`."""
KINDS: dict[str, dict[str, str | int]] = {
    **{score: {"score": score} for score in SCORES},
    **{name: {"score": "general", **form} for name, form in FORMS.items()},
}
REPEATED = ("none", "dot", "general", "concat", "cosine")
"""Kinds with three seeds; how they differ is the error bar of the others. `concat` is among them since Luong et al.
(2015) found it far behind, `cosine` since its first seed was the best of all."""
SEEDS = (1, 2, 3)
HERE = "scripts/experiments"


def settings(kind: str) -> dict[str, str | int]:
    """The config keys of a kind."""
    return {f"model.decoder.attention.{key}": value for key, value in KINDS[kind].items()}


def label(kind: str) -> str:
    """What a table calls a kind: its score, or what is changed besides."""
    changed = FORMS.get(kind, {"score": kind})
    return ", ".join(f"`{key}: {value}`" for key, value in changed.items())


def on_multi30k(kind: str, seed: int = 1) -> Training:
    """The RNN with a kind of attention, five minutes of Multi30k."""
    return Training("scores", kind, f"{HERE}/scores.yaml", settings(kind), seed)


def architecture(name: str) -> Training:
    """`recurrence`, `convolution` or `self-attention`, with as many weights each, five minutes of Multi30k."""
    return Training("sequences", name, f"{HERE}/{name}.yaml")
