"""From YAML files and command-line overrides to a `Config`, with every problem told at once.

`extends: other.yaml` takes the rest from another file: mappings are merged key by key, lists are replaced, and a
part of the model that names another `kind` is replaced as a whole. `--set section.key=value` comes last.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from translate.config.fields import all_keys, sections_at, takes_text
from translate.config.rules import conflicts
from translate.config.section import Section
from translate.config.settings import Config
from translate.config.strict_yaml import Items, Mapping, Node, Scalar, Source, parse_value, read_file, resolve
from translate.config.values import Values, kind_of, shown
from translate.errors import ConfigError, MissingInputError, UsageError

MAX_PROBLEMS = 20


class Override(NamedTuple):
    """One setting from the command line; `label` is what messages call it."""

    key: str
    text: str
    label: str

    @classmethod
    def parse(cls, argument: str) -> "Override":
        """Take apart the argument of `--set`. Raises UsageError."""
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key.strip()):
            raise UsageError(f"--set {shown(argument)}: expected section.key=value, such as --set train.lr=3e-4")
        return cls(key.strip(), text.strip(), f"--set {shown(argument)}")


def load_config(path: Path | None, overrides: Sequence[str | Override] = ()) -> Config:
    """Read a config file (None: only overrides) with the files it extends, and apply overrides in order.

    Relative file names start from the folder of the file they are written in, those in overrides from the working
    directory. Raises ConfigError with all problems, MissingInputError for a file that is not there.
    """
    parsed = [Override.parse(override) if isinstance(override, str) else override for override in overrides]
    name = str(path) if path is not None else "config"
    tree = _read_extended(path, name, ()) if path is not None else Mapping(Source(name, Path.cwd()), 0, {})
    if not tree.entries and not parsed:
        raise ConfigError(f"{name}: no settings; data.train and data.valid are required")
    values = Values()
    for override in parsed:
        _apply(override, tree, values)
    config = _config(values, tree)
    if values.problems or config is None:
        lines = list(dict.fromkeys(values.problems))
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"and {len(lines) - MAX_PROBLEMS} more problems"]
        raise ConfigError("\n".join(lines))
    return config


def run_path(config: Config, config_path: Path | None, run_option: Path | None) -> Path:
    """The run directory: what `--run` says, else `runs/NAME` under the working directory."""
    if run_option is not None:
        return run_option
    assert config_path is not None
    return Path("runs") / (config.name or config_path.stem)


def _config(values: Values, tree: Mapping) -> Config | None:
    """Build the config, and check that its settings go together; None if too much is missing for that."""
    settings = values.section(Config, tree, "")
    data = settings.get("data", {})
    if not data.get("train") or not data.get("valid"):
        return None
    config = Config.model_validate(settings)
    for conflict in list(conflicts(config)):
        if not any(values.is_bad(key) for key in conflict.keys):
            values.problem(_nearest(tree, conflict.keys), conflict.keys[0], conflict.problem)
    return config


def _nearest(tree: Mapping, keys: Sequence[str]) -> Node:
    """The node of the first of the keys that is written somewhere, or of the section it would stand in."""
    for key in keys:
        node, depth = _descend(tree, key)
        if depth == key.count(".") + 1:
            return node
    return _descend(tree, keys[0])[0]


def _descend(tree: Node, key: str) -> tuple[Node, int]:
    """The node of a key and how many parts of the key led there; as far as the tree goes."""
    node = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, Mapping) and part in node.entries:
            node = node.entries[part]
        elif isinstance(node, Items) and part.isdecimal() and int(part) < len(node.items):
            node = node.items[int(part)]
        else:
            return node, depth
    return node, len(parts)


def _read_extended(path: Path, name: str, children: tuple[Path, ...]) -> Mapping:
    """A file on top of the one it extends; `children` are the files that led here."""
    tree = read_file(path, name)
    extends = tree.entries.pop("extends", None)
    if extends is None:
        return tree
    chain = (*children, path.resolve())
    if not isinstance(extends, Scalar) or not isinstance(resolve(extends), str) or not extends.text:
        raise ConfigError(f"{extends.where}: extends: expected the name of one YAML file")
    base = path.parent / extends.text
    if base.resolve() in chain:
        raise ConfigError(f"{extends.where}: extends: {shown(extends.text)} leads back to a file that extends it")
    try:
        below = _read_extended(base, str(base), chain)
    except MissingInputError as error:
        raise ConfigError(f"{extends.where}: extends: {error}") from error
    _merge(below, tree, Config)
    return below


def _merge(below: Mapping, above: Mapping, section: type[Section] | None) -> None:
    """Lay one tree over another, in place; `section` is what they describe, if that is known."""
    for name, node in above.entries.items():
        old = below.entries.get(name)
        known = section.model_fields.get(name) if section is not None else None
        if not isinstance(node, Mapping) or not isinstance(old, Mapping):
            below.entries[name] = node
        elif known is None or not sections_at(known):
            _merge(old, node, None)
        elif "kind" in node.entries and kind_of(node, known) != kind_of(old, known):
            below.entries[name] = node  # another kind has other settings: it is described anew
        else:
            _merge(old, node, sections_at(known).get(kind_of(old, known)))


def _apply(override: Override, tree: Mapping, values: Values) -> None:
    """Put a value from the command line into the tree."""
    source = Source(override.label, Path.cwd())
    parts = override.key.split(".")
    node: Node = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, Mapping):
            if last:
                node.entries[part] = _override_value(override, source)
            else:
                node = node.entries.setdefault(part, Mapping(source, 0, {}))
        elif isinstance(node, Items) and part.isdecimal() and int(part) < len(node.items):
            if last:
                node.items[int(part)] = _override_value(override, source)
            else:
                node = node.items[int(part)]
        else:
            count = len(node.items) if isinstance(node, Items) else 0
            has = f"a list of {count}, counted from 0" if isinstance(node, Items) else "a single value"
            place = ".".join(parts[:depth])
            return values.problem(Node(source, 0), override.key, f"there is no such place: {place} is {has}")
    return None


def _override_value(override: Override, source: Source) -> Node:
    key = ".".join("N" if part.isdecimal() else part for part in override.key.split("."))
    known, text = all_keys().get(key), override.text
    if known is None and text[:1] in ("[", "{"):
        return parse_value(text, source)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return Scalar(source, 0, text[1:-1], quoted=True)
    # The shell has taken the quotes: in a text field everything is text, except null.
    return Scalar(source, 0, text, quoted=known is not None and takes_text(known) and text != "null")
