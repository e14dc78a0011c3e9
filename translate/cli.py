"""The command line: parse, call one stage, print. Nothing heavy is imported before a command needs it."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import translate
from translate.config.writer import as_schema, dump_config
from translate.errors import (
    EXIT_PIPE,
    EXIT_SIGINT,
    MissingInputError,
    OutputError,
    UsageError,
    escaped,
    explain,
)
from translate.stages.settings import described, existing, refuse_unclear
from translate.training.signals import terminable

PIPELINE, RESULTS, SETTINGS = "From text to a model", "From a model to results", "Settings"

app = typer.Typer(
    help="Train, score and run neural translation models from two text files and one YAML file.",
    epilog="Example: translate run --config configs/quickstart.yaml",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Show or check settings.", rich_markup_mode="rich")
inspect_app = typer.Typer(help="Look inside a trained model.", rich_markup_mode="rich")
app.add_typer(inspect_app, name="inspect", rich_help_panel=RESULTS)
app.add_typer(config_app, name="config", rich_help_panel=SETTINGS)


def _option(name: str, metavar: str, meaning: str) -> Any:
    return typer.Option(name, metavar=metavar, help=meaning)


ConfigOption = Annotated[Path | None, _option("--config", "FILE", "YAML file with the settings.")]
NamingOption = Annotated[Path | None, _option("--config", "FILE", "Config that names the run, instead of --run.")]
RunOption = Annotated[Path | None, _option("--run", "DIR", "The run's directory; by default runs/NAME.")]
SetOption = Annotated[
    list[str] | None, _option("--set", "KEY=VALUE", "Change one setting, such as train.lr=3e-4; repeatable.")
]
BeamOption = Annotated[str | None, _option("--beam", "N", "Beam width; 1 is greedy search.")]
WeightsOption = Annotated[str | None, _option("--weights", "NAME", "best, last, average or ema weights of the run.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever goes wrong becomes one message on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in arguments
    try:
        refuse_unclear(arguments)
        with terminable():
            code = app(args=[a for a in arguments if a != "--debug"], prog_name="translate", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        error: BaseException | None = KeyboardInterrupt() if code == EXIT_SIGINT else None
    except SystemExit as left:  # typer turns a closed pipe into this
        code, error = left.code, left.__context__
    except BaseException as raised:
        code, error = None, raised
    if error is None:
        return code if isinstance(code, int) else 0
    if debug:
        traceback.print_exception(error)
    code, message = explain(error)
    if message:
        _say(f"error: {escaped(message)}")
    if code == EXIT_PIPE:
        # What is still buffered has no reader; without this Python complains about it at its very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _say(text: str) -> None:
    """Write to standard error; if that is closed, the exit code must do."""
    if sys.stderr is not None:  # print would take standard output instead, which may carry data
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def _tell(summary: Sequence[str], *, last: bool = True, aside: bool = False) -> None:
    """Print what a stage came to; `next:` only where nothing follows, and aside where stdout carries data."""
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process speaks for all
    for line in summary:
        if last or not line.startswith("next:"):
            _say(line) if aside else print(line, flush=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"translate {translate.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, _option("--debug", "", "Show where in the code an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options for all commands."""


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
        _tell(tokenize_stage(settings, directory).summary(), last=False)
    _tell(train_stage(settings, directory).summary(), last=False)
    _tell(evaluate(directory, settings, "test" if settings.data.test else "valid").summary())


@app.command(rich_help_panel=PIPELINE, epilog="Example: translate tokenize --config configs/quickstart.yaml")
def tokenize(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Clean the text, train a tokenizer on it, and store it as ids."""
    from translate.stages.tokenization import tokenize as stage

    settings, directory = described(config, run, sets)
    with directory.create().locked():
        _tell(stage(settings, directory).summary())


@app.command(rich_help_panel=PIPELINE, epilog="Example: translate train --config configs/quickstart.yaml")
def train(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Train a model, or go on where training stopped; tokenizes first if need be."""
    from translate.stages.training import train as stage

    _tell(stage(*described(config, run, sets)).summary())


@app.command("eval", rich_help_panel=RESULTS, epilog="Example: translate eval --run runs/quickstart --beam 1")
def evaluate(
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    split: Annotated[str, _option("--split", "NAME", "train, valid or test.")] = "test",
    source: Annotated[Path | None, _option("--source", "FILE", "Score this file instead of a split.")] = None,
    reference: Annotated[Path | None, _option("--reference", "FILE", "Its references, line by line.")] = None,
    weights: WeightsOption = None,
    beam: BeamOption = None,
    lowercase: Annotated[bool, _option("--lowercase", "", "Score without regard to case.")] = False,
    tokenizer: Annotated[
        str | None, _option("--tokenize", "NAME", "sacreBLEU's tokenizer: 13a, none, intl, zh, char.")
    ] = None,
    gold: Annotated[
        Path | None, _option("--gold-alignments", "FILE", "Word links, such as 0-0 1?2, to score attention with.")
    ] = None,
) -> None:
    """Translate a split and score it: BLEU, chrF and TER with their signatures, and alignment error rate."""
    if (source is None) != (reference is None):
        raise UsageError("--source and --reference go together: give both, or neither")
    options = {"weights": weights, "beam": beam, "evaluate.tokenize": tokenizer}
    options["evaluate.lowercase"] = "true" if lowercase else None
    settings, directory = existing(config, run, sets, options)

    from translate.stages.evaluation import evaluate as stage

    _tell(stage(directory, settings, split, source, reference, gold).summary())


@app.command(rich_help_panel=RESULTS, epilog="Example: translate decode --run runs/quickstart < input.ko > output.en")
def decode(
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    source: Annotated[
        Path | None, _option("--input", "FILE", "Text, one sentence a line; else standard input.")
    ] = None,
    output: Annotated[Path | None, _option("--output", "FILE", "Translations; else standard output.")] = None,
    beam: BeamOption = None,
    n_best: Annotated[str | None, _option("--n-best", "N", "Translations of each line, at most the beam.")] = None,
    length_penalty: Annotated[
        str | None, _option("--length-penalty", "X", "Exponent of the length a score is divided by.")
    ] = None,
    max_length: Annotated[str | None, _option("--max-length", "N", "Most pieces of a translation.")] = None,
    batch_size: Annotated[str | None, _option("--batch-size", "N", "Sentences translated at once.")] = None,
    scores: Annotated[bool, _option("--scores", "", "Begin each line with its score and a tab.")] = False,
    alignments: Annotated[
        Path | None, _option("--alignments", "FILE", "Write each line's word links there, as 0-0 1-2.")
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
    _tell(report.summary(), aside=True)


@inspect_app.command(epilog='Example: translate inspect attention --run runs/quickstart "나는 학생이다"')
def attention(
    sentences: Annotated[list[str], typer.Argument(metavar="SENTENCE", help="In the source language; or several.")],
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[str | None, _option("--target", "TEXT", "Its translation; else the model's own.")] = None,
    which: Annotated[
        str, _option("--which", "NAME", "cross (to the source), encoder or decoder (each to itself), or all.")
    ] = "cross",
    output: Annotated[
        Path | None, _option("--output", "FILE", "The picture; by default in the run's inspect/.")
    ] = None,
    numbers: Annotated[bool, _option("--json", "", "Print the numbers, one line a sentence.")] = False,
    weights: WeightsOption = None,
) -> None:
    """Draw which source pieces each target piece looked at, for one sentence or several."""
    settings, directory = existing(config, run, sets, {"weights": weights})

    from translate.stages.inspection import inspect_sentences

    for report in inspect_sentences(directory, sentences, target, output, settings, which):
        if numbers:
            print(json.dumps(report.to_json(), ensure_ascii=False))
        _tell(report.summary(), aside=numbers)


@inspect_app.command(epilog='Example: translate inspect steps --run runs/quickstart "나는 학생이다" --step 4')
def steps(
    sentence: Annotated[str | None, typer.Argument(metavar="SENTENCE", help="In the source language.")] = None,
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[str | None, _option("--target", "TEXT", "Its translation; else the model's own.")] = None,
    layer: Annotated[int | None, _option("--layer", "N", "Layer of the decoder, from 1; by default the last.")] = None,
    head: Annotated[int, _option("--head", "N", "Attention head, from 1.")] = 1,
    step: Annotated[int, _option("--step", "N", "Piece of the translation that is written, from 1.")] = 1,
    numbers: Annotated[bool, _option("--json", "", "Print the numbers, whole vectors and matrices.")] = False,
    markdown: Annotated[bool, _option("--markdown", "", "Print Markdown.")] = False,
    example: Annotated[bool, _option("--example", "", "Work out a lecture's example, without a model.")] = False,
    weights: WeightsOption = None,
) -> None:
    """Work out the attention of one output step with all its numbers, as on a blackboard."""
    from translate.report.blackboard.board import form_of

    form = form_of(numbers, markdown)
    if example:
        from translate.report.blackboard.example import lecture_example

        print(lecture_example(sentence, run, config).show(form), end="")
        return
    if sentence is None:
        raise UsageError("SENTENCE is missing (or --example, which has its own)")
    settings, directory = existing(config, run, sets, {"weights": weights})

    from translate.report.blackboard.writing import board
    from translate.stages.worked_steps import inspect_steps

    print(board(inspect_steps(directory, sentence, target, layer, head, step, settings)).show(form), end="")


@inspect_app.command(epilog="Example: translate inspect alignments --run runs/quickstart --source a.ko --target a.en")
def alignments(
    source: Annotated[Path, _option("--source", "FILE", "Text in the source language, one sentence a line.")],
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[
        Path | None, _option("--target", "FILE", "Its translation, line by line; else the model's own.")
    ] = None,
    output: Annotated[Path | None, _option("--output", "FILE", "Word links; else standard output.")] = None,
    weights: WeightsOption = None,
    beam: BeamOption = None,
) -> None:
    """Link each word of a translation with the source word it looked at most: a line such as 0-0 1-2 a sentence."""
    settings, directory = existing(config, run, sets, {"weights": weights, "beam": beam})

    from translate.stages.aligning import inspect_alignments

    if output is None and sys.stdout is None:
        raise OutputError("standard output is closed; give --output FILE")
    report = inspect_alignments(directory, source, target, output or sys.stdout.buffer, settings)
    _tell(report.summary(), aside=True)


@config_app.command(epilog="Example: translate config show --config configs/quickstart.yaml --set train.lr=1e-3")
def show(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Print all settings, every default filled in."""
    print(dump_config(described(config, run, sets)[0]), end="")


@config_app.command(epilog="Example: translate config check --config configs/quickstart.yaml")
def check(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Say whether the settings are sound, and what is wrong with them if not."""
    directory = described(config, run, sets)[1]
    print(f"{config or directory.config_file}: sound; its run is {directory.root}")


@config_app.command(epilog="Example: translate config schema > schema.json")
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    print(json.dumps(as_schema(), indent=2, ensure_ascii=False))
