"""Choices of device, number format and threads: explicit ones win, measured ones are remembered."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import translate.device
from translate.device import Machine, limit_kernel_cache, pick_device, resolve, same_bits
from translate.errors import ConfigError, DataError

STORED: dict[str, Any] = {
    "device": "cpu", "precision": "bf16", "threads": 2, "matmul": "medium", "sharing": 1,
    "batch_tokens": [], "batch_setting": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any measurement fails the test."""

    def fail(*_: object) -> None:
        raise AssertionError("measured although everything was known")

    monkeypatch.setattr(translate.device, "_shortest", fail)


def measure(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[torch.dtype], float]) -> None:
    """Let a piece of work take as long as `seconds` says for the number format of its result."""

    def stopwatch(choices: Iterable[Any], work: Callable[[Any], Any]) -> dict[Any, float]:
        return {choice: seconds(work(choice).dtype) for choice in choices}

    monkeypatch.setattr(translate.device, "_shortest", stopwatch)


@pytest.mark.usefixtures("unmeasured")
def test_explicit_choices_are_taken_applied_and_remembered(tmp_path: Path) -> None:
    stored = tmp_path / "machine.json"
    machine = resolve("cpu", "fp32", 2, "medium", stored)
    assert machine == Machine("cpu", "fp32", 2, "medium")
    assert torch.get_num_threads() == 2
    assert torch.get_float32_matmul_precision() == "medium"
    assert json.loads(stored.read_text()) == {
        "device": "cpu", "precision": "fp32", "threads": 2, "matmul": "medium", "sharing": 1,
        "batch_tokens": [], "batch_setting": None,
    }  # fmt: skip


@pytest.mark.usefixtures("unmeasured")
def test_stored_choices_stand_in_for_auto_and_yield_to_explicit_ones(tmp_path: Path) -> None:
    stored = tmp_path / "machine.json"
    stored.write_text(json.dumps(STORED))
    before = stored.stat()
    assert resolve("cpu", "auto", "auto", "auto", stored) == Machine("cpu", "bf16", 2, "medium")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "medium")
    assert stored.stat().st_ino == before.st_ino  # what has not changed is not written again
    assert resolve("cpu", "fp32", "auto", "highest", stored) == Machine("cpu", "fp32", 2, "highest")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "highest")
    assert json.loads(stored.read_text()) == {**STORED, "precision": "fp32", "matmul": "highest"}


@pytest.mark.usefixtures("unmeasured")
def test_the_sizes_of_micro_batches_outlive_other_choices(tmp_path: Path) -> None:
    """But not another device, whose memory is another."""
    stored = tmp_path / "machine.json"
    stored.write_text(json.dumps({**STORED, "batch_tokens": [[0, 400], [7, 200]], "batch_setting": "auto"}))
    machine = resolve("cpu", "fp32", 1, "highest", stored)
    assert (machine.batch_tokens, machine.batch_setting) == (((0, 400), (7, 200)), "auto")
    assert resolve("cpu", "fp32", 1, "highest", stored) == machine
    stored.write_text(stored.read_text().replace('"cpu"', '"cuda"'))
    machine = resolve("cpu", "fp32", 1, "highest", stored)
    assert (machine.batch_tokens, machine.batch_setting) == ((), None)


@pytest.mark.usefixtures("unmeasured")
def test_explicit_threads_are_not_measured_for_another_number_of_processes(tmp_path: Path) -> None:
    stored = tmp_path / "machine.json"
    stored.write_text(json.dumps({**STORED, "sharing": 2}))
    machine = resolve("cpu", "auto", 1, "auto", stored, sharing=1)
    assert (machine.threads, machine.sharing) == (1, 1)


def test_choices_stored_for_another_device_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "machine.json"
    stored.write_text(json.dumps({**STORED, "device": "cuda"}))
    measure(monkeypatch, lambda dtype: 1.0)
    assert resolve("cpu", "auto", 1, "highest", stored) == Machine("cpu", "fp32", 1, "highest")
    assert json.loads(stored.read_text())["device"] == "cpu"


@pytest.mark.usefixtures("unmeasured")
def test_whoever_only_uses_a_run_leaves_it_as_it_is(tmp_path: Path) -> None:
    stored = tmp_path / "machine.json"
    assert resolve("cpu", "fp32", 1, "highest", stored, remember=False) == Machine("cpu", "fp32", 1, "highest")
    assert not stored.exists()
    stored.write_text(json.dumps(STORED))
    assert resolve("cpu", "fp32", "auto", "auto", stored, remember=False).precision == "fp32"
    assert json.loads(stored.read_text()) == STORED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"device": "cpu"}',
        json.dumps({**STORED, "colour": "red"}),
        json.dumps({**STORED, "threads": "1"}),
        json.dumps({**STORED, "threads": 0}),
        json.dumps({**STORED, "threads": True}),
        json.dumps({**STORED, "threads": 1.0}),
        json.dumps({**STORED, "precision": "fp8"}),
        json.dumps({**STORED, "precision": ["fp32"]}),
        json.dumps({**STORED, "matmul": None}),
        json.dumps({**STORED, "batch_tokens": 4096}),
        json.dumps({**STORED, "batch_tokens": [4096]}),
        json.dumps({**STORED, "batch_tokens": [[0, 4096, 1]]}),
        json.dumps({**STORED, "batch_tokens": [[0, 0]]}),
        json.dumps({**STORED, "batch_tokens": [[-1, 8]]}),
        json.dumps({**STORED, "batch_tokens": [[0, "8"]]}),
        "\udcff",
    ],
)
def test_damaged_choices_are_named_with_a_way_out(text: str, tmp_path: Path) -> None:
    stored = tmp_path / "machine.json"
    stored.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"machine\.json: not readable .*; remove it to measure again") as caught:
        resolve("cpu", "auto", "auto", "auto", stored)
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    assert stored.read_bytes() == text.encode(errors="surrogateescape")


@pytest.mark.parametrize(("gpu", "found"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_if_there_is_one(gpu: bool, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert pick_device("auto").type == found
    assert pick_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: found cuda, but PyTorch sees no GPU here; use cpu or auto"):
        resolve("cuda", "fp32", 1, "highest", tmp_path / "machine.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_bf16_if_it_can_and_else_in_fp16(
    supported: bool, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation: supported and not including_emulation
    )
    machine = resolve("auto", "auto", "auto", "auto", tmp_path / "machine.json")
    assert (machine.device, machine.precision, machine.threads, machine.matmul) == ("cuda", precision, 1, "highest")
    assert resolve("auto", "fp32", 1, "highest") == Machine("cuda", "fp32", 1, "highest")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_run_in_the_chosen_format_and_weights_stay(precision: Any, dtype: torch.dtype) -> None:
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    with Machine("cpu", precision, 1, "highest").autocast():
        y = layer(x)
        assert (x @ x.T).dtype == dtype
    assert y.dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(x).dtype == torch.float32
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bf16"), (0.9, "fp32"), (1.0, "fp32"), (2.0, "fp32")])
def test_bf16_must_be_clearly_faster_on_a_processor(ratio: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, lambda dtype: ratio if dtype == torch.bfloat16 else 1.0)
    assert resolve("cpu", "auto", 1, "highest").precision == chosen


@pytest.mark.parametrize(("ratio", "chosen"), [(0.6, 3), (0.9, 1), (1.5, 1)])
def test_more_threads_must_be_clearly_faster(ratio: float, chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5})
    measure(monkeypatch, lambda _: ratio if torch.get_num_threads() == 3 else 1.0)
    assert resolve("cpu", "fp32", "auto", "highest").threads == chosen
    assert torch.get_num_threads() == chosen


class Rounding(torch.Tensor):
    """A processor that rounds the factors of 'medium' products to bf16."""

    def __matmul__(self, other: Any) -> torch.Tensor:
        left, right = self.as_subclass(torch.Tensor), other.as_subclass(torch.Tensor)
        if torch.get_float32_matmul_precision() == "medium" and left.dtype == torch.float32:
            return left.bfloat16().float() @ right.bfloat16().float()
        return left @ right


@pytest.mark.parametrize(
    ("faster", "rounds", "chosen"),
    [(True, False, "medium"), (False, False, "highest"), (True, True, "highest")],
)
def test_another_product_must_be_faster_and_as_exact(
    faster: bool, rounds: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size: draw(*size).as_subclass(Rounding) if rounds else draw(*size))
    medium = 0.5 if faster else 2.0
    measure(monkeypatch, lambda _: medium if torch.get_float32_matmul_precision() == "medium" else 1.0)
    assert resolve("cpu", "fp32", 1, "auto").matmul == chosen
    assert torch.get_float32_matmul_precision() == chosen


def test_a_busy_moment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it comes and as long as it leaves a few rounds alone."""
    for begin in range(translate.device.ROUNDS - 4):
        now, calls = [0.0], [0]

        def work(choice: str, begin: int = begin, now: list[float] = now, calls: list[int] = calls) -> None:
            calls[0] += 1
            busy = 2 * begin < calls[0] <= 2 * begin + 8
            now[0] += {"slow": 2.0, "fast": 1.0}[choice] * (5.0 if busy else 1.0)

        monkeypatch.setattr(translate.device, "time", SimpleNamespace(perf_counter=lambda now=now: now[0]))
        assert translate.device._shortest(["slow", "fast"], work) == {"slow": 2.0, "fast": 1.0}


def test_a_real_measurement_gives_a_whole_answer() -> None:
    torch.set_num_threads(1)
    machine = resolve("cpu", "auto", 1, "auto")
    assert machine.precision in ("fp32", "bf16")
    assert machine.matmul in ("highest", "medium")


def test_description_is_one_line() -> None:
    assert Machine("cpu", "fp32", 1, "highest").describe() == "cpu, fp32, 1 thread, fp32 products 'highest'"
    assert Machine("cuda", "bf16", 2, "medium").describe() == "cuda, bf16, 2 threads, fp32 products 'medium'"


def test_kernel_cache_is_limited_unless_somebody_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    limit_kernel_cache()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    assert os.environ["LRU_CACHE_CAPACITY"] == "16"


def test_the_same_bits_are_asked_of_pytorch_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with same_bits(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with same_bits(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_kernel_that_is_not_deterministic_is_named() -> None:
    said = "cumsum_cuda is not deterministic, but you set 'torch.use_deterministic_algorithms(True)'. You can turn"
    with pytest.raises(ConfigError, match=r"train\.deterministic: .*\(cumsum_cuda .*set it to false"), same_bits(True):
        raise RuntimeError(said)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="another"), same_bits(True):
        raise RuntimeError("another")
