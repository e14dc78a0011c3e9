"""Encoding in several processes, and what stays of it when any of them dies at any moment.

Each fault is planted in a forked process that really tokenizes and really dies. The arrays of the run that goes on
must be those of a run that nothing happened to, and what was finished before must not be done again.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import translate.durable
import translate.stages.tokenization
import translate.text.arrays
import translate.text.joining
import translate.text.shards
import translate.text.workers
from tests.test_shards import files, random_pairs, write_pairs
from tests.tiny import child_of, in_child, wait_for
from translate.config import Config
from translate.errors import EXIT_SIGINT, EXIT_SIGTERM, StorageError
from translate.run import RunDirectory
from translate.stages.tokenization import tokenize
from translate.text.lines import read_lines
from translate.text.shards import EncodedShard
from translate.text.tokenizer import Tokenizer
from translate.training.signals import terminable

PAIRS = 60
SHARDS = 10 + 1 + 1

Plant = Callable[[], object]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    text = tmp_path_factory.mktemp("text")
    data = {
        "train": [write_pairs(text, "one", random_pairs(400, 1)), write_pairs(text, "two", random_pairs(170, 2))],
        "valid": [write_pairs(text, "valid", random_pairs(30, 3))],
        "test": [write_pairs(text, "test", random_pairs(20, 4))],
    }
    return Config.model_validate({"data": data, "tokenizer": {"vocab_size": 900, "kind": "bpe", "sampling": 0.1}})


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run comes to that nothing happens to."""
    run = RunDirectory(tmp_path_factory.mktemp("whole") / "run").create()
    assert any("the text is too small for more" in line for line in tokenize(config, run).lines)
    return files(run)


def work(config: Config, root: Path, workers: int, plant: Plant) -> Callable[[], None]:
    """What a child does: tokenize in small shards, after a fault was planted."""

    def tokenized() -> None:
        translate.text.shards.PAIRS = PAIRS
        setattr(translate.stages.tokenization, "workers_for", lambda pairs: workers)  # noqa: B010 - it is imported there
        plant()
        with terminable(), RunDirectory(root).create().locked():
            tokenize(config, RunDirectory(root))

    return tokenized


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_call(owner: Any, name: str, number: int, fate: Plant = die) -> Plant:
    """Plant a fault that strikes at the start of call `number` (from 1) of owner.name."""

    def plant() -> None:
        calls, original = [0], getattr(owner, name)

        def struck(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                fate()
            return original(*args, **kwargs)

        setattr(owner, name, struck)

    return plant


def half_written(module: Any, number: int) -> Plant:
    """Die in the middle of writing the bytes of the `number`-th file that a module writes."""

    def plant() -> None:
        calls, original = [0], module.durable_write

        def struck(path: Path, data: bytes | Iterable[bytes]) -> None:
            calls[0] += 1
            if calls[0] < number:
                original(path, data)
                return
            data = data if isinstance(data, bytes) else b"".join(data)
            with translate.durable.durable_file(path) as write:
                write(data[: len(data) // 2])
                die()

        module.durable_write = struck

    return plant


def finished(root: Path) -> dict[str, int]:
    """The shards on the shelf, and when each was made."""
    return {path.name: path.stat().st_mtime_ns for path in root.glob("data/shards/*/*.npz")}


def nothing_left_over(root: Path) -> bool:
    return not [*root.rglob(".*.tmp"), *root.glob("data/shards"), *root.glob("data/scratch")]


KILLS = {
    "before anything": (translate.stages.tokenization, "train_tokenizer", 1, 0),
    "before the tokenizer is saved": (Tokenizer, "save", 1, 0),
    "before the work has begun": (translate.text.shards.Shelf, "begin", 1, 0),
    "before the first shard": (EncodedShard, "write", 1, 0),
    "between two shards": (EncodedShard, "write", 6, 5),
    "before the last shard": (EncodedShard, "write", SHARDS, SHARDS - 1),
    "before arrays are joined": (translate.text.joining, "repeated", 1, SHARDS),
    "while shards are joined": (EncodedShard, "read", 4, SHARDS),
    "between two arrays": (translate.text.arrays, "durable_write", 3, SHARDS),
    "between two splits": (translate.text.arrays, "durable_write", 9, SHARDS),
    "before raw text is copied": (translate.stages.tokenization, "durable_write", 1, SHARDS),
    "before the manifest": (translate.stages.tokenization, "durable_json", 1, SHARDS),
    "before the shelf is cleared": (translate.text.shards.Shelf, "clear", 1, SHARDS),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_anywhere_it_goes_on(config: Config, whole: dict[str, bytes], tmp_path: Path, moment: str) -> None:
    owner, name, number, shards = KILLS[moment]
    root, log = tmp_path / "run", tmp_path / "log"
    killed = in_child(work(config, root, 1, before_call(owner, name, number)), log)
    assert killed == -signal.SIGKILL, log.read_text()
    before = finished(root)
    assert len(before) == shards

    def count() -> None:
        original = EncodedShard.write

        def noted(self: EncodedShard, path: Path, key: str) -> None:
            with log.open("a") as out:
                out.write(f"made {path.name}\n")
            original(self, path, key)

        EncodedShard.write = noted  # type: ignore[method-assign]

    assert in_child(work(config, root, 1, count), log) == 0, log.read_text()
    done = [line.removeprefix("made ") for line in read_lines(log) if line.startswith("made ")]
    expected = 0 if moment == "before the shelf is cleared" else SHARDS - shards  # then the manifest was written
    assert len(done) == len(set(done)) == expected
    assert not set(done) & set(before)
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}
    assert nothing_left_over(root)


@pytest.mark.parametrize(("module", "shards"), [(translate.text.shards, 3), (translate.text.arrays, SHARDS)])
def test_half_a_file_is_none(config: Config, whole: dict[str, bytes], tmp_path: Path, module: Any, shards: int) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    assert in_child(work(config, root, 1, half_written(module, 4)), log) == -signal.SIGKILL
    assert len(finished(root)) == shards
    assert len([*root.rglob(".*.tmp")]) == 1
    assert in_child(work(config, root, 1, lambda: None), log) == 0
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}
    assert nothing_left_over(root)


def test_shards_that_would_be_others_now_are_made_anew(config: Config, whole: dict[str, bytes], tmp_path: Path) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    assert in_child(work(config, root, 1, before_call(EncodedShard, "write", 6)), log) == -signal.SIGKILL

    def cut_otherwise() -> None:
        translate.text.shards.PAIRS = PAIRS - 23

    assert in_child(work(config, root, 1, cut_otherwise), log) == 0
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}


def test_other_text_or_settings_begin_anew(config: Config, tmp_path: Path) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    assert in_child(work(config, root, 1, before_call(EncodedShard, "write", 6)), log) == -signal.SIGKILL
    other = config.model_copy(update={"data": config.data.model_copy(update={"normalization": "nfkc"})})
    assert in_child(work(other, root, 1, before_call(EncodedShard, "write", 3)), log) == -signal.SIGKILL
    assert len(finished(root)) == 2
    assert len([*root.glob("data/shards/*")]) == 1
    assert in_child(work(other, root, 1, lambda: None), log) == 0
    fresh = RunDirectory(tmp_path / "fresh").create()
    tokenize(other, fresh)
    assert {**files(RunDirectory(root)), "lock": b""} == {**files(fresh), "lock": b""}


def test_a_damaged_shard_is_made_anew(config: Config, whole: dict[str, bytes], tmp_path: Path) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    assert (
        in_child(work(config, root, 1, before_call(translate.stages.tokenization, "join", 1)), log) == -signal.SIGKILL
    )
    path = next(root.glob("data/shards/*/train.1.00001.npz"))
    data = bytearray(path.read_bytes())
    data[-len(data) // 2] ^= 1
    path.write_bytes(data)
    code = in_child(work(config, root, 1, lambda: None), log)
    if code:  # the damage may lie where only the second reading comes
        assert code == StorageError.exit_code
        assert "00001.npz: was damaged and is removed; run the same command again" in log.read_text()
        assert in_child(work(config, root, 1, lambda: None), log) == 0
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}


# Several processes


def workers_of(root: Path) -> list[int]:
    return [int(line) for line in read_lines(root.parent / "workers")] if (root.parent / "workers").exists() else []


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def noting_workers(root: Path, then: Plant = lambda: None) -> Plant:
    """Write down the process of each worker."""

    def plant() -> None:
        original = translate.text.workers._Worker.__init__

        def started(self: Any, tokenizer: Path) -> None:
            original(self, tokenizer)
            with (root.parent / "workers").open("a") as out:
                out.write(f"{self.process.pid}\n")

        translate.text.workers._Worker.__init__ = started  # type: ignore[method-assign]
        then()

    return plant


def none_left(root: Path, seconds: float = 20) -> bool:
    """Whether all workers are gone within some seconds."""
    deadline = time.monotonic() + seconds
    while any(map(alive, workers_of(root))):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def at_report(number: int, fate: Plant) -> Plant:
    """Strike when a worker says something for the `number`-th time."""
    return before_call(translate.text.workers._Worker, "hear", number, fate)


def test_no_worker_outlives_a_killed_parent(config: Config, whole: dict[str, bytes], tmp_path: Path) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    for number in (1, 6):
        assert in_child(work(config, root, 2, noting_workers(root, at_report(number, die))), log) == -signal.SIGKILL
        assert none_left(root)
    assert len(workers_of(root)) == 4
    assert 0 < len(finished(root)) < SHARDS
    assert in_child(work(config, root, 2, lambda: None), log) == 0, log.read_text()
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}
    assert nothing_left_over(root)


@pytest.mark.parametrize(
    ("number", "cause"),
    [(signal.SIGKILL, "was killed by SIGKILL (did memory run out?)"), (signal.SIGTERM, "was killed by SIGTERM")],
)
def test_a_dying_worker_ends_the_command(
    config: Config, whole: dict[str, bytes], tmp_path: Path, number: signal.Signals, cause: str
) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    strike = at_report(3, lambda: os.kill(workers_of(root)[0], number))
    assert in_child(work(config, root, 2, noting_workers(root, strike)), log) == 75
    assert (
        f"error: one of the processes that encode the text {cause}; the same command goes on after the shards it has "
        "finished\n"
    ) in log.read_text()
    assert "Traceback" not in log.read_text()
    assert none_left(root, 0)
    assert in_child(work(config, root, 2, lambda: None), log) == 0
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_all_workers(config: Config, tmp_path: Path, number: signal.Signals) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    plant = noting_workers(root, at_report(3, lambda: time.sleep(60)))

    def tokenized() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work(config, root, 2, plant)()
        except KeyboardInterrupt:
            os._exit(EXIT_SIGINT)

    child = child_of(tokenized, log)
    deadline = time.monotonic() + 60
    while not finished(root) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(child, number)
    assert wait_for(child) == {signal.SIGTERM: EXIT_SIGTERM, signal.SIGINT: EXIT_SIGINT}[number]
    assert none_left(root, 0)
    assert len(workers_of(root)) == 2
    assert "Traceback" not in log.read_text()


def test_what_goes_wrong_in_a_worker_is_said_by_the_parent(config: Config, tmp_path: Path) -> None:
    root, log = tmp_path / "run", tmp_path / "log"

    def plant() -> None:  # a directory where the shard should come
        original = translate.text.shards.Shelf.path

        def blocked(self: Any, split: str, corpus: int, number: int) -> Path:
            path: Path = original(self, split, corpus, number)
            if number == 3:
                path.mkdir(parents=True, exist_ok=True)
            return path

        translate.text.shards.Shelf.path = blocked  # type: ignore[method-assign]
        translate.text.shards.Shelf.holds = lambda self, order: False  # type: ignore[method-assign]

    assert in_child(work(config, root, 2, noting_workers(root, plant)), log) == 73
    assert "train.0.00003.npz: cannot be written (Is a directory)" in log.read_text()
    assert none_left(root, 0)


def test_random_kills_come_to_the_same(config: Config, whole: dict[str, bytes], tmp_path: Path) -> None:
    root, log, draw = tmp_path / "run", tmp_path / "log", random.Random(7)
    started = time.monotonic()
    assert in_child(work(config, tmp_path / "timed", 2, lambda: None), log) == 0
    takes = time.monotonic() - started
    for _ in range(4):
        child = child_of(work(config, root, 2, noting_workers(root)), log)
        time.sleep(draw.uniform(0.3, 0.9) * takes)
        os.kill(child, signal.SIGKILL)
        wait_for(child)
        assert none_left(root)
    assert in_child(work(config, root, 2, lambda: None), log) == 0, log.read_text()
    assert files(RunDirectory(root)) == {**whole, "lock": files(RunDirectory(root))["lock"]}
    assert nothing_left_over(root)


def test_a_worker_is_small() -> None:
    """It must not load what it does not need: torch alone would be hundreds of megabytes and seconds."""
    code = "import sys, translate.text.workers; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "matplotlib", "datasets", "pyarrow", "typer", "tqdm"} & set(loaded)


def test_workers_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    shard = translate.text.shards.PAIRS
    assert [translate.text.workers.workers_for(pairs) for pairs in (1, shard, 2 * shard, 5 * shard, 10**8)] == [
        1,
        1,
        2,
        5,
        16,
    ]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert translate.text.workers.workers_for(10**8) == 1


def test_a_script_without_a_guard_can_tokenize(config: Config, tmp_path: Path) -> None:
    """Workers must not import the program that started them, nor what lies in its directory."""
    (tmp_path / "numpy.py").write_text("raise ImportError('the wrong numpy')")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "sys.path.remove(sys.path[0])\n"
        "from pathlib import Path\n"
        "import translate.text.shards, translate.stages.tokenization as stage\n"
        "from translate.config import Config\n"
        "from translate.run import RunDirectory\n"
        f"translate.text.shards.PAIRS = {PAIRS}\n"
        "stage.workers_for = lambda pairs: 2\n"
        "stage.tokenize(Config.model_validate_json(Path('config.json').read_text()), RunDirectory(Path('run')))\n"
        "print('made')\n"
    )
    root = str(Path(translate.durable.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "made\n", "")
