"""A strict subset of YAML: what is written is what is read, or there is a sentence about it.

Accepted: one UTF-8 document, at its root a mapping with words as keys. Refused: duplicate keys, anchors,
aliases, merge keys, tags, directives, tabs, control characters and the separators that only some readers take
for line ends, nesting deeper than 20, more than 1 MiB. PyYAML scans the text; no Python object is ever built
from it. Scalars stay text here, with a note whether they stood in quotes: `resolve` says what a plain one means.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from translate.errors import ConfigError, MissingInputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20

_FORBIDDEN = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,300})")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_AMBIGUOUS = re.compile(
    r"""(?xi)
      yes | no | on | off | y | n | true | false | null         # other readers: booleans and null
    | [-+]? \.? [0-9] [0-9_.,]* ( e [-+]? [0-9]* )?             # 010, 1_000, 1.2.3: numbers to somebody
    | [-+]? 0 [xob] [0-9a-f_]+                                  # hexadecimal, octal, binary
    | [-+]? [0-9]+ ( : [0-9]+ )+ (\.[0-9]*)?                    # 1:30, ninety to YAML 1.1
    | [0-9]{4} - [0-9]{1,2} - [0-9]{1,2} ( [tT\ ] .* )?         # a date
    | [-+]? \. ( inf | nan ) | =
    """
)

Value: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True)
class Source:
    """Where settings were written: its name for messages, and the folder that relative paths start from."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Node:
    """A piece of the tree; `line` is that of its key, 0 for what did not come from a file."""

    source: Source
    line: int

    @property
    def where(self) -> str:
        """The place in the form `file:line`."""
        return f"{self.source.name}:{self.line}" if self.line else self.source.name


@dataclass(frozen=True)
class Scalar(Node):
    """One value as it was written, without its quotes."""

    text: str
    quoted: bool


@dataclass(frozen=True)
class Items(Node):
    """A list."""

    items: list["Node"]


@dataclass(frozen=True)
class Mapping(Node):
    """Keys and what they stand for."""

    entries: dict[str, Node]


@dataclass(frozen=True)
class Ambiguous:
    """A plain scalar that different readers of YAML take for different things, such as `no`, `010` or `1:30`."""

    text: str


def resolve(scalar: Scalar) -> Value | Ambiguous:
    """Say what a scalar means: in quotes text; plain a boolean, null, a decimal number, text, or ambiguous."""
    text = scalar.text
    if scalar.quoted:
        return text
    if text in ("true", "false"):
        return text == "true"
    if text in ("null", "~", ""):
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return Ambiguous(text) if _AMBIGUOUS.fullmatch(text) else text


def read_file(path: Path, name: str) -> Mapping:
    """Read a config file; `name` is what messages call it.

    Raises MissingInputError if it is not a readable file and ConfigError if it is not in the subset.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            found = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise MissingInputError(f"{name}: is {found}, expected a YAML file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingInputError(f"{name}: no such config file") from error
    except OSError as error:
        raise MissingInputError(f"{name}: cannot be read: {error.strerror}") from error
    return parse(data, Source(name, path.absolute().parent))


def parse(data: bytes, source: Source) -> Mapping:
    """Parse the bytes of a config file; an empty one is an empty mapping. Raises ConfigError."""
    root = _parse_node(_checked_text(data, source), source)
    if root is None:
        return Mapping(source, 1, {})
    if not isinstance(root, Mapping):
        raise ConfigError(f"{root.where}: found {_kind(root)} at the top, expected settings in the form 'key: value'")
    return root


def parse_value(text: str, source: Source) -> Node:
    """Parse a value given on the command line, such as `[]` or `{src: a.de, tgt: a.en}`. Raises ConfigError."""
    node = _parse_node(_checked_text(text.encode("utf-8", "surrogateescape"), source), source, from_file=False)
    return Scalar(source, 0, "", False) if node is None else node


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, Items) else "a single value" if isinstance(node, Scalar) else "a mapping"


def _checked_text(data: bytes, source: Source) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source.name}: larger than {MAX_BYTES} bytes: this is not a config file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ConfigError(f"{source.name}:{line}: {found} is not UTF-8: save the file as UTF-8 text") from error
    text = text.replace("\r\n", "\n")
    if match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        found = "a tab" if match[0] == "\t" else f"the character U+{ord(match[0]):04X}"
        raise ConfigError(f"{source.name}:{line}: found {found} in column {column}, expected plain text and spaces")
    return text


def _parse_node(text: str, source: Source, from_file: bool = True) -> Node | None:
    """Build the tree of a text's only document, or None if there is none."""
    reader = _Reader(source, from_file)
    try:
        return reader.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source.name}:{mark.line + 1}" if mark is not None and from_file else source.name
        raise ConfigError(f"{place}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF" fails inside PyYAML
        raise ConfigError(f"{source.name}: not YAML: {error}") from error


class _Reader:
    """Turns PyYAML's events into nodes, refusing what is outside the subset."""

    def __init__(self, source: Source, from_file: bool) -> None:
        self.source = source
        self.from_file = from_file

    def line(self, event: yaml.Event) -> int:
        mark = event.start_mark
        return mark.line + 1 if mark is not None and self.from_file else 0

    def refuse(self, event: yaml.Event, problem: str) -> ConfigError:
        line = self.line(event)
        return ConfigError(f"{self.source.name}:{line}: {problem}" if line else f"{self.source.name}: {problem}")

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        """Read the whole stream: at most one document."""
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.refuse(event, "found a second document, expected one")
                if event.version or event.tags:
                    raise self.refuse(event, "found a directive (a line starting with %), which is not accepted")
                first = next(events)
                root = self.node(first, events, self.line(first), 0)
        empty = isinstance(root, Scalar) and not root.quoted and root.text == ""
        return None if empty else root

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], line: int, depth: int) -> Node:
        """Read the node that starts with `event`; `line` is where its key stands."""
        if depth > MAX_DEPTH:
            raise self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self.refuse(event, "anchors (&) and aliases (*) are not accepted: quote the text, or write it out")
        if getattr(event, "tag", None) is not None:
            raise self.refuse(event, "tags (!) are not accepted: quote the text, or leave the tag out")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self.node(event, events, self.line(event), depth + 1))
            return Items(self.source, line, items)
        return Mapping(self.source, line, self.entries(events, depth))

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        if match := _FORBIDDEN.search(event.value):  # made by an escape inside double quotes
            raise self.refuse(event, f"the value holds the character U+{ord(match[0]):04X}, expected plain text")
        return Scalar(self.source, line, event.value, quoted=event.style is not None)

    def entries(self, events: Iterator[yaml.Event], depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key, line = self.key(event), self.line(event)
            if key in entries:
                places = f" (first in line {lines[key]})" if line else ""
                raise self.refuse(event, f"the key '{key}' is given twice{places}: remove one")
            lines[key] = line
            entries[key] = self.node(next(events), events, line, depth + 1)
        return entries

    def key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise self.refuse(event, "found a key that is not a word, expected a setting's name")
        if event.value == "<<":
            raise self.refuse(event, "merge keys (<<) are not accepted: use 'extends: other.yaml', or write it out")
        scalar = self.scalar(event, 0)
        if scalar.text == "" or not isinstance(resolve(scalar), str):
            raise self.refuse(event, f"found the key '{scalar.text}', expected a setting's name")
        return scalar.text
