"""The entry: the commands put together, and the one place where an exception becomes an exit code and a sentence."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import translate
from translate.cli import inspection, pipeline, settings
from translate.cli.options import RESULTS, SETTINGS, option, say
from translate.errors import EXIT_PIPE, EXIT_SIGINT, UsageError, escaped, explain
from translate.stages.settings import refuse_unclear
from translate.training.signals import terminable

app = typer.Typer(
    help="Train, score and run neural translation models from two text files and one YAML file.",
    epilog="Example: translate run --config configs/quickstart.yaml",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(pipeline.app)
app.add_typer(inspection.app, name="inspect", rich_help_panel=RESULTS)
app.add_typer(settings.app, name="config", rich_help_panel=SETTINGS)


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
        say(f"error: {escaped(message)}")
    if code == EXIT_PIPE:
        # What is still buffered has no reader; without this Python complains about it at its very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"translate {translate.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, option("--debug", "", "Show where in the code an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options for all commands."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1" and context.invoked_subcommand not in ("train", "eval", "decode"):
        raise UsageError(
            f"{count} processes were started, by torchrun it seems, but only `train`, `eval` and `decode` know how to "
            "share their work among several; run the other commands by themselves"
        )
