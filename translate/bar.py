"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
"""How often progress is written where there is no terminal to draw a bar on."""


class Bar:
    """A bar with figures on a terminal; elsewhere a plain line every so often. Both on standard error."""

    def __init__(self, total: int | None, label: str, unit: str, done: int = 0, mute: bool = False) -> None:
        self.mute = mute
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.first = done
        self.started = self.written = time.monotonic()
        self.bar = None
        if not mute and sys.stderr is not None and sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=label, unit=f" {unit}", initial=done, dynamic_ncols=True, smoothing=0.05)

    def advance(self, count: int, **figures: str) -> None:
        """Count on, and show the figures next to the count."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.written >= SECONDS_BETWEEN_LINES:
            self.written = time.monotonic()
            self._write_line(figures)

    def skip(self, count: int) -> None:
        """Count what was done before, which says nothing about the speed."""
        self.done += count
        self.first += count
        if self.bar is not None:
            self.bar.initial += count
            self.bar.n += count
            self.bar.last_print_n += count
            self.bar.refresh()

    def _write_line(self, figures: dict[str, str]) -> None:
        parts = [f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"]
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in figures.items()]
        if self.total and self.done > self.first:
            left = (self.written - self.started) / (self.done - self.first) * (self.total - self.done)
            parts.append(f"left {duration(left)}")
        self.note(f"{self.label}: " + ", ".join(parts))

    def note(self, text: str) -> None:
        """Write a line without spoiling the bar."""
        if not self.mute:
            note(text, above_bar=self.bar is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def note(text: str, *, above_bar: bool = False) -> None:
    """Write one line to standard error; if that is closed, work goes on without it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if above_bar:
            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 for less than an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
