"""SIGTERM and SIGINT: asked to stop, training saves and leaves; asked a second time, it leaves at once.

Other commands end where they are, as by an exception, so that nothing half-written stays behind.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

from translate.errors import EXIT_SIGINT, EXIT_SIGTERM, Interrupted

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}
CODES = {signal.SIGTERM: EXIT_SIGTERM, signal.SIGINT: EXIT_SIGINT}
ONE_REQUEST = 10.0
"""Seconds in which SIGTERMs are one request: a scheduler sends it to every process, and torchrun passes it on."""


class Signals:
    """While in this context, a signal is remembered; `check` raises Interrupted where it is safe to stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.since = 0.0

    def __enter__(self) -> Self:
        self.previous = {number: signal.signal(number, self._receive) for number in NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self.since = number, now
        elif number != signal.SIGTERM or now - self.since > ONE_REQUEST:
            os._exit(CODES[signal.Signals(number)])

    def check(self) -> None:
        """Raise Interrupted if a signal has come; the exit code tells a scheduler which."""
        self.raise_for(self.received)

    @staticmethod
    def raise_for(received: int | None) -> None:
        """Raise Interrupted for a signal."""
        if received is not None:
            number = signal.Signals(received)
            raise Interrupted(CODES[number], f"stopped by {NAMES[number]}; the same command goes on from here")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end a command the way an exception does, so that nothing half-written stays behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # what follows is the same request by another way
        raise Interrupted(EXIT_SIGTERM, "stopped by SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
