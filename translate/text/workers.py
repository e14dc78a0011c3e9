"""Encoding in several processes, each of which is `python -m translate.text.workers`.

A worker reads shards from its standard input, and says on its standard output how far it is, one JSON object a line:
{"pairs": 4096} for pairs that are encoded, {"done": true} for a shard that is in its file, {"error": ..., "code": ...}
for what went wrong. It ends when its input ends, so none outlives the process that started it, however that one ends.
Nothing of the caller is imported, only this package, so that a script need not be written with workers in mind.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import translate
from translate.config import CleaningConfig
from translate.errors import TranslateError, TryAgainError, explain
from translate.text.shards import PAIRS, Order, Places, Shard, encode_shard
from translate.text.tokenizer import Tokenizer

MOST_WORKERS = 16
"""More would wait for the one process that reads the text."""

Report = Callable[[int], None]
"""Is told how many more pairs are encoded."""


def workers_for(pairs: int) -> int:
    """How many processes are worth it: one a core that this process may use, each with a whole shard at least."""
    cores = len(os.sched_getaffinity(0)) if sys.executable else 1
    return max(1, min(cores, MOST_WORKERS, pairs // PAIRS))


def encode_all(work: Iterable[tuple[Shard, Order]], tokenizer: Path, workers: int, report: Report) -> None:
    """Encode shards and put each in its place, in this process or, given more than one, in `workers` others.

    `tokenizer` is the directory that `Tokenizer.save` wrote. Raises TryAgainError when a worker dies, and whatever
    else goes wrong in one.
    """
    if workers == 1:
        opened = Tokenizer.open(tokenizer)
        for shard, order in work:
            encode_shard(shard, order, opened, -1, report).write(order.path, order.key)
        return
    with _Crew(tokenizer, workers, report) as crew:
        for shard, order in work:
            crew.give(shard, order)
        crew.finish()


class _Worker:
    """One process, and what it has said of a line that is not yet whole."""

    def __init__(self, tokenizer: Path) -> None:
        root = str(Path(translate.__file__).parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "translate.text.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # NumPy's library would start a thread for each core, in each of as many processes.
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C is for the process that started it, which knows what to do
        )
        self.said = b""
        self.send({"tokenizer": str(tokenizer), "parent": os.getpid()})

    def send(self, header: dict[str, Any], *texts: bytes) -> None:
        """Write one request."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the end of its output tells more
            self.process.stdin.write(json.dumps(header).encode() + b"\n" + b"".join(texts))
            self.process.stdin.flush()

    def hear(self) -> list[dict[str, Any]]:
        """What it has said since; waits until it says something. Raises TryAgainError at the end of its output."""
        assert self.process.stdout is not None
        said = os.read(self.process.stdout.fileno(), 2**16)
        if not said:
            raise TryAgainError(_obituary(self.process.wait()))
        *lines, self.said = (self.said + said).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self, *, at_once: bool) -> None:
        """Let it go, or kill it, and wait until it is gone."""
        if at_once:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait()


def _obituary(code: int) -> str:
    how = f"ended with code {code}"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (did memory run out?)"
    return f"one of the processes that encode the text {how}; the same command goes on after the shards it has finished"


class _Crew:
    """Workers, started as they are needed."""

    def __init__(self, tokenizer: Path, most: int, report: Report) -> None:
        self.tokenizer, self.most, self.report = tokenizer, most, report
        self.workers: list[_Worker] = []
        self.idle: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def give(self, shard: Shard, order: Order) -> None:
        """Hand a shard to a worker that has none, as soon as there is one."""
        while not self.idle and len(self.workers) == self.most:
            self.hear()
        worker = self.idle.pop() if self.idle else self.hire()
        cleaning = None if order.cleaning is None else order.cleaning.model_dump()
        header = {"path": str(order.path), "key": order.key, "cleaning": cleaning, "keep_text": order.keep_text}
        sizes = {"count": shard.count, "src": len(shard.src), "tgt": len(shard.tgt)}
        worker.send(header | sizes, shard.src, shard.tgt)

    def hire(self) -> _Worker:
        """Start one more worker."""
        worker = _Worker(self.tokenizer)
        self.workers.append(worker)
        assert worker.process.stdout is not None
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return worker

    def hear(self) -> None:
        """Wait until some worker says something."""
        for key, _ in self.selector.select():
            worker: _Worker = key.data
            for message in worker.hear():
                match message:
                    case {"pairs": count}:
                        self.report(count)
                    case {"done": _}:
                        self.idle.append(worker)
                    case {"error": text, "code": exit_code}:
                        failure = TranslateError(text)
                        failure.exit_code = exit_code
                        raise failure

    def finish(self) -> None:
        """Wait until every shard is done."""
        while len(self.idle) < len(self.workers):
            self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.selector.close()
        for worker in self.workers:
            worker.end(at_once=kind is not None)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Be a worker until there are no more requests. `answers` is not buffered."""

    def say(**message: Any) -> None:
        answers.write(json.dumps(message).encode() + b"\n")

    with suppress(BrokenPipeError):  # whoever would read it is gone
        try:
            begin = json.loads(requests.readline())
            tokenizer = Tokenizer.open(Path(begin["tokenizer"]))
            while request := _read_request(requests):
                shard, order = request
                encoded = encode_shard(shard, order, tokenizer, 1, lambda count: say(pairs=count))
                if os.getppid() != begin["parent"]:
                    return
                encoded.write(order.path, order.key)
                say(done=True)
        except BrokenPipeError:
            raise
        except Exception as error:
            code, text = explain(error)
            say(error=text, code=code)


def _read_request(requests: BinaryIO) -> tuple[Shard, Order] | None:
    """The next shard to encode; None at the end, which may come in the middle of one."""
    line = requests.readline()
    if not line.endswith(b"\n"):
        return None
    wanted = json.loads(line)
    src, tgt = (requests.read(wanted[side]) for side in ("src", "tgt"))
    if len(src) < wanted["src"] or len(tgt) < wanted["tgt"]:
        return None
    cleaning = None if wanted["cleaning"] is None else CleaningConfig.model_validate(wanted["cleaning"])
    order = Order(Path(wanted["path"]), wanted["key"], cleaning, wanted["keep_text"])
    return Shard(wanted["count"], src, tgt, Places(())), order


if __name__ == "__main__":
    with open(1, "wb", buffering=0, closefd=False) as stdout:
        serve(sys.stdin.buffer, stdout)
