"""SIGTERM and SIGINT: asked to stop, training saves and leaves; asked twice, it leaves at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from translate.errors import EXIT_SIGINT, EXIT_SIGTERM, Interrupted

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}
CODES = {signal.SIGTERM: EXIT_SIGTERM, signal.SIGINT: EXIT_SIGINT}


class Signals:
    """While in this context, a signal is remembered; `check` raises Interrupted where it is safe to stop."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> Self:
        self.previous = {number: signal.signal(number, self._receive) for number in NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(CODES[signal.Signals(number)])
        self.received = number

    def check(self) -> None:
        """Raise Interrupted if a signal has come; the exit code tells a scheduler which."""
        if self.received is not None:
            number = signal.Signals(self.received)
            raise Interrupted(CODES[number], f"stopped by {NAMES[number]}; the same command goes on from here")
