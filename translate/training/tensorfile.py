"""One safetensors file whose every part proves itself: no pickle, nothing that could run code.

Layout (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header, the tensors' bytes.
Our metadata adds the SHA-256 of each tensor and of the header itself, taken with its own 64 characters as zeros.
Whoever reads one tensor verifies that tensor; decoding need not read the optimizer.
"""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from translate.durable import durable_write
from translate.errors import CheckpointError, MissingInputError
from translate.training.distributed import whole

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_HEADER = 64 * 2**20
NO_DIGEST = "0" * 64


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata durably, one tensor at a time."""
    header: dict[str, Any] = {}
    digests: dict[str, str] = {}
    end = 0
    for name, tensor in tensors.items():
        data = _bytes(tensor)
        digests[name] = hashlib.sha256(data).hexdigest()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
    header["__metadata__"] = {**metadata, "digests": json.dumps(digests), "header_sha256": NO_DIGEST}
    encoded = _encode(header)
    header["__metadata__"]["header_sha256"] = hashlib.sha256(encoded).hexdigest()
    encoded = _encode(header)

    def chunks() -> Iterator[bytes | memoryview]:
        yield len(encoded).to_bytes(8, "little")
        yield encoded
        for tensor in tensors.values():
            yield _bytes(tensor)

    durable_write(path, chunks())  # type: ignore[arg-type]  # a memoryview is written like bytes


def lend_tensors(tensors: Mapping[str, Tensor]) -> None:
    """What ranks do that hold shards of the tensors while another calls `write_tensors`: it looks at each twice."""
    for tensor in [*tensors.values(), *tensors.values()]:
        whole(tensor)


def _encode(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _bytes(tensor: Tensor) -> memoryview:
    flat = whole(tensor.detach()).cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


class TensorFile:
    """A file: its metadata, and its tensors one by one, each verified before it is handed out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, header_length = self._measure()
        with path.open("rb") as handle:
            handle.seek(8)
            encoded = handle.read(header_length)
        self.start = 8 + header_length
        header = self._parse(encoded)
        self.metadata: dict[str, str] = header.pop("__metadata__")
        self.entries: dict[str, dict[str, Any]] = header
        self._verify_header(encoded)
        self.digests: dict[str, str] = json.loads(self.metadata["digests"])
        self._verify_entries()

    def damaged(self, what: str) -> CheckpointError:
        """The error for this file: what was found, and what to do."""
        return CheckpointError(f"{self.path}: {what}; use another checkpoint, or restore the file from a copy")

    def _measure(self) -> tuple[int, int]:
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError as error:
            raise MissingInputError(f"{self.path}: there is no such checkpoint") from error
        if not stat.S_ISREG(found.st_mode):
            raise self.damaged("not a regular file")
        with self.path.open("rb") as handle:
            start = handle.read(64)
        if start[:4] == b"PK\x03\x04" or start[:2] == b"\x80\x02":
            raise self.damaged("a pickle file (PyTorch's own format), which could run code when opened and is not read")
        if len(start) < 8:
            raise self.damaged(f"only {found.st_size} bytes long, cut short")
        length = int.from_bytes(start[:8], "little")
        if length > min(LARGEST_HEADER, found.st_size - 8) or not start[8:9] == b"{":
            raise self.damaged("not a checkpoint of translate, or cut short")
        return found.st_size, length

    def _parse(self, encoded: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len({key for key, _ in pairs}) != len(pairs):
                raise ValueError("a name stands twice")
            return dict(pairs)

        try:
            header = json.loads(encoded, object_pairs_hook=unique)
            metadata = header["__metadata__"]
            valid = isinstance(metadata, dict) and {"digests", "header_sha256"} <= metadata.keys()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.damaged("its header is damaged, or it is not a checkpoint of translate") from error
        if not valid:
            raise self.damaged("a safetensors file, but not a checkpoint of translate")
        return header

    def _verify_header(self, encoded: bytes) -> None:
        written = self.metadata["header_sha256"]
        zeroed = encoded.replace(written.encode(), NO_DIGEST.encode(), 1)
        if len(written) != 64 or hashlib.sha256(zeroed).hexdigest() != written:
            raise self.damaged("its header does not match its checksum, so the file is damaged")

    def _verify_entries(self) -> None:
        """Sizes fit the shapes, offsets leave no hole, and the file ends where the last tensor ends."""
        end = 0
        for name, entry in self.entries.items():
            first, last = entry["data_offsets"]
            size = int(np.prod(entry["shape"], dtype=object)) * DTYPES[entry["dtype"]].itemsize
            if first != end or last - first != size or name not in self.digests:
                raise self.damaged(f"tensor {name} does not lie where it should")
            end = last
        if self.start + end != self.size:
            raise self.damaged(
                f"{self.size} bytes long where {self.start + end} were written, so it is cut or extended"
            )

    def names(self, prefix: str = "") -> list[str]:
        """Names of the tensors that start with `prefix`."""
        return [name for name in self.entries if name.startswith(prefix)]

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU. Raises CheckpointError when a bit of it is not what was written."""
        entry = self.entries[name]
        first, last = entry["data_offsets"]
        data = bytearray(last - first)
        with self.path.open("rb") as handle:
            handle.seek(self.start + first)
            read = handle.readinto(data)
        if read != len(data) or hashlib.sha256(data).hexdigest() != self.digests[name]:
            raise self.damaged(f"tensor {name} does not match its checksum, so the file is damaged")
        dtype = DTYPES[entry["dtype"]]
        if not data:
            return torch.empty(entry["shape"], dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).reshape(entry["shape"])
