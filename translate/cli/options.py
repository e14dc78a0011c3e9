"""What the commands share: their options, and how they speak to the user."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PIPELINE, RESULTS, SETTINGS = "From text to a model", "From a model to results", "Settings"


def option(name: str, metavar: str, meaning: str) -> Any:
    """An option with what stands for its value in the help, and its meaning."""
    return typer.Option(name, metavar=metavar, help=meaning)


ConfigOption = Annotated[Path | None, option("--config", "FILE", "YAML file with the settings.")]
NamingOption = Annotated[Path | None, option("--config", "FILE", "Config that names the run, instead of --run.")]
RunOption = Annotated[Path | None, option("--run", "DIR", "The run's directory; by default runs/NAME.")]
SetOption = Annotated[
    list[str] | None, option("--set", "KEY=VALUE", "Change one setting, such as train.lr=3e-4; repeatable.")
]
BeamOption = Annotated[str | None, option("--beam", "N", "Beam width; 1 is greedy search.")]
WeightsOption = Annotated[str | None, option("--weights", "NAME", "best, last, average or ema weights of the run.")]


def say(text: str) -> None:
    """Write to standard error; if that is closed, the exit code must do."""
    if sys.stderr is not None:  # print would take standard output instead, which may carry data
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def tell(summary: Sequence[str], *, last: bool = True, aside: bool = False) -> None:
    """Print what a stage came to; `next:` only where nothing follows, and aside where stdout carries data."""
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process speaks for all
    for line in summary:
        if last or not line.startswith("next:"):
            say(line) if aside else print(line, flush=True)
