"""The run directory: its paths, its lock and its event log.

RUN/  config.yaml  tokenizer/*.model  data/*/*.npy + manifest.json  machine.json
      checkpoints/step-00005000.safetensors  checkpoints.json  log.jsonl
      compiled/  ranks/  tensorboard/  eval/  inspect/  profile/
"""

import contextlib
import fcntl
import io
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from translate.durable import creating, digest_bytes, durable_write
from translate.errors import DataError, MissingInputError, OutputError, TryAgainError


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
    def compiled(self) -> Path:
        """Kernels that torch.compile made, a folder for each process."""
        return self.root / "compiled"

    @property
    def ranks(self) -> Path:
        """What became of each process of a training with several."""
        return self.root / "ranks"

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

    @property
    def profile(self) -> Path:
        """Where the time of an update goes: a table and a trace."""
        return self.root / "profile"

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
            except BlockingIOError as error:
                handle.seek(0)
                holder = " ".join(handle.read(200).split()) or "another process"
                raise TryAgainError(
                    f"run {self.root} is in use by {holder}; wait for it, or choose another --run"
                ) from error
            except OSError as error:
                raise OutputError(
                    f"{path}: cannot be locked ({error.strerror}), so two trainings could spoil each other's run; put "
                    "--run on a file system that knows flock"
                ) from error
            handle.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
            handle.flush()
            yield


class EventLog:
    """log.jsonl, written exactly once: a checkpoint remembers how far the log went, and going on cuts it there."""

    def __init__(self, path: Path, mute: bool = False) -> None:
        self.path = path
        self.mute = mute
        """Whether another process writes, and this one only reads what is there."""
        self.kept = 0
        """Bytes that a checkpoint vouches for."""

    def append(self, event: str, **fields: Any) -> None:
        """Add one line; fields that depend on the clock are called `time`, `seconds` or `..._per_second`.

        What is no number (nan, inf) is written as text, since JSON has none such.
        """
        if self.mute:
            return
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[name] = str(value)
        line = json.dumps({"event": event, **fields, "time": round(time.time(), 3)}, ensure_ascii=False)
        with creating(self.path), self.path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(line + "\n")

    def position(self) -> dict[str, Any]:
        """Length in bytes and digest of the log so far, made durable first."""
        if self.mute or not self.path.exists():
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
        return not self.mute and self.path.exists() and self.path.stat().st_size > self.kept

    def rewind(self) -> None:
        """Cut off what came after the verified position; without one, everything."""
        if self.grown():
            with self.path.open("rb") as handle:
                durable_write(self.path, handle.read(self.kept))
