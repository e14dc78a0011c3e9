"""How fast is training here, next to a loop as one would write it and to other toolkits? All take turns on one text.

    python scripts/bench/train.py SRC TGT [--seconds 60] [--threads 1 2] [--kinds transformer rnn] [--peer NAME=PYTHON]

See README.md beside this file for what is compared and how.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contestant import Contestant, Kind, NotRunning, Process
from flops import RnnShape, TransformerShape
from ours import ours
from peers import PEERS, Setting, is_installed, peer, stock
from shared_text import SharedText, share
from table import Result, table, verdict

KINDS: dict[Kind, str] = {
    "transformer": "Transformer d256, feed-forward 1024, 4 heads, 3 + 3 layers, one matrix for all words",
    "rnn": "RNN: LSTM 2 x 256 in both directions, LSTM 512 with general attention and input feeding, embedding 256",
}
WARM_UP = 2
"""Turns that are not counted."""
LEAST_TURNS = 3
LEAST_UPDATES = 2
"""Of a turn."""
QUIET = 0.5
"""Load average above which figures are worth little."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    src: Path
    tgt: Path
    seconds: float
    turn: float
    threads: Sequence[int]
    kinds: Sequence[Kind]
    peers: dict[str, str]
    """Python of each peer."""
    folder: Path

    @property
    def turns(self) -> int:
        """Counted turns of each contestant."""
        return max(LEAST_TURNS, math.ceil(self.seconds / self.turn))


def contestants(text: SharedText, kind: Kind, threads: int, folder: Path, options: Options) -> Iterator[Contestant]:
    """Who takes part: ours twice, the stock loop, and every peer that is installed."""
    yield ours(text, kind, "bf16", threads, folder)
    yield ours(text, kind, "fp32", threads, folder)
    yield stock(text, kind, folder)
    for name in PEERS:
        python = options.peers.get(name, sys.executable)
        if not is_installed(name, python):
            say(f"{name}: skipped, not installed for {python}; name a Python that has it: --peer {name}=PYTHON")
        elif (found := peer(name, Setting(text, kind, python, folder / name))) is None:
            say(f"{name}: skipped, it has no such model")
        else:
            yield found


def contest(text: SharedText, kind: Kind, threads: int, folder: Path, options: Options) -> list[Result]:
    """Start everybody, let them take turns, and say what came out. Whoever fails is left out, with a line."""
    folder.mkdir()
    running: list[Process] = []
    try:
        for contestant in contestants(text, kind, threads, folder, options):
            attempt(running, Process(contestant, threads, folder))
        for number in range(WARM_UP + options.turns):
            for process in order(running, number):
                take_turn(running, process, options.turn)
        for process in list(running):  # one more update, before which all that was counted is written down
            take_turn(running, process, 0.0)
        return [result for process in running if (result := measured(process, kind, text, options)) is not None]
    finally:
        for process in running:
            process.stop()


def attempt(running: list[Process], process: Process) -> None:
    """Start one, if it can be."""
    began = time.monotonic()
    try:
        running.append(process.start())
    except NotRunning as error:
        say(f"left out: {error}")
        return
    say(f"{process.contestant.name}: ready after {time.monotonic() - began:.0f} s")


def take_turn(running: list[Process], process: Process, seconds: float) -> None:
    """Let one compute; if it does not come back, go on without it."""
    try:
        process.turns.append(process.turn(seconds, LEAST_UPDATES if seconds else 1))
    except NotRunning as error:
        say(f"left out: {error}")
        running.remove(process)
        process.stop()


def order(running: Sequence[Process], number: int) -> list[Process]:
    """Everybody once, each round beginning with another, every second round the other way round."""
    start = number // 2 % len(running)
    turned = [*running[start:], *running[:start]]
    return turned if number % 2 else turned[::-1]


def measured(process: Process, kind: Kind, text: SharedText, options: Options) -> Result | None:
    """What the turns that count come to; None, with a line, if it kept its tokens to itself."""
    tokens, contestant = process.tokens(), process.contestant
    turns = process.turns[WARM_UP : WARM_UP + options.turns]
    if untold := set(range(turns[0].first, turns[-1].last + 1)) - tokens.keys():
        say(f"left out: {contestant.name}: does not tell the tokens of update {min(untold)}, see {process.log}")
        return None
    learnt = [sum(tokens[update] for update in range(turn.first, turn.last + 1)) for turn in turns]
    updates = sum(turn.last - turn.first + 1 for turn in turns)
    shape = TransformerShape() if kind == "transformer" else RnnShape(output=contestant.output)
    return Result(
        contestant.name,
        contestant.precision,
        [count / turn.seconds for count, turn in zip(learnt, turns, strict=True)],
        sum(learnt) / updates,
        process.peak_memory(),
        shape.flops(text.src_lengths, text.tgt_lengths, text.vocabulary),
        [turn.others for turn in turns],
    )


def ceilings(threads: int) -> dict[str, float]:
    """GFLOP/s by number format, measured in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, str(Path(__file__).with_name("ceiling.py"))]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, float] = json.loads(out)
    return found


def report(text: SharedText, kind: Kind, threads: int, options: Options, folder: Path) -> None:
    """One contest from beginning to end."""
    say(f"\n## {KINDS[kind]}; {threads} thread{'s' if threads > 1 else ''}\n")
    before = ceilings(threads)
    results = contest(text, kind, threads, folder / f"{kind}-{threads}", options)
    after = ceilings(threads)
    highest = {name: max(before[name], after[name]) for name in before}
    others = [cores for result in results for cores in result.others]
    shape = TransformerShape() if kind == "transformer" else RnnShape()
    flops = shape.flops(text.src_lengths, text.tgt_lengths, text.vocabulary)
    speeds = ", ".join(f"{name} {gflops:,.0f} GFLOP/s" for name, gflops in highest.items())
    say(f"\nceiling, a product of 4096 x 256 x 1024: {speeds}; arithmetic: {flops / 1e6:.1f} MFLOP a target token")
    if others:
        most = f"{statistics.mean(others):.2f} cores on average, {max(others):.2f} in the worst turn"
        say(f"other work on this machine during the turns: {most}\n")
    for line in [*table(results, highest), "", *verdict(results)]:
        say(line)


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def parsed() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("src", type=Path, help="source text, one sentence a line")
    parser.add_argument("tgt", type=Path, help="its translation, line by line")
    parser.add_argument("--seconds", type=float, default=60.0, help="counted time of each contestant (default 60)")
    parser.add_argument("--turn", type=float, default=5.0, help="least seconds of a turn (default 5)")
    parser.add_argument("--threads", type=int, nargs="+", help="one contest each (default 1 and all cores)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="for logs (default runs/bench)")
    given = parser.parse_args()
    peers = dict(one.split("=", 1) for one in given.peer if "=" in one)
    if unknown := [one for one in given.peer if one.partition("=")[0] not in PEERS or "=" not in one]:
        parser.error(f"--peer {unknown[0]}: expected NAME=PYTHON with NAME one of {', '.join(PEERS)}")
    threads = given.threads or sorted({1, len(os.sched_getaffinity(0))})
    folder = given.folder / time.strftime("%Y-%m-%d-%H-%M-%S")
    return Options(given.src, given.tgt, given.seconds, given.turn, threads, given.kinds, peers, folder.resolve())


def main() -> None:
    """Prepare the text, then one contest for each kind and number of threads."""
    options = parsed()
    load = os.getloadavg()[0]
    if load > QUIET:
        say(f"WARNING: the load average is {load:.1f}; on a machine that is not idle these figures are worth little")
    text = share(options.src, options.tgt, options.folder / "text")
    say(text.describe())
    for kind in options.kinds:
        for threads in options.threads:
            report(text, kind, threads, options, options.folder)


if __name__ == "__main__":
    main()
