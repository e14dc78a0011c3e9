"""Every damaged byte is found before a tensor is used; safetensors itself reads what we write."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from translate.errors import CheckpointError, MissingInputError
from translate.training.tensorfile import TensorFile, write_tensors

TENSORS = {
    "weights": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "exact": torch.tensor(0.1, dtype=torch.float64),
    "bytes": torch.tensor([0, 255, 7], dtype=torch.uint8),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"format": "test", "words": "나는 학생이다"})
    return path


def test_round_trip(path: Path) -> None:
    saved = TensorFile(path)
    assert saved.metadata["words"] == "나는 학생이다"
    assert saved.names() == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert saved.tensor(name).dtype == tensor.dtype
        assert torch.equal(saved.tensor(name), tensor)
    assert list(path.parent.iterdir()) == [path]


def test_the_reference_library_reads_the_same(path: Path) -> None:
    with safe_open(path, "pt") as reference:
        assert reference.metadata()["format"] == "test"
        for name, tensor in TENSORS.items():
            assert torch.equal(reference.get_tensor(name), tensor)


def read_all(path: Path) -> None:
    saved = TensorFile(path)
    for name in saved.names():
        saved.tensor(name)


def test_every_flipped_bit_is_found(path: Path) -> None:
    sound = path.read_bytes()
    draw = random.Random(1)
    for _ in range(400):
        broken = bytearray(sound)
        broken[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            read_all(path)


def test_every_length_but_the_right_one_is_found(path: Path) -> None:
    sound = path.read_bytes()
    for length in [*range(0, len(sound), 7), len(sound) - 1]:
        path.write_bytes(sound[:length])
        with pytest.raises(CheckpointError):
            read_all(path)
    for tail in (b"\0", b"more"):
        path.write_bytes(sound + tail)
        with pytest.raises(CheckpointError, match="cut or extended"):
            read_all(path)
    path.write_bytes(sound[:-8] + bytes(8))
    with pytest.raises(CheckpointError):
        read_all(path)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    cases = {
        "PK\x03\x04 and so on, long enough": "pickle",
        "<html>" + " " * 80: "not a checkpoint",
        "version https://git-lfs.github.com/spec/v1": "not a checkpoint",
    }
    for text, message in cases.items():
        path = tmp_path / "foreign"
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            TensorFile(path)
    with pytest.raises(MissingInputError):
        TensorFile(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="regular"):
        TensorFile(tmp_path)


def test_plain_safetensors_and_double_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    for header in (
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":1,"a":2,"__metadata__":{}}',
        "[" * 9999,
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
        with pytest.raises(CheckpointError):
            TensorFile(path)
    huge = json.dumps({}).encode()
    path.write_bytes((2**40).to_bytes(8, "little") + huge)
    with pytest.raises(CheckpointError):
        TensorFile(path)
