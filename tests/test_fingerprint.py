"""Digests that are remembered: only where a file cannot have changed since."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import translate.text.fingerprint
from translate.durable import digest_bytes, digest_file
from translate.run import RunDirectory
from translate.text.fingerprint import Digests


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run").create()
    run.data.mkdir()
    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.ko"
    path.write_text("하나\n")
    return path


@pytest.fixture(autouse=True)
def _small_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate.text.fingerprint, "WORTHWHILE", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to the end."""
    seen: list[Path] = []

    def noted(path: Path) -> str:
        seen.append(path)
        return digest_file(path)

    monkeypatch.setattr(translate.text.fingerprint, "digest_file", noted)
    return seen


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled as soon as the clock has ticked."""
    monkeypatch.setattr(translate.text.fingerprint, "SETTLED", 0)


def digest(run: RunDirectory, path: Path) -> str:
    """One command's worth of asking."""
    time.sleep(0.02)  # more than a tick of the clock of a file system
    digests = Digests(run)
    found = digests.of(path)
    digests.save()
    return found


@pytest.mark.usefixtures("at_once")
def test_unchanged_files_are_read_once(run: RunDirectory, text: Path, read: list[Path]) -> None:
    first = digest(run, text)
    assert first == digest_bytes(text.read_bytes())
    assert [digest(run, text) for _ in range(3)] == [first] * 3
    assert read == [text]


def rewritten(path: Path) -> None:
    path.write_text("두울\n")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("두울\n")
    other.replace(path)


def rewritten_in_place(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.write("두".encode())


def longer(path: Path) -> None:
    path.write_text("하나\n둘\n")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("change", [rewritten, replaced, rewritten_in_place, longer])
@pytest.mark.parametrize("keep_time", [False, True])
def test_changed_files_are_read_again(
    run: RunDirectory, text: Path, read: list[Path], change: Callable[[Path], None], keep_time: bool
) -> None:
    before, times = digest(run, text), text.stat()
    change(text)
    if keep_time:
        os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = digest(run, text)
    assert after == digest_bytes(text.read_bytes()) != before
    assert read == [text, text]


def test_files_that_just_changed_are_not_trusted(run: RunDirectory, text: Path, read: list[Path]) -> None:
    """A second change within one tick of the clock would not show."""
    digest(run, text)
    digest(run, text)
    assert read == [text, text]
    assert not (run.data / "stamps.json").exists()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"%s": 1}', '{"%s": [1, 2]}', '{"%s": [1, 2, 3, 4, 5, "x"]}'])
def test_damaged_stamps_are_none(run: RunDirectory, text: Path, damage: str) -> None:
    (run.data / "stamps.json").write_text(damage.replace("%s", str(text)))
    assert digest(run, text) == digest_bytes(text.read_bytes())


@pytest.mark.usefixtures("at_once")
def test_files_that_are_no_longer_asked_for_are_forgotten(run: RunDirectory, text: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.ko"
    other.write_text("x\n")
    digest(run, text)
    digest(run, other)
    assert str(text) not in (run.data / "stamps.json").read_text()


@pytest.mark.usefixtures("at_once")
def test_small_files_are_simply_read(
    run: RunDirectory, text: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate.text.fingerprint, "WORTHWHILE", text.stat().st_size + 1)
    assert digest(run, text) == digest(run, text)
    assert read == [text, text]
    assert not (run.data / "stamps.json").exists()


def test_waiting_lets_a_digest_be_remembered(
    run: RunDirectory, text: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate.text.fingerprint, "SETTLED", 0.2)
    digests = Digests(run)
    digests.settled(text)
    digests.save()
    Digests(run).of(text)
    assert read == [text]
