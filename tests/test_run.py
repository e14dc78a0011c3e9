"""Durable writes, the lock and the exactly-once log."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from translate.bar import Bar, duration
from translate.durable import digest_bytes, digest_file, durable_file, durable_write
from translate.errors import DataError, MissingInputError, OutputError, StorageError, TryAgainError
from translate.run import EventLog, RunDirectory


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    durable_write(path, b"old")

    def broken() -> Iterator[bytes]:
        yield b"new, but on"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        durable_write(path, broken())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    durable_write(path, [b"ne", b"w"])
    assert path.read_bytes() == b"new"
    assert digest_file(path) == digest_bytes(b"new")


def test_the_order_is_write_sync_rename_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def counted_sync(descriptor: int) -> None:
        calls.append("sync")
        sync(descriptor)

    def counted_replace(path: Path, to: Path) -> Path:
        calls.append("rename")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", counted_sync)
    monkeypatch.setattr(Path, "replace", counted_replace)
    durable_write(tmp_path / "a", b"x")
    assert calls == ["sync", "rename", "sync"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        durable_write(tmp_path / "file" / "a", b"x")
    with pytest.raises(OutputError):
        RunDirectory(tmp_path / "file").create()


def test_a_file_written_bit_by_bit_is_there_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"
    with durable_file(path) as write:
        write(b"ne")
        assert not path.exists()
        write(b"w")
    assert path.read_bytes() == b"new"
    for error in (BrokenPipeError(32, "of another stream"), KeyboardInterrupt()):
        with pytest.raises(type(error)), durable_file(path) as write:  # noqa: PT012
            write(b"half")
            raise error
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="pipe: is no regular file"):
        durable_write(pipe, b"x")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it shows in a write, or when what was kept back is written at the end."""
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode: real(Path("/dev/full") if "tmp" in path.suffix else path, mode)
    )
    for size in (1, 100_000):
        with (
            pytest.raises(StorageError, match=r"a: writing failed \(No space left"),
            durable_file(tmp_path / "a") as write,
        ):
            write(b"x" * size)
    assert not list(tmp_path.iterdir())


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        RunDirectory.open(tmp_path / "missing")
    with pytest.raises(MissingInputError, match="no run directory"):
        RunDirectory.open(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path).create()
    code = (
        "import sys; from pathlib import Path; from translate.run import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TryAgainError, match=f"in use by process {other.pid} on"), run.locked():
            pass
        other.kill()
    with run.locked():
        pass


def test_a_file_system_without_locks_is_no_run_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a batch job would come back for ever, to wait for nobody."""

    def refuse(handle: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match=r"lock: cannot be locked \(Function not implemented\)"):
        RunDirectory(tmp_path).locked().__enter__()


def test_the_log_is_cut_back_to_what_a_checkpoint_knew(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    empty = log.position()
    log.append("update", step=1, text="한국어\u2028x")
    position = log.position()
    log.append("update", step=2)
    log.path.write_bytes(log.path.read_bytes() + b'{"half')
    log.verify(position)
    log.rewind()
    lines = log.path.read_bytes().split(b"\n")
    assert [json.loads(line)["step"] for line in lines[:-1]] == [1]
    log.verify(empty)
    log.rewind()
    assert log.path.read_bytes() == b""
    with pytest.raises(DataError, match="does not match"):
        log.verify(position)


def test_what_is_no_number_is_text_in_the_log(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    log.append("validation", loss=float("nan"), bleu=float("inf"), step=1)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    entry = json.loads(log.path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert (entry["loss"], entry["bleu"], entry["step"]) == ("nan", "inf", 1)


def test_progress_writes_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translate.bar.SECONDS_BETWEEN_LINES", 0.0)
    with Bar(10, "train", "steps", done=4) as bar:
        bar.advance(2, loss="1.5", tokens_per_second="99")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("train: 6/10 steps, loss 1.5, tokens per second 99, left 0:")
    assert duration(3723) == "1:02:03"
    assert duration(59.6) == "1:00"
