"""The command line: parse, call one stage, print. Nothing heavy is imported before a command needs it."""

from translate.cli.main import main

__all__ = ["main"]
