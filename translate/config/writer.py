"""Settings back into YAML: the resolved tree that every run keeps, and the commented reference of all keys."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from translate.config.fields import default_kind, expected, item_section, sections_at
from translate.config.section import Section
from translate.config.settings import Config
from translate.config.strict_yaml import Scalar, Source, resolve

_SAFE = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")
_REFUSED_RAW = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_NOWHERE = Source("", Path())

EXAMPLE_CORPUS = "../data/quickstart/{split}.{language}"
EXAMPLE_STEPS = 10000
"""What the reference has to set because there is no default: the text, and when to stop."""


def dump_config(config: Config) -> str:
    """The whole config as YAML, every default written out; `load_config` reads it back as an equal object."""
    return "\n".join(_dump(config, "")) + "\n"


def scalar_text(value: bool | int | float | str | None) -> str:
    """One value in the form that the strict reader takes for exactly this value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if _SAFE.fullmatch(value) and resolve(Scalar(_NOWHERE, 0, value, quoted=False)) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _REFUSED_RAW.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _dump(section: Section, indent: str) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _dump(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}:" if value else f"{indent}{name}: []"
            for item in value:
                yield from _dump_item(item, indent + "  ")
        else:
            yield f"{indent}{name}: {scalar_text(value)}"


def _dump_item(item: Section, indent: str) -> Iterator[str]:
    """One item of a list; what is not set and has no default is left out, for it would be most of the lines."""
    lines = [line for line in _dump(item, indent + "  ") if not line.endswith(": null")]
    yield f"{indent}- {lines[0].strip()}"
    yield from lines[1:]


def reference_text() -> str:
    """A sound YAML config with every key, its meaning and what may stand in it, at its default."""
    head = (
        "Every setting with its meaning and its default, made from translate/config/settings.py by "
        "scripts/reference_config.py. A config needs only what differs from here; `extends: other.yaml` at its top "
        "takes the rest from another file. A relative path starts from the folder of the file it is written in."
    )
    return "\n".join([*_comment(head, ""), "", *_reference(Config, "", "")]) + "\n"


def _reference(section: type[Section], path: str, indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = f"{path}{name}"
        kinds = sections_at(field)
        if not indent and (kinds or item_section(field)):
            yield ""
        yield from _comment(_meaning(field), indent)
        if item := item_section(field):
            yield f"{indent}{name}:"
            yield from _reference_item(item, key, indent + "  ")
        elif kinds:
            yield from _reference_kinds(name, field, kinds, key, indent)
        else:
            default = EXAMPLE_STEPS if key == "train.max_steps" else field.get_default()
            yield f"{indent}{name}: {scalar_text(default)}"


def _reference_kinds(
    name: str, field: FieldInfo, kinds: Mapping[str, type[Section]], key: str, indent: str
) -> Iterator[str]:
    """A section that has kinds: the default one, and the others as comments that can be uncommented."""
    chosen = default_kind(field)
    yield f"{indent}{name}:"
    yield from _reference(kinds[chosen], f"{key}.", indent + "  ")
    for kind, other in kinds.items():
        if kind != chosen:
            yield f"{indent}# {name}:"
            for line in _reference(other, f"{key}.", "  "):
                yield f"{indent}# {line}"


def _reference_item(item: type[Section], key: str, indent: str) -> Iterator[str]:
    """An example of a list's item: the first list shows every key, the ones after it only what they need."""
    split = key.rpartition(".")[2]
    src, tgt = (EXAMPLE_CORPUS.format(split=split, language=language) for language in ("ko", "en"))
    if key != "data.train":
        yield f"{indent}- src: {src}"
        yield f"{indent}  tgt: {tgt}"
        return
    dash = "- "
    for name, field in item.model_fields.items():
        default = src if name == "src" else tgt if name == "tgt" else field.get_default()
        comment = list(_comment(_meaning(field), indent + "  "))
        yield from comment if dash != "- " else _comment(_meaning(field), indent)
        yield f"{indent}{dash}{name}: {scalar_text(default)}"
        dash = "  "


def _meaning(field: FieldInfo) -> str:
    words = " ".join((field.description or "").split())
    return words if sections_at(field) or item_section(field) else f"{words} [{expected(field)}]"


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(text, 110 - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def as_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for editors."""
    schema = Config.model_json_schema()
    schema["properties"] = {"extends": {"type": "string", "description": "Another config to take the rest from."}} | (
        schema["properties"]
    )
    return schema
