"""The options that every experiment has."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Where everything lies, and how much of it to do."""

    runs: Path = Path("runs/experiments")
    """Directory of all experiments; each has a folder with its runs and results.json."""
    docs: Path = Path("docs")
    """Where the pages and pictures/ are."""
    minutes: float | None = None
    """Training time of a run in place of the config's."""
    only: str = ""
    """Do only runs with this in their name."""
    table: bool = False
    """Do nothing new: table and picture from what there is."""


def read(description: str | None) -> Options:
    """Options from the command line; `description` is the module's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="training time of a run, instead of what its config says")
    parser.add_argument("--only", default="", metavar="TEXT", help="do only runs with this in their name")
    parser.add_argument("--table", action="store_true", help="do nothing new: table and picture from what there is")
    parser.add_argument("--runs", type=Path, default=Options.runs, metavar="DIR", help="where the runs lie")
    parser.add_argument("--docs", type=Path, default=Options.docs, metavar="DIR", help="where the pages lie")
    return Options(**vars(parser.parse_args()))
