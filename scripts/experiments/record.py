"""What an experiment has found so far: results.json, entry by entry, with when and on which machine."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from translate.durable import durable_json

Result = dict[str, Any]


class Record:
    """Results by name. An entry counts only for what it was made from: with other settings it is made anew."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: dict[str, Result] = {}
        if file.exists():
            self.entries = json.loads(file.read_text(encoding="utf-8"))

    @classmethod
    def of(cls, runs: Path, experiment: str) -> "Record":
        """The record of an experiment whose runs lie under `runs`."""
        return cls(runs / experiment / "results.json")

    def find(self, name: str, made_from: object = None) -> Result | None:
        """A finished entry; with `made_from` only one that was made from the same."""
        entry = self.entries.get(name)
        if entry is None or (made_from is not None and entry["made_from"] != _plain(made_from)):
            return None
        return entry

    def put(self, name: str, made_from: object, result: Mapping[str, Any]) -> Result:
        """Write an entry down, durably, before the next one is begun."""
        stamp = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
        self.entries[name] = {"made_from": _plain(made_from), **result, **stamp}
        durable_json(self.file, self.entries)
        return self.entries[name]


def _plain(value: object) -> Any:
    """What JSON makes of a value, so that it can be compared with what was read."""
    return json.loads(json.dumps(value))


def machine() -> str:
    """Processor and cores of this machine."""
    return f"{_processor()}, {cores()} cores"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    for line in facts.read_text(encoding="utf-8").split("\n") if facts.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
