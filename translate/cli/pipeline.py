"""The commands of the pipeline: tokenize, train, eval, decode, and all of them in order."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from translate.cli.options import (
    PIPELINE,
    RESULTS,
    BeamOption,
    ConfigOption,
    NamingOption,
    RunOption,
    SetOption,
    WeightsOption,
    option,
    tell,
)
from translate.errors import MissingInputError, OutputError, UsageError
from translate.stages.settings import described, existing

app = typer.Typer()


@app.command(
    rich_help_panel=PIPELINE, epilog="Example: translate run --config configs/quickstart.yaml --set train.max_steps=50"
)
def run(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Tokenize, train and evaluate; what is done already and unchanged is skipped."""
    from translate.stages.evaluation import evaluate
    from translate.stages.tokenization import tokenize as tokenize_stage
    from translate.stages.training import train as train_stage

    settings, directory = described(config, run, sets)
    with directory.create().locked():
        tell(tokenize_stage(settings, directory).summary(), last=False)
    tell(train_stage(settings, directory).summary(), last=False)
    tell(evaluate(directory, settings, "test" if settings.data.test else "valid").summary())


@app.command(rich_help_panel=PIPELINE, epilog="Example: translate tokenize --config configs/quickstart.yaml")
def tokenize(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Clean the text, train a tokenizer on it, and store it as ids."""
    from translate.stages.tokenization import tokenize as stage

    settings, directory = described(config, run, sets)
    with directory.create().locked():
        tell(stage(settings, directory).summary())


@app.command(rich_help_panel=PIPELINE, epilog="Example: translate train --config configs/quickstart.yaml")
def train(
    config: ConfigOption = None,
    run: RunOption = None,
    sets: SetOption = None,
    dry_run: Annotated[
        bool,
        option(
            "--dry-run", "", "Forecast memory, time and disk by a few updates; writes nothing but the encoded text."
        ),
    ] = False,
    seconds: Annotated[
        float | None, option("--dry-run-seconds", "N", "Time for these updates; by default 20, more tell more.")
    ] = None,
    profile: Annotated[
        bool, option("--profile", "", "Say where an update goes, with a trace in the run's profile/; trains nothing.")
    ] = False,
) -> None:
    """Train a model, or go on where training stopped; tokenizes first if need be."""
    if seconds is not None and not (dry_run and 0 < seconds < math.inf):
        raise UsageError("--dry-run-seconds goes with --dry-run, and is a number above 0")
    if profile and dry_run:
        raise UsageError("--profile and --dry-run are two commands: give one of them")
    settings, directory = described(config, run, sets)
    if dry_run:
        from translate.stages.forecast import forecast

        tell(forecast(settings, directory, seconds or 20.0).summary())
        return
    if profile:
        from translate.stages.profiling import profile_training

        tell(profile_training(settings, directory).summary())
        return

    from translate.stages.training import train as stage

    tell(stage(settings, directory).summary())


@app.command("eval", rich_help_panel=RESULTS, epilog="Example: translate eval --run runs/quickstart --beam 1")
def evaluate(
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    split: Annotated[str, option("--split", "NAME", "train, valid or test.")] = "test",
    source: Annotated[Path | None, option("--source", "FILE", "Score this file instead of a split.")] = None,
    reference: Annotated[Path | None, option("--reference", "FILE", "Its references, line by line.")] = None,
    weights: WeightsOption = None,
    beam: BeamOption = None,
    lowercase: Annotated[bool, option("--lowercase", "", "Score without regard to case.")] = False,
    tokenizer: Annotated[
        str | None, option("--tokenize", "NAME", "sacreBLEU's tokenizer: 13a, none, intl, zh, char.")
    ] = None,
    gold: Annotated[
        Path | None, option("--gold-alignments", "FILE", "Word links, such as 0-0 1?2, to score attention with.")
    ] = None,
) -> None:
    """Translate a split and score it: BLEU, chrF and TER with their signatures, and alignment error rate."""
    if (source is None) != (reference is None):
        raise UsageError("--source and --reference go together: give both, or neither")
    options = {"weights": weights, "beam": beam, "evaluate.tokenize": tokenizer}
    options["evaluate.lowercase"] = "true" if lowercase else None
    settings, directory = existing(config, run, sets, options)

    from translate.stages.evaluation import evaluate as stage

    tell(stage(directory, settings, split, source, reference, gold).summary())


@app.command(rich_help_panel=RESULTS, epilog="Example: translate decode --run runs/quickstart < input.ko > output.en")
def decode(
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    source: Annotated[Path | None, option("--input", "FILE", "Text, one sentence a line; else standard input.")] = None,
    output: Annotated[Path | None, option("--output", "FILE", "Translations; else standard output.")] = None,
    beam: BeamOption = None,
    n_best: Annotated[str | None, option("--n-best", "N", "Translations of each line, at most the beam.")] = None,
    length_penalty: Annotated[
        str | None, option("--length-penalty", "X", "Exponent of the length a score is divided by.")
    ] = None,
    max_length: Annotated[str | None, option("--max-length", "N", "Most pieces of a translation.")] = None,
    batch_size: Annotated[str | None, option("--batch-size", "N", "Sentences translated at once.")] = None,
    scores: Annotated[bool, option("--scores", "", "Begin each line with its score and a tab.")] = False,
    alignments: Annotated[
        Path | None, option("--alignments", "FILE", "Write each line's word links there, as 0-0 1-2.")
    ] = None,
    weights: WeightsOption = None,
) -> None:
    """Translate lines of text: as many lines out as in, in their order."""
    options = {"beam": beam, "n_best": n_best, "length_penalty": length_penalty, "max_length": max_length}
    options |= {"batch_size": batch_size, "weights": weights}
    settings, directory = existing(config, run, sets, options)

    from translate.stages.decoding import decode as stage

    if source is None and sys.stdin is None:
        raise MissingInputError("standard input is closed; give --input FILE")
    if output is None and sys.stdout is None:
        raise OutputError("standard output is closed; give --output FILE")
    report = stage(directory, source or sys.stdin.buffer, output or sys.stdout.buffer, settings, scores, alignments)
    tell(report.summary(), aside=True)
