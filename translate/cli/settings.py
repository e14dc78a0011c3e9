"""translate config: show, check, schema."""

import json

import typer

from translate.cli.options import ConfigOption, RunOption, SetOption
from translate.config.writer import as_schema, dump_config
from translate.stages.settings import described

app = typer.Typer(help="Show or check settings.", rich_markup_mode="rich")


@app.command(epilog="Example: translate config show --config configs/quickstart.yaml --set train.lr=1e-3")
def show(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Print all settings, every default filled in."""
    print(dump_config(described(config, run, sets)[0]), end="")


@app.command(epilog="Example: translate config check --config configs/quickstart.yaml")
def check(config: ConfigOption = None, run: RunOption = None, sets: SetOption = None) -> None:
    """Say whether the settings are sound, and what is wrong with them if not."""
    directory = described(config, run, sets)[1]
    print(f"{config or directory.config_file}: sound; its run is {directory.root}")


@app.command(epilog="Example: translate config schema > schema.json")
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    print(json.dumps(as_schema(), indent=2, ensure_ascii=False))
