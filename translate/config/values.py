"""A tree of text becomes the values of the settings' classes; everything wrong with it is collected on the way."""

import difflib
import os.path
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic.fields import FieldInfo

from translate.config.fields import (
    accepts,
    all_keys,
    default_kind,
    expected,
    is_file,
    item_section,
    sections_at,
    takes_integral,
    takes_text,
)
from translate.config.section import Section
from translate.config.settings import Config, CorpusConfig
from translate.config.strict_yaml import Ambiguous, Items, Mapping, Node, Scalar, resolve


def shown(text: str, limit: int = 60) -> str:
    """Text from outside as it may stand in a message: no control characters, and not a page of it."""
    safe = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:limit])
    return safe + ("..." if len(text) > limit else "")


def kind_of(node: Mapping, known: FieldInfo) -> str:
    """The kind of a part of the model: what is written, or the default; '' where there is no choice."""
    kind = node.entries.get("kind")
    if len(sections_at(known)) < 2:
        return ""
    return kind.text if isinstance(kind, Scalar) else default_kind(known)


@dataclass
class Values:
    """The values read so far are returned; `problems` are lines for the user, `bad` the keys they are about."""

    problems: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def problem(self, node: Node, key: str, text: str) -> None:
        """Note what is wrong, and where."""
        self.problems.append(f"{node.where}: {key}: {text}" if key else f"{node.where}: {text}")
        self.bad.append(key)

    def is_bad(self, key: str) -> bool:
        """Whether something was wrong with a key, with what is inside it, or with what it is inside of."""
        return any(f"{key}.".startswith(f"{bad}.") or f"{bad}.".startswith(f"{key}.") for bad in self.bad)

    def section(self, section: type[Section], node: Node, path: str) -> dict[str, Any]:
        """The values of a section, those with problems left out; `path` is empty or ends in a dot."""
        if not isinstance(node, Mapping):
            self.problem(node, path[:-1], f"found {found(node)}, expected a mapping with its own keys")
            return {}
        values: dict[str, Any] = {}
        for name, child in node.entries.items():
            known = section.model_fields.get(name)
            if known is None:
                self._unknown(section, name, child, path, node)
                continue
            if _is_dataset_name(section, name, node):
                known = section.model_fields["name"]
            count = len(self.problems)
            value = self._value(known, child, f"{path}{name}")
            if len(self.problems) == count or isinstance(value, dict | list):
                values[name] = value
        for name, known in section.model_fields.items():
            if known.is_required() and name not in node.entries:
                self.problem(node, f"{path}{name}", f"missing: expected {expected(known)}")
        return values

    def _value(self, known: FieldInfo, node: Node, key: str) -> Any:
        if item := item_section(known):
            return self._list(known, item, node, key)
        kinds = sections_at(known)
        if not kinds:
            return self._scalar(known, node, key)
        if len(kinds) == 1:
            return self.section(kinds[""], node, f"{key}.")
        kind = kind_of(node, known) if isinstance(node, Mapping) else default_kind(known)
        if isinstance(node, Mapping) and kind not in kinds:
            written = node.entries["kind"]
            self.problem(written, f"{key}.kind", f"found {found(written)}, expected one of {', '.join(kinds)}")
            return {"kind": default_kind(known)}
        # The classes need the kind to choose by; where none is written it is the default's.
        return {"kind": kind, **self.section(kinds[kind], node, f"{key}.")}

    def _list(self, known: FieldInfo, item: type[Section], node: Node, key: str) -> list[dict[str, Any]]:
        if not isinstance(node, Items):
            self.problem(node, key, f"found {found(node)}, expected {expected(known)}")
            return []
        if not node.items and known.is_required():
            self.problem(node, key, f"found an empty list, expected {expected(known)}")
        return [self.section(item, child, f"{key}.{index}.") for index, child in enumerate(node.items)]

    def _scalar(self, known: FieldInfo, node: Node, key: str) -> Any:
        """The value of a setting, judged by the type and range of its field."""
        if not isinstance(node, Scalar):
            self.problem(node, key, f"found {found(node)}, expected {expected(known)}")
            return None
        value = resolve(node)
        if takes_text(known) and value is not None and not isinstance(value, str):
            self.problem(node, key, f"found {found(node)}, expected text: quote it, as in '{shown(node.text)}'")
            return None
        if isinstance(value, float) and value.is_integer() and takes_integral(known):
            value = int(value)
        if isinstance(value, Ambiguous) or not accepts(known, value):
            self.problem(node, key, f"found {found(node)}, expected {expected(known)}")
        elif isinstance(value, str) and is_file(known):
            if not value:
                self.problem(node, key, "found an empty name, expected the name of a file")
            return os.path.normpath(node.source.folder / value)
        return value

    def _unknown(self, section: type[Section], name: str, node: Node, path: str, parent: Mapping) -> None:
        key = f"{path}{shown(name)}"
        kinds = _other_kind(section, name)
        if kinds is None:
            return self.problem(node, key, f"unknown key{_suggestion(section, name)}")
        written = parent.entries.get("kind")
        where = f" ({written.where})" if written is not None else ""
        return self.problem(
            node,
            key,
            f"a setting of kind {kinds[1]}, but the kind is {kinds[0]}{where}: remove it, "
            "or describe this part anew in a file that extends this one",
        )


def found(node: Node) -> str:
    """What is written, for a message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    assert isinstance(node, Scalar)
    if node.quoted and node.line:
        return f"the text '{shown(node.text)}'"
    return shown(node.text) or "nothing"


def _is_dataset_name(section: type[Section], name: str, node: Mapping) -> bool:
    """Whether `file` is the name of a dataset on the hub rather than a file here."""
    stored_as = node.entries.get("format")
    return section is CorpusConfig and name == "file" and isinstance(stored_as, Scalar) and stored_as.text == "hub"


def _other_kind(section: type[Section], name: str) -> tuple[str, str] | None:
    """The kind of model part that a section belongs to, and the one that has a setting which this one has not."""
    for siblings in _siblings(Config):
        for own in (kind for kind, one in siblings.items() if one is section):
            for kind, other in siblings.items():
                if name in other.model_fields:
                    return own, kind
    return None


def _siblings(section: type[Section]) -> Iterator[dict[str, type[Section]]]:
    """The sections of which one stands in the same place as the others, by the kind that decides which."""
    for known in section.model_fields.values():
        kinds = sections_at(known)
        if known.discriminator is not None:
            yield kinds
            for name in dict.fromkeys(name for child in kinds.values() for name in child.model_fields):
                parts = {kind: child.model_fields.get(name) for kind, child in kinds.items()}
                inner = {kind: sections_at(part).get("") for kind, part in parts.items() if part is not None}
                yield {kind: part for kind, part in inner.items() if part is not None}
        for child in kinds.values():
            yield from _siblings(child)


def _suggestion(section: type[Section], name: str) -> str:
    """What an unknown key may have meant: the same word in another section, or a known one like it."""
    keys = all_keys()
    if elsewhere := [key for key in keys if key.rpartition(".")[2] == name]:
        return f" (did you mean {' or '.join(elsewhere[:3])}?)"
    if near := difflib.get_close_matches(name, section.model_fields, n=1, cutoff=0.6):
        return f" (did you mean {near[0]}?)"
    words = {key.rpartition(".")[2]: key for key in reversed(keys)}
    if near := difflib.get_close_matches(name, words, n=1, cutoff=0.75):
        return f" (did you mean {words[near[0]]}?)"
    return f"; the keys here are {', '.join(section.model_fields)}"
