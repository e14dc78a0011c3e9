"""Hypotheses in the run, each file with a record of what it was made from: the same again is not translated again."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from translate.bar import Bar
from translate.durable import digest_bytes, digest_file, durable_json, durable_write
from translate.stages.sharing import SharedTranslator


@dataclass(frozen=True)
class Translated:
    """Hypotheses in the run: what they were made from, what they are, and how long it took."""

    made_from: str
    sha256: str
    sentences: int
    failed: list[int]
    seconds: float


def earlier_hyps(path: Path, made_from: str) -> Translated | None:
    """Hypotheses made before from the same inputs."""
    value = read_json(_record(path))
    try:
        translated = Translated(**value) if value is not None else None
    except TypeError:  # edited, or from another version
        return None
    if translated is None or translated.made_from != made_from or not intact(path, translated.sha256):
        return None
    return translated


def translate_into(
    path: Path, made_from: str, src: Sequence[str], translator: SharedTranslator, bar: Bar
) -> Translated:
    """Translate a corpus into a file of hypotheses; of several processes the first writes."""
    started = time.monotonic()
    failed, hyps = [], []
    for line, translations in enumerate(translator.translate(src), start=1):
        hyps.append(translations[0].text)
        if not translations[0].found:
            failed.append(line)
        bar.advance(1)
    data = "".join(f"{hyp}\n" for hyp in hyps).encode()
    if translator.ranks.first:
        durable_write(path, data)
    seconds = round(time.monotonic() - started, 3)
    translated = Translated(made_from, digest_bytes(data), len(hyps), failed, seconds)
    if translator.ranks.first:
        durable_json(_record(path), asdict(translated))
    return translated


def _record(hyps: Path) -> Path:
    return hyps.with_name(f"{hyps.name}.json")


def intact(path: Path, sha256: str) -> bool:
    """Whether a file is there as it was written."""
    return path.is_file() and digest_file(path) == sha256


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of ours; None when it is not there or not readable, so that it is made anew."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
