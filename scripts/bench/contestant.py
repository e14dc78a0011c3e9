"""Whoever trains: a process of its own that stays alive, and computes only when it is its turn."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

Kind = Literal["transformer", "rnn"]
CLOCK = Path(__file__).with_name("clock.py")
START = 1200.0
"""Seconds that a trainer may take until its first update is made, preparation not counted."""
TURN = 600.0
"""Seconds after which a turn is given up."""


@dataclass(frozen=True)
class Contestant:
    """A trainer, and how to tell what it has done."""

    name: str
    command: Sequence[str]
    """Python, then what it is given: a script or `-m MODULE`, with arguments."""
    tokens: Callable[[Path], Mapping[int, int]]
    """What it wrote to standard output and error -> real target tokens, EOS included, of each update, from 1."""
    precision: Literal["fp32", "bf16"] = "fp32"
    prepare: Sequence[Sequence[str]] = ()
    """Commands to run first."""
    environment: Mapping[str, str] = field(default_factory=dict)
    output: int | None = None
    """Width of a layer between the RNN's features and the words, where it has one that others have not."""


@dataclass(frozen=True)
class Turn:
    """Some whole updates, one after another."""

    first: int
    last: int
    """Numbers of the first and the last."""
    seconds: float
    others: float = 0.0
    """Cores that anybody else on the machine used meanwhile, on average."""


class NotRunning(Exception):
    """It did not start, or ended."""


class Process:
    """A contestant at work, with `threads` threads on as many cores."""

    def __init__(self, contestant: Contestant, threads: int, folder: Path) -> None:
        self.contestant, self.threads = contestant, threads
        self.log = folder / f"{'-'.join(contestant.name.replace(',', '').split())}.log"
        self.turns: list[Turn] = []
        self.done = 0

    def start(self) -> Self:
        """Prepare, start, and wait for the first update. Raises NotRunning."""
        python, *arguments = self.contestant.command
        for command in self.contestant.prepare:
            with self.log.open("ab") as log:
                if subprocess.run(command, stdout=log, stderr=log, env=self._environment()).returncode:
                    raise NotRunning(f"{self.contestant.name}: {' '.join(command[:4])} ... failed, see {self.log}")
        ours, theirs = socket.socketpair()
        self.channel = ours
        with self.log.open("ab") as log, theirs:
            self.process = subprocess.Popen(
                [python, str(CLOCK), str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        cores = sorted(os.sched_getaffinity(0))[: self.threads]
        os.sched_setaffinity(self.process.pid, cores)
        try:
            self.done = int(self._answer(START).split()[0])
        except BaseException:
            self.stop()
            raise
        return self

    def turn(self, seconds: float, updates: int) -> Turn:
        """Let it compute for `seconds` and `updates` at least. Raises NotRunning."""
        others = busy_seconds() - self.cpu_seconds()
        try:
            self.channel.sendall(f"{seconds} {updates}\n".encode())
        except OSError as error:
            raise NotRunning(f"{self.contestant.name}: has ended, see {self.log}") from error
        last, taken = self._answer(seconds + TURN).split()
        others = busy_seconds() - self.cpu_seconds() - others
        turn = Turn(self.done + 1, int(last), float(taken), max(0.0, others / float(taken)))
        self.done = turn.last
        return turn

    def peak_memory(self) -> int:
        """Bytes of memory that it held at most at once."""
        for line in self._about("status").split("\n"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise NotRunning(f"{self.contestant.name}: has ended, see {self.log}")

    def cpu_seconds(self) -> float:
        """Processor time that it has taken so far, with processes it has waited for."""
        after_name = self._about("stat").rpartition(")")[2]
        return sum(map(int, after_name.split()[11:15])) / os.sysconf("SC_CLK_TCK")

    def tokens(self) -> Mapping[int, int]:
        """Real target tokens of each of its updates that it has told of."""
        return self.contestant.tokens(self.log)

    def stop(self) -> None:
        """End it, with whatever it has started."""
        self.channel.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _about(self, file: str) -> str:
        """What the system tells of the process."""
        try:
            return Path(f"/proc/{self.process.pid}/{file}").read_text(encoding="utf-8")
        except OSError as error:
            raise NotRunning(f"{self.contestant.name}: has ended, see {self.log}") from error

    def _answer(self, patience: float) -> str:
        """The next line it sends."""
        line, ends = b"", time.monotonic() + patience
        while not line.endswith(b"\n"):
            self.channel.settimeout(max(0.001, ends - time.monotonic()))
            try:
                part = self.channel.recv(100)
            except (TimeoutError, ConnectionError) as error:
                raise NotRunning(f"{self.contestant.name}: does not answer, see {self.log}") from error
            if not part:
                raise NotRunning(f"{self.contestant.name}: has ended, see {self.log}")
            line += part
        return line.decode()

    def _environment(self) -> dict[str, str]:
        """Ours without what would favour or disturb one of them, and the number of threads."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_", "MKL_"))}
        count = str(self.threads)
        shared = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "CUDA_VISIBLE_DEVICES": ""}
        quiet = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
        return kept | shared | quiet | dict(self.contestant.environment)


def busy_seconds() -> float:
    """Processor time that was taken since the machine started: by its processes, and from it where it is a guest."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split()[1:9]
    user, nice, system, _, _, interrupts, soft, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def counts(path: Path) -> Mapping[int, int]:
    """A file with a count a line -> the count of each update."""
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    return {number: int(line) for number, line in enumerate(lines, start=1)}
