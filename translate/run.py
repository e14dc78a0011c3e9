"""The run directory: its paths, its lock, writes that survive a crash, the event log and progress bars.

RUN/  config.yaml  tokenizer/*.model  data/*/*.npy + manifest.json  machine.json
      checkpoints/step-00005000.safetensors  checkpoints.json  log.jsonl  tensorboard/  eval/  inspect/
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from translate.errors import DataError, MissingInputError, OutputError, StorageError, TryAgainError

SECONDS_BETWEEN_LINES = 30.0
"""How often progress is written where there is no terminal to draw a bar on."""


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run lies."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Self:
        """An existing run. Raises MissingInputError when there is none at `root`."""
        if not (root / "config.yaml").is_file():
            found = "is no run directory (it has no config.yaml)" if root.exists() else "does not exist"
            raise MissingInputError(f"run {root}: {found}; train one with: translate train --config FILE --run {root}")
        return cls(root)

    @property
    def config_file(self) -> Path:
        """The run's settings, every default written out."""
        return self.root / "config.yaml"

    @property
    def tokenizer(self) -> Path:
        """Directory of the SentencePiece models."""
        return self.root / "tokenizer"

    @property
    def data(self) -> Path:
        """Directory of the encoded text and of the raw validation and test text."""
        return self.root / "data"

    @property
    def manifest(self) -> Path:
        """What the tokenize stage made, with digests."""
        return self.data / "manifest.json"

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def checkpoint_list(self) -> Path:
        """Which checkpoints there are, and which one is best."""
        return self.root / "checkpoints.json"

    @property
    def machine_file(self) -> Path:
        """What was chosen by measuring at the first launch."""
        return self.root / "machine.json"

    @property
    def log_file(self) -> Path:
        """The event log, one JSON object a line."""
        return self.root / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Directory of TensorBoard files."""
        return self.root / "tensorboard"

    @property
    def eval(self) -> Path:
        """Directory of hypotheses and scores."""
        return self.root / "eval"

    @property
    def inspect(self) -> Path:
        """Directory of attention pictures."""
        return self.root / "inspect"

    def create(self) -> Self:
        """Make the directory if it is not there. Raises OutputError when that is impossible."""
        with creating(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        return self

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for one writer; the system lets go when the process ends, however it ends."""
        path = self.root / "lock"
        with creating(path):
            handle = path.open("a+", encoding="utf-8")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                handle.seek(0)
                holder = " ".join(handle.read(200).split()) or "another process"
                raise TryAgainError(
                    f"run {self.root} is in use by {holder}; wait for it, or choose another --run"
                ) from error
            handle.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
            handle.flush()
            yield


@contextlib.contextmanager
def creating(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write at `path` into a sentence for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise StorageError(f"{path}: writing failed ({reason}); make room and run the command again") from error
        raise OutputError(f"{path}: cannot be written ({reason}); choose another place or its permissions") from error


def durable_write(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Put `data` at `path` whole or not at all, also across a loss of power.

    Temporary name in the same directory, fsync, rename, fsync of the directory: at no moment is there half a file.
    """
    chunks = (data,) if isinstance(data, bytes) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with creating(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as handle:
                for chunk in chunks:
                    handle.write(chunk)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def durable_text(path: Path, text: str) -> None:
    """`durable_write` of UTF-8 text."""
    durable_write(path, text.encode())


def durable_json(path: Path, value: Any) -> None:
    """`durable_write` of JSON that a person can read."""
    durable_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files that a killed process left in a directory of ours."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def digest_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class EventLog:
    """log.jsonl, written exactly once: a checkpoint remembers how far the log went, and going on cuts it there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = 0
        """Bytes that a checkpoint vouches for."""

    def append(self, event: str, **fields: Any) -> None:
        """Add one line; fields that depend on the clock are called `time`, `seconds` or `..._per_second`."""
        line = json.dumps({"event": event, **fields, "time": round(time.time(), 3)}, ensure_ascii=False)
        with creating(self.path), self.path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(line + "\n")

    def position(self) -> dict[str, Any]:
        """Length in bytes and digest of the log so far, made durable first."""
        if not self.path.exists():
            return {"bytes": 0, "sha256": digest_bytes(b"")}
        with self.path.open("rb") as handle:
            os.fsync(handle.fileno())
            data = handle.read()
        return {"bytes": len(data), "sha256": digest_bytes(data)}

    def verify(self, position: dict[str, Any]) -> None:
        """Take `position` as where to go on. Raises DataError when what the log held then is no longer there."""
        with self.path.open("rb") if self.path.exists() else io.BytesIO() as handle:
            kept = handle.read(position["bytes"])
        if len(kept) < position["bytes"] or digest_bytes(kept) != position["sha256"]:
            raise DataError(
                f"{self.path}: does not match what the checkpoint recorded; restore it, or move it away together "
                "with the checkpoints to start over"
            )
        self.kept = position["bytes"]

    def grown(self) -> bool:
        """Whether anything stands after the verified position."""
        return self.path.exists() and self.path.stat().st_size > self.kept

    def rewind(self) -> None:
        """Cut off what came after the verified position; without one, everything."""
        if self.grown():
            with self.path.open("rb") as handle:
                durable_write(self.path, handle.read(self.kept))


class Progress:
    """A bar with figures on a terminal; elsewhere a plain line every so often. Both on standard error."""

    def __init__(self, total: int | None, label: str, unit: str, done: int = 0) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.first = done
        self.started = self.written = time.monotonic()
        self.bar = None
        if sys.stderr is not None and sys.stderr.isatty():
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

    def _write_line(self, figures: dict[str, str]) -> None:
        parts = [f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"]
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in figures.items()]
        if self.total and self.done > self.first:
            left = (self.written - self.started) / (self.done - self.first) * (self.total - self.done)
            parts.append(f"left {duration(left)}")
        note(f"{self.label}: " + ", ".join(parts))

    def note(self, text: str) -> None:
        """Write a line without spoiling the bar."""
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
