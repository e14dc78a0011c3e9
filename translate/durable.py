"""Writes that survive a crash, and digests of what was written."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from translate.errors import OutputError, StorageError


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
    """Put `data` at `path` whole or not at all, also across a loss of power."""
    with creating(path), durable_file(path) as write:
        for chunk in (data,) if isinstance(data, bytes) else data:
            write(chunk)


@contextlib.contextmanager
def durable_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Give what writes to a file that is at `path`, whole, when the block has ended, and is not if the block fails.

    Temporary name in the same directory, fsync, rename, fsync of the directory: at no moment is there half a file. A
    pipe or a device, which the renaming would do away with, is refused with an OutputError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with creating(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OutputError(f"{path}: is no regular file, but this output appears whole or not at all; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = temporary.open("wb")

    def write(data: bytes) -> None:
        with creating(path):
            handle.write(data)

    try:
        yield write
        with creating(path):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # of a full disk, once more
            handle.close()
        temporary.unlink(missing_ok=True)
        raise
    with creating(path):
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
