"""The settings as a table: which keys there are and what may stand in each, read off the classes of settings.py."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from translate.config.section import FILE, Section
from translate.config.settings import Config


def sections_at(field: FieldInfo) -> dict[str, type[Section]]:
    """The sections that may stand in a field, by kind; one that has no kinds stands under ''. Empty for a value."""
    classes = [arg for arg in _choices(field.annotation) if isinstance(arg, type) and issubclass(arg, Section)]
    if field.discriminator is None:
        return {"": classes[0]} if classes else {}
    return {section.model_fields["kind"].default: section for section in classes}


def default_kind(field: FieldInfo) -> str:
    """The kind of section that stands in a field when none is named."""
    return field.get_default().kind if field.discriminator is not None else ""


def item_section(field: FieldInfo) -> type[Section] | None:
    """The section that each item of a list field is, or None for another field."""
    return get_args(field.annotation)[0] if get_origin(field.annotation) is list else None


def is_file(field: FieldInfo) -> bool:
    """Whether the field names a file or directory."""
    return any(FILE in get_args(arg)[1:] for arg in [field.annotation, *get_args(field.annotation)]) or (
        FILE in field.metadata
    )


def takes_text(field: FieldInfo) -> bool:
    """Whether any text may stand in the field, as opposed to one of a few words."""
    return str in _choices(field.annotation)


def takes_integral(field: FieldInfo) -> bool:
    """Whether whole numbers may stand in the field and fractions may not."""
    choices = _choices(field.annotation)
    return int in choices and float not in choices


def accepts(field: FieldInfo, value: Any) -> bool:
    """Whether a value has the field's type and lies in its range."""
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[(annotation, *field.metadata)]
    checker = TypeAdapter[Any](annotation, config={"strict": True, "allow_inf_nan": False})
    try:
        checker.validate_python(value)
    except ValidationError:
        return False
    return True


def expected(field: FieldInfo) -> str:
    """Say in words what may stand in a field: `a whole number, at least 1, or auto`."""
    if section := item_section(field):
        return f"a list of {section.__name__.removesuffix('Config').lower()} descriptions, each with its own keys"
    if sections_at(field):
        return "a mapping with its own keys"
    return _expected(field.annotation, field.metadata)


def _expected(annotation: Any, metadata: list[Any]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _expected(args[0], [*metadata, *args[1:]])
    if origin in (Union, types.UnionType):
        return ", or ".join("null" if arg is type(None) else _expected(arg, metadata) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(args)}" if len(args) > 1 else str(args[0])
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[annotation]
    return words if annotation in (bool, str) else ", ".join([words, *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from _bounds(entry.metadata)
        for name, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
            bound = getattr(entry, name, None)
            if bound is not None and bound < 2**53:  # beyond that a number is out of reach, not out of range
                yield f"{words} {bound:g}" if isinstance(bound, float) else f"{words} {bound}"


def _choices(annotation: Any) -> list[Any]:
    """The plain types an annotation allows, unions and Annotated taken apart."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _choices(args[0])
    if origin in (Union, types.UnionType):
        return [choice for arg in args for choice in _choices(arg)]
    return [annotation]


def all_keys(section: type[Section] = Config, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting by dotted key, whatever the kinds; an item of a list stands under `N`: `data.train.N.src`."""
    keys: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        inner = list(sections_at(field).values())
        key = f"{prefix}{name}"
        if item := item_section(field):
            inner, key = [item], f"{key}.N"
        for child in inner:
            for child_key, child_field in all_keys(child, f"{key}.").items():
                keys.setdefault(child_key, child_field)
        if not inner:
            keys[key] = field
    return keys
