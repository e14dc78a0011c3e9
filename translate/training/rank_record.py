"""RUN/ranks/0.json, 1.json, ...: what became of each process of a training with several.

torchrun returns 1 whatever happened, and ends the processes that are left with SIGTERM when one fails; so who asks why
a training ended, a batch job that is to be put in the queue again, say, must ask here. A process writes that it runs,
and at its end its exit code and the cause. One that was killed cannot: those who lose contact with it look for it and
write in its place.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from translate.durable import durable_json
from translate.errors import TryAgainError, explain
from translate.run import RunDirectory
from translate.training.distributed import Ranks

EXIT_KILLED = 137
"""128 + SIGKILL, as a shell has it."""


@contextlib.contextmanager
def recorded(run: RunDirectory, ranks: Ranks) -> Iterator[None]:
    """Keep this process's record while in the context. A process that nobody started for others needs none."""
    if ranks.count == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun hides the exit code of one as well
        yield
        return
    run.ranks.mkdir(parents=True, exist_ok=True)
    path = run.ranks / f"{ranks.number}.json"
    for other in run.ranks.glob("*.json") if ranks.first else ():
        if int(other.stem) >= ranks.count:  # of an earlier training with more processes
            other.unlink()
    facts = {"rank": ranks.number, "ranks": ranks.count, "host": socket.gethostname(), "process": os.getpid()}
    facts["started"] = round(time.time(), 3)
    durable_json(path, {**facts, "code": None, "cause": "running"})
    try:
        yield
    except BaseException as error:
        code, cause = explain(error)
        durable_json(path, {**facts, "code": code, "cause": cause})
        if isinstance(error, TryAgainError):
            _speak_for_the_dead(run.ranks)
        raise
    durable_json(path, {**facts, "code": 0, "cause": "done"})


def _speak_for_the_dead(directory: Path) -> None:
    """Complete the records of processes of this machine that say they run and do not."""
    for path in sorted(directory.glob("*.json")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["code"] is None and record["host"] == socket.gethostname() and not _runs(record["process"]):
            cause = "ended without a word: killed, by the system if memory had run out"
            durable_json(path, {**record, "code": EXIT_KILLED, "cause": cause})


def _runs(process: int) -> bool:
    """Whether a process of this machine is there and no zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
