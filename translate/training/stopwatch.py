"""How long each part of some work takes, the parts within it not counted."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.profiler import record_function


@dataclass(frozen=True)
class Place:
    """Something that is called by its name, and the part of the work that it belongs to."""

    owner: Any
    """A module, a class or an object."""
    attribute: str
    part: str


@dataclass
class Stopwatch:
    """Adds up the time of named parts, which may lie within each other, and names them for torch's profiler."""

    wait: Callable[[], None] = lambda: None
    """Called before each look at the clock: waits until a device has done what it was asked to do."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each part, without that of parts within it: they add up to the whole."""
    calls: dict[str, int] = field(default_factory=dict)
    within: list[float] = field(default_factory=list)
    """Seconds of the parts that lay within each one that is open."""

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done in this context."""
        with record_function(name):
            self.wait()
            started = time.perf_counter()
            self.within.append(0.0)
            try:
                yield
            finally:
                self.wait()
                taken = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + taken - self.within.pop()
                self.calls[name] = self.calls.get(name, 0) + 1
                if self.within:
                    self.within[-1] += taken

    def reset(self) -> None:
        """Forget what was timed so far."""
        self.seconds.clear()
        self.calls.clear()

    @contextlib.contextmanager
    def timing(self, places: Sequence[Place]) -> Iterator[None]:
        """Time the given places, whoever calls them, as long as this context lasts; nothing of it stays behind."""
        with contextlib.ExitStack() as undo:
            for place in places:
                before = vars(place.owner).get(place.attribute)
                setattr(place.owner, place.attribute, self._timed(getattr(place.owner, place.attribute), place.part))
                if before is None:
                    undo.callback(delattr, place.owner, place.attribute)
                else:
                    undo.callback(setattr, place.owner, place.attribute, before)
            yield

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return function(*arguments, **named)

        return timed
