"""`translate train` as a user runs it, in bf16 or fp32: what is chosen by measuring is left to the measurement."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from contestant import Contestant, Kind
from shared_text import SharedText

ROOT = Path(__file__).resolve().parents[2]
NEVER = 10**9
NAMES = {"bf16": "ours, bf16", "fp32": "ours, fp32"}


def ours(text: SharedText, kind: Kind, precision: Literal["fp32", "bf16"], threads: int, folder: Path) -> Contestant:
    """The package in this working tree; nothing is validated, drawn or saved meanwhile."""
    run = folder / f"ours-{precision}"
    config = folder / f"ours-{precision}.yaml"
    config.write_text(json.dumps(settings(text, kind, precision, threads)), encoding="utf-8")
    command = [sys.executable, "-m", "translate", "train", "--config", str(config), "--run", str(run)]
    environment = {"PYTHONPATH": str(ROOT)}
    return Contestant(NAMES[precision], command, lambda _: logged(run / "log.jsonl"), precision, (), environment)


def settings(text: SharedText, kind: Kind, precision: Literal["fp32", "bf16"], threads: int) -> dict[str, Any]:
    """The config, as JSON, which is YAML."""
    corpora = {split: [{side: str(text.lines(side, split)) for side in ("src", "tgt")}] for split in ("train", "valid")}
    part: dict[str, Any] = {"kind": kind, "dropout": 0.1}
    if kind == "rnn":
        part |= {"width": 512, "embedding": 256}
    never = dict.fromkeys(("max_steps", "validate_every", "save_every", "save_minutes"), NEVER)
    return {
        "device": "cpu",
        "data": {**corpora, "cleaning": {"keep_duplicates": True, "max_ratio": 1000.0}},
        "tokenizer": {"model": str(text.model)},
        "model": {"encoder": part, "decoder": part, "tie": "all" if kind == "transformer" else "none"},
        "train": {**never, "precision": precision, "threads": threads, "update_tokens": 4096, "log_every": 1},
    }


def logged(log: Path) -> Mapping[int, int]:
    """The event log -> real target tokens of each update."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n")[:-1]]
    totals = {event["step"]: event["tokens"] for event in events if event["event"] == "update"}
    return {step: total - totals.get(step - 1, 0) for step, total in totals.items()}
