"""Which settings and which run a command is about, from its options."""

from collections.abc import Sequence
from pathlib import Path

from translate.config import Config
from translate.config.reader import Override, load_config, run_path
from translate.errors import ConfigError, UsageError
from translate.run import RunDirectory


def refuse_unclear(arguments: Sequence[str]) -> None:
    """Refuse an option given twice, which its order would settle silently, and what an unset variable left empty."""
    seen: set[str] = set()
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name == "--set":
            continue
        if name in seen:
            raise UsageError(f"{name} is given twice: give it once")
        if (value if equals else following) == "":
            raise UsageError(f"{name}: is empty, expected a value")
        seen.add(name)


def described(config: Path | None, run: Path | None, sets: list[str] | None) -> tuple[Config, RunDirectory]:
    """Settings and place of a run that is to be made or gone on with."""
    if config is None and run is None:
        raise UsageError("--config FILE is missing (or --run DIR of a run that is to go on)")
    file = config if config is not None else RunDirectory.open(run or Path()).config_file
    settings = load_config(file, sets or [])
    return settings, RunDirectory(run_path(settings, config, run))


def existing(
    config: Path | None, run: Path | None, sets: list[str] | None, options: dict[str, str | None]
) -> tuple[Config, RunDirectory]:
    """Settings and place of a trained run; `options` are values of other options by the setting they stand for.

    The run knows its own settings. A config file only names it, and says how to translate and to score.
    """
    if config is None and run is None:
        raise UsageError("--run DIR is missing (or --config FILE, which names the run)")
    changes = [Override.parse(text) for text in sets or []]
    for change in changes:
        if change.key.partition(".")[0] not in ("decode", "evaluate", "device") and change.key != "train.threads":
            raise ConfigError(
                f"{change.label}: {change.key} belongs to the trained model; only decode.*, evaluate.*, device and "
                "train.threads can be set here"
            )
    for option, text in options.items():
        key = option if "." in option else f"decode.{option}"
        if text is not None:
            changes.append(Override(key, text, f"--{key.partition('.')[2].replace('_', '-')} {text}"))
    if config is None:
        opened = RunDirectory.open(run or Path())
        return load_config(opened.config_file, changes), opened
    named = load_config(config, changes)
    opened = RunDirectory.open(run_path(named, config, run))
    chosen = {"device": named.device, "decode": named.decode, "evaluate": named.evaluate}
    stored = load_config(opened.config_file, [change for change in changes if change.key == "train.threads"])
    return stored.model_copy(update=chosen), opened
