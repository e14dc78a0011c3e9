"""Run a trainer under a clock, so that it works in turns: `python clock.py SOCKET SCRIPT ...` or `... -m MODULE ...`

Whatever trains with PyTorch can be timed so, unchanged. After an optimizer step the clock looks at the time: if the
turn is over it says `UPDATES SECONDS` on the socket (number of the last update; time since the turn began) and waits
for `SECONDS UPDATES`, the least that the next turn lasts. A turn ends where it began, right after a step, so it is made
of whole updates. SOCKET is a file descriptor, or `none` for what makes no updates. This needs PyTorch and nothing else,
for it runs in the trainer's own environment.
"""

import contextlib
import dataclasses
import os
import runpy
import socket
import sys
import time
from pathlib import Path
from typing import Any

FAIRSEQ = "BENCH_FAIRSEQ"
"""Environment variable: the trainer is fairseq, which Python 3.11 does not import as it is."""


class Clock:
    """Counts the updates of this process."""

    def __init__(self, channel: socket.socket) -> None:
        self.asked = channel.makefile("r", encoding="ascii")
        self.told = channel.makefile("w", encoding="ascii")
        self.process = os.getpid()
        self.updates, self.least_updates = 0, 0
        self.began, self.least_seconds = time.perf_counter(), 0.0

    def tick(self, *_: object) -> None:
        """An update has been made; if the turn is over, wait for the next."""
        if os.getpid() != self.process:  # a process that the trainer started
            return
        self.updates += 1
        seconds = time.perf_counter() - self.began
        if self.updates < self.least_updates or seconds < self.least_seconds:
            return
        with contextlib.suppress(BrokenPipeError):
            self.told.write(f"{self.updates} {seconds}\n")
            self.told.flush()
        line = self.asked.readline()
        if not line:  # nobody is there any more
            os._exit(0)
        self.least_seconds = float(line.split()[0])
        self.least_updates = self.updates + int(line.split()[1])
        self.began = time.perf_counter()


def allow_dataclass_defaults() -> None:
    """Let dataclasses be defaults of fields, as up to Python 3.10: since then a default must be hashable."""
    inspected: Any = dataclasses
    original = inspected._get_field

    def lenient(owner: type, name: str, *rest: Any) -> Any:
        default = getattr(owner, name, None)
        if isinstance(default, dataclasses.Field):
            default = default.default
        if dataclasses.is_dataclass(default) and type(default).__hash__ is None:
            type(default).__hash__ = object.__hash__  # type: ignore[method-assign]
        return original(owner, name, *rest)

    inspected._get_field = lenient


def main() -> None:
    """Become the trainer."""
    channel, *command = sys.argv[1:]
    if os.environ.get(FAIRSEQ):
        allow_dataclass_defaults()
    if channel != "none":
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(Clock(socket.socket(fileno=int(channel))).tick)
    if command[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(command[0]).resolve().parent)
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
