"""translate inspect: attention, steps, alignments."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from translate.cli.options import (
    BeamOption,
    NamingOption,
    RunOption,
    SetOption,
    WeightsOption,
    option,
    tell,
)
from translate.errors import OutputError, UsageError
from translate.stages.settings import existing

app = typer.Typer(help="Look inside a trained model.", rich_markup_mode="rich")


@app.command(epilog='Example: translate inspect attention --run runs/quickstart "나는 학생이다"')
def attention(
    sentences: Annotated[list[str], typer.Argument(metavar="SENTENCE", help="In the source language; or several.")],
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[str | None, option("--target", "TEXT", "Its translation; else the model's own.")] = None,
    which: Annotated[
        str, option("--which", "NAME", "cross (to the source), encoder or decoder (each to itself), or all.")
    ] = "cross",
    output: Annotated[Path | None, option("--output", "FILE", "The picture; by default in the run's inspect/.")] = None,
    numbers: Annotated[bool, option("--json", "", "Print the numbers, one line a sentence.")] = False,
    weights: WeightsOption = None,
) -> None:
    """Draw which source pieces each target piece looked at, for one sentence or several."""
    settings, directory = existing(config, run, sets, {"weights": weights})

    from translate.stages.inspection import inspect_sentences

    for report in inspect_sentences(directory, sentences, target, output, settings, which):
        if numbers:
            print(json.dumps(report.to_json(), ensure_ascii=False))
        tell(report.summary(), aside=numbers)


@app.command(epilog='Example: translate inspect steps --run runs/quickstart "나는 학생이다" --step 6')
def steps(
    sentence: Annotated[str | None, typer.Argument(metavar="SENTENCE", help="In the source language.")] = None,
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[str | None, option("--target", "TEXT", "Its translation; else the model's own.")] = None,
    layer: Annotated[int | None, option("--layer", "N", "Layer of the decoder, from 1; by default the last.")] = None,
    head: Annotated[int, option("--head", "N", "Attention head, from 1.")] = 1,
    step: Annotated[int, option("--step", "N", "Piece of the translation that is written, from 1.")] = 1,
    numbers: Annotated[bool, option("--json", "", "Print the numbers, whole vectors and matrices.")] = False,
    markdown: Annotated[bool, option("--markdown", "", "Print Markdown.")] = False,
    example: Annotated[bool, option("--example", "", "Work out a lecture's example, without a model.")] = False,
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


@app.command(epilog="Example: translate inspect alignments --run runs/quickstart --source a.ko --target a.en")
def alignments(
    source: Annotated[Path, option("--source", "FILE", "Text in the source language, one sentence a line.")],
    run: RunOption = None,
    config: NamingOption = None,
    sets: SetOption = None,
    target: Annotated[
        Path | None, option("--target", "FILE", "Its translation, line by line; else the model's own.")
    ] = None,
    output: Annotated[Path | None, option("--output", "FILE", "Word links; else standard output.")] = None,
    weights: WeightsOption = None,
    beam: BeamOption = None,
) -> None:
    """Link each word of a translation with the source word it looked at most: a line such as 0-0 1-2 a sentence."""
    settings, directory = existing(config, run, sets, {"weights": weights, "beam": beam})

    from translate.stages.aligning import inspect_alignments

    if output is None and sys.stdout is None:
        raise OutputError("standard output is closed; give --output FILE")
    report = inspect_alignments(directory, source, target, output or sys.stdout.buffer, settings)
    tell(report.summary(), aside=True)
