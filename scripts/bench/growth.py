"""Does more text cost more than its share? The same training on 10,000 pairs and on ten million, in turns.

    python scripts/bench/growth.py SRC TGT --work DIR [--sizes 10000 100000 1000000 10000000] [--seconds 60]

The corpora are made of the text given: as it is, then again and again with a few words of each line exchanged for
others of the text, so that hardly two pairs are alike. The same seed makes the same text. All are cut into pieces by
the tokenizer of the largest, or their sentences would differ in length. DIR/SIZE gets the text of a size and a run.
`translate tokenize` is timed, with the most memory that all its processes held together; `translate
train` is started, with nothing of its files in the system's cache, and timed up to its first update. All trainings stay
alive and take turns (see README.md), so that what slows the machine down slows all of them down. What is counted as
memory of training is what belongs to the process alone (RssAnon); the pages of the arrays that it has looked at
(RssFile) belong to the system, which takes them back when it needs them. At the end a table is printed, in Markdown.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contestant import Contestant, Process
from ours import NEVER, ROOT, logged
from ratios import paired

from translate.run import RunDirectory
from translate.text.encoded import read_manifest
from translate.text.lines import read_lines

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
CHANGED = 2
"""Words of each side that are exchanged when a pair is used again."""
VALID = 200
"""Pairs kept apart for validation, which does not take place; a run needs some."""
WARM_UP = 2
"""Turns that are not counted."""
LEAST_UPDATES = 2
"""Of a turn."""
SAMPLED = 0.1
"""Seconds between two looks at the memory of tokenize."""
MEGA = 1e6


@dataclass
class Growth:
    """One size, and what was measured with it."""

    pairs: int
    folder: Path
    tokenize_seconds: float = 0.0
    tokenize_bytes: int = 0
    start_seconds: float = 0.0
    memory: list[tuple[int, int]] = field(default_factory=list)
    """RssAnon and RssFile in bytes after the first update and after each turn."""
    rates: list[float] = field(default_factory=list)
    """Real target tokens a second in each counted turn."""

    @property
    def run(self) -> RunDirectory:
        """The run that is trained."""
        return RunDirectory(self.folder / "run")

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.folder / "config.yaml"


def perturbed(line: str, words: Sequence[str], draw: random.Random) -> str:
    """A line with CHANGED of its words exchanged, or fewer if it has no more."""
    changed = line.split()
    for place in draw.sample(range(len(changed)), min(CHANGED, len(changed))):
        changed[place] = words[int(draw.random() * len(words))]
    return " ".join(changed)


def grown(pairs: Sequence[tuple[str, str]], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """`count` pairs: those given, then the same perturbed, as often as it takes; fewer are the first of more."""
    draw = random.Random(seed)
    src_words, tgt_words = ([word for line in side for word in line.split()] for side in zip(*pairs, strict=True))
    for i in range(count):
        src, tgt = pairs[i % len(pairs)]
        if i >= len(pairs):
            src, tgt = perturbed(src, src_words, draw), perturbed(tgt, tgt_words, draw)
        yield src, tgt


def write_text(src: Path, tgt: Path, growths: Sequence[Growth], seed: int) -> None:
    """Write the text of every size."""
    both = zip(read_lines(src), read_lines(tgt), strict=True)
    pairs = list(dict.fromkeys(pair for pair in both if pair[0].strip() and pair[1].strip()))
    kept_apart = min(VALID, len(pairs) // 10)
    valid, pairs = pairs[:kept_apart], pairs[kept_apart:]
    with contextlib.ExitStack() as stack:
        files = []
        for growth in growths:
            growth.folder.mkdir(parents=True)
            for k, side in enumerate(("src", "tgt")):
                (growth.folder / f"valid.{side}").write_text(
                    "".join(f"{pair[k]}\n" for pair in valid), encoding="utf-8"
                )
            opened = [
                (growth.folder / f"train.{side}").open("w", encoding="utf-8", newline="\n") for side in ("src", "tgt")
            ]
            files.append((growth.pairs, [stack.enter_context(file) for file in opened]))
        for i, pair in enumerate(grown(pairs, max(growth.pairs for growth in growths), seed)):
            for count, sides in files:
                if i < count:
                    for line, file in zip(pair, sides, strict=True):
                        file.write(f"{line}\n")


def write_config(growth: Growth, threads: int, model: dict[str, Any], tokenizer: Path | None) -> None:
    """JSON, which is YAML. Nothing is validated or saved meanwhile. Without a tokenizer it trains one."""
    corpora = {split: [{side: f"{split}.{side}" for side in ("src", "tgt")}] for split in ("train", "valid")}
    never = dict.fromkeys(("max_steps", "validate_every", "save_every", "save_minutes"), NEVER)
    train = {**never, "threads": threads, "log_every": 1}
    settings: dict[str, Any] = {"device": "cpu", "data": corpora, "model": model, "train": train}
    if tokenizer is not None:
        settings["tokenizer"] = {"model": str(tokenizer)}
    growth.config.write_text(json.dumps(settings), encoding="utf-8")


def command(name: str, growth: Growth) -> list[str]:
    """A command of the package, after the interpreter."""
    return ["-m", "translate", name, "--config", str(growth.config), "--run", str(growth.run.root)]


def tokenize(growth: Growth) -> None:
    """Run `translate tokenize` and watch its processes."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (growth.folder / "tokenize.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command("tokenize", growth)], stdout=log, stderr=log, env=environment
        )
        while process.poll() is None:
            held = sum(resident(one)[0] for one in family(process.pid))
            growth.tokenize_bytes = max(growth.tokenize_bytes, held)
            time.sleep(SAMPLED)
    growth.tokenize_seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"tokenize failed, see {growth.folder / 'tokenize.log'}")


def family(process: int) -> list[int]:
    """A process and all it has started."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    found = [process]
    for one in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == one]
    return found


def resident(process: int) -> tuple[int, int]:
    """RssAnon and RssFile of a process in bytes; 0 when it has ended."""
    sizes = {"RssAnon": 0, "RssFile": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").split("\n"):
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) * 1024
    return sizes["RssAnon"], sizes["RssFile"]


def forget(folder: Path) -> None:
    """Ask the system to drop what it holds of all files in a folder, so that they are read from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(growth: Growth, threads: int) -> Process:
    """Start `translate train`, and wait for the first update."""
    log = growth.run.log_file
    line = [sys.executable, *command("train", growth)]
    contestant = Contestant(str(growth.pairs), line, lambda _: logged(log), environment={"PYTHONPATH": str(ROOT)})
    forget(growth.folder)
    began = time.perf_counter()
    process = Process(contestant, threads, growth.folder).start()
    growth.start_seconds = time.perf_counter() - began
    growth.memory.append(resident(process.process.pid))
    return process


def train(growths: Sequence[Growth], threads: int, turn: float, rounds: int) -> None:
    """Let all sizes train in turns; who begins changes from round to round."""
    with contextlib.ExitStack() as stack:
        processes = []
        for growth in growths:
            processes.append(start(growth, threads))
            stack.callback(processes[-1].stop)
            say(f"{growth.pairs:,} pairs: first update after {growth.start_seconds:.1f} s")
        turns: list[list[Any]] = [[] for _ in growths]
        for number in range(WARM_UP + rounds):
            for i in range(len(growths)):
                i = (i + number) % len(growths)
                turns[i].append(processes[i].turn(turn, LEAST_UPDATES))
                growths[i].memory.append(resident(processes[i].process.pid))
        for process in processes:  # one more update, before which all that was counted is written down
            process.turn(0.0, 1)
        for growth, process, taken in zip(growths, processes, turns, strict=True):
            tokens = process.tokens()
            counted = taken[WARM_UP:]
            growth.rates = [sum(tokens[n] for n in range(t.first, t.last + 1)) / t.seconds for t in counted]


def table(growths: Sequence[Growth]) -> str:
    """All figures in Markdown."""
    head = (
        "pairs", "kept", "arrays, MB", "tokenize, s", "its memory, MB", "start, s", "RssAnon, MB: warm",
        "last", "RssFile, MB", "tokens/s", "times the first",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{' ---: |' * len(head)}"]
    for growth in growths:
        manifest = read_manifest(growth.run)
        assert manifest is not None
        split = manifest["splits"]["train"]
        (anon, _), (last_anon, file) = growth.memory[WARM_UP], growth.memory[-1]
        cells = (
            f"{growth.pairs:,}", f"{sum(corpus['kept'] for corpus in split['corpora']):,}",
            f"{sum(known['bytes'] for known in split['files'].values()) / MEGA:,.0f}",
            f"{growth.tokenize_seconds:,.0f}", f"{growth.tokenize_bytes / MEGA:,.0f}", f"{growth.start_seconds:.1f}",
            f"{anon / MEGA:,.0f}", f"{last_anon / MEGA:,.0f}", f"{file / MEGA:,.0f}",
            f"{sum(growth.rates) / len(growth.rates):,.0f}", str(paired(growth.rates, growths[0].rates)),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell how far it is, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Make the text, tokenize it, train on it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("src", type=Path)
    parser.add_argument("tgt", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="an empty or new directory; 10 GB for the usual sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seconds", type=float, default=60.0, help="counted training time of each size")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds of a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=256, help="of the Transformer that is trained")
    arguments = parser.parse_args()
    if arguments.work.exists() and any(arguments.work.iterdir()):
        parser.error(f"{arguments.work} is not empty; what lies there might be measured instead")
    growths = [Growth(pairs, arguments.work.resolve() / str(pairs)) for pairs in sorted(arguments.sizes)]
    write_text(arguments.src, arguments.tgt, growths, arguments.seed)
    part = {"kind": "transformer", "width": arguments.width, "dropout": 0.1}
    tokenizer: Path | None = None
    for growth in reversed(growths):
        write_config(growth, arguments.threads, {"encoder": part, "decoder": part, "tie": "all"}, tokenizer)
        tokenize(growth)
        tokenizer = tokenizer or growth.run.tokenizer / "joint.model"
        say(f"{growth.pairs:,} pairs: tokenized in {growth.tokenize_seconds:.0f} s")
    rounds = max(3, round(arguments.seconds / arguments.turn))
    train(growths, arguments.threads, arguments.turn, rounds)
    print(table(growths))


if __name__ == "__main__":
    main()
