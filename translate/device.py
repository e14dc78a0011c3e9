"""Where and how numbers are computed: device, number format, threads, matrix backend, micro-batches, allocator.

What is `auto` is decided by a short measurement at a run's first launch, never by a processor's name, and stored
in the run, so that a resumed run computes the same bits.
"""

import contextlib
import ctypes
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from translate.config import Auto, Config
from translate.durable import durable_json
from translate.errors import ConfigError, DataError
from translate.run import RunDirectory

Precision = Literal["fp32", "bf16", "fp16"]
MatmulBackend = Literal["highest", "medium"]
Choice = TypeVar("Choice")

ROUNDS = 12
"""Of a measurement; the first warms up."""


@dataclass(frozen=True)
class Machine:
    """The resolved choices of a run."""

    device: str
    precision: Precision
    threads: int
    matmul: MatmulBackend
    sharing: int = 1
    """Processes of one training that shared the processor when threads were counted."""
    batch_tokens: tuple[tuple[int, int], ...] = ()
    """(update, tokens): from that update on so many real target tokens pass through the model at once."""
    batch_setting: int | Auto | None = None
    """The `train.batch_tokens` of which `batch_tokens` came."""

    def apply(self) -> None:
        """Configure this process accordingly."""
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(self.matmul)
        torch.backends.cudnn.allow_tf32 = self.matmul != "highest"  # LSTMs have a switch of their own

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context in which matrix products run in the chosen number format; weights stay in fp32."""
        match self.precision:
            case "fp32":
                return contextlib.nullcontext()
            case "bf16":
                return torch.autocast(self.device, dtype=torch.bfloat16)
            case "fp16":
                return torch.autocast(self.device, dtype=torch.float16)

    def describe(self) -> str:
        """One line for the log."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device}, {self.precision}, {threads}, fp32 products '{self.matmul}'"


def pick_device(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` stands for here."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: found cuda, but PyTorch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve(
    device: str,
    precision: Precision | Auto,
    threads: int | Auto,
    matmul: MatmulBackend | Auto,
    stored: Path | None = None,
    *,
    remember: bool = True,
    sharing: int | None = None,
) -> Machine:
    """Settle every `auto`, reusing what is stored for the run; explicit settings win over stored choices.

    Training remembers its choices there; whoever only uses a run leaves it as it is. With another number of processes
    `sharing` the processor than when threads were counted, they are counted anew.
    """
    limit_kernel_cache()
    target = pick_device(device)
    earlier = _read(stored) if stored is not None else None
    if earlier is not None and earlier.device == target.type:
        if threads == "auto":
            counted = sharing in (None, earlier.sharing) or target.type == "cuda"
            threads = earlier.threads if counted else _fastest_threads(sharing or 1)
        machine = replace(
            earlier,
            precision=earlier.precision if precision == "auto" else precision,
            threads=threads,
            matmul=earlier.matmul if matmul == "auto" else matmul,
            sharing=sharing or earlier.sharing,
        )
    else:
        machine = _measure(target, precision, threads, matmul, sharing or 1)
    if stored is not None and remember and machine != earlier:
        store(machine, stored)
    machine.apply()
    return machine


def store(machine: Machine, path: Path) -> None:
    """Write the choices down."""
    durable_json(path, asdict(machine))


def resolve_for_training(config: Config, run: RunDirectory, sharing: int, *, remember: bool = True) -> Machine:
    """What a run trains with, chosen at its first launch."""
    train, stored = config.train, run.machine_file
    return resolve(
        config.device, train.precision, train.threads, train.matmul, stored, remember=remember, sharing=sharing
    )


def resolve_for_use(config: Config, run: RunDirectory, sharing: int | None = None) -> Machine:
    """What a trained run is used with: its own choices, but in fp32, and nothing is remembered."""
    train, stored = config.train, run.machine_file
    return resolve(config.device, "fp32", train.threads, train.matmul, stored, remember=False, sharing=sharing)


def _read(stored: Path) -> Machine | None:
    if not stored.exists():
        return None
    try:
        machine = Machine(**json.loads(stored.read_text(encoding="utf-8")))
        known = machine.precision in get_args(Precision) and machine.matmul in get_args(MatmulBackend)
        if not known or type(machine.threads) is not int or machine.threads < 1:
            raise ValueError("a value that nobody chose")
        return replace(machine, batch_tokens=tuple(_entry(found) for found in machine.batch_tokens))
    except (ValueError, TypeError) as error:
        raise DataError(f"{stored}: not readable ({error}); remove it to measure again") from error


def _entry(found: Any) -> tuple[int, int]:
    """One of `Machine.batch_tokens` as JSON has it."""
    update, tokens = found
    if type(update) is not int or type(tokens) is not int or update < 0 or tokens < 1:
        raise ValueError("a micro-batch that nobody chose")
    return update, tokens


def _measure(
    target: torch.device,
    precision: Precision | Auto,
    threads: int | Auto,
    matmul: MatmulBackend | Auto,
    sharing: int,
) -> Machine:
    if target.type == "cuda":
        best: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        chosen = 1 if threads == "auto" else threads
        backend = "highest" if matmul == "auto" else matmul  # 'medium' would be TF32: three digits
        return Machine("cuda", best if precision == "auto" else precision, chosen, backend, sharing)
    count = _fastest_threads(sharing) if threads == "auto" else threads
    torch.set_num_threads(count)
    backend = _fastest_matmul() if matmul == "auto" else matmul
    torch.set_float32_matmul_precision(backend)
    return Machine("cpu", _fastest_precision() if precision == "auto" else precision, count, backend, sharing)


def _fastest_threads(sharing: int) -> int:
    """All cores if they are worth it: on a busy machine two threads can be slower than one.

    Of several processes each gets its share of the cores.
    """
    if sharing > 1:
        return max(1, len(os.sched_getaffinity(0)) // sharing)
    cores = len(os.sched_getaffinity(0))
    left, right = torch.randn(2048, 256), torch.randn(256, 1024)

    def product(count: int) -> Tensor:
        torch.set_num_threads(count)
        return left @ right

    seconds = _shortest({1, cores}, product)
    return cores if seconds[cores] < 0.8 * seconds[1] else 1


def _fastest_matmul() -> MatmulBackend:
    """'medium' lets oneDNN take fp32 products, twice as fast where the default library holds back.

    On a processor that would really round the factors to bf16 (Intel AMX) the product against float64 shows it, and
    fp32 stays fp32.
    """
    left, right = torch.randn(512, 256), torch.randn(256, 1024)
    exact = left.double() @ right.double()

    def product(choice: MatmulBackend) -> Tensor:
        torch.set_float32_matmul_precision(choice)
        return left @ right

    choices: tuple[MatmulBackend, ...] = ("highest", "medium")
    largest = 1e-5 * exact.abs().max()
    seconds = _shortest([each for each in choices if (product(each).double() - exact).abs().max() < largest], product)
    return "medium" if seconds.get("medium", math.inf) < seconds.get("highest", math.inf) else "highest"


def _fastest_precision() -> Precision:
    """bf16 where the processor multiplies it faster than fp32, casts included."""
    left, right = torch.randn(2048, 256), torch.randn(256, 1024)

    def product(choice: Precision) -> Tensor:
        return left @ right if choice == "fp32" else left.bfloat16() @ right.bfloat16()

    choices: tuple[Precision, ...] = ("fp32", "bf16")
    seconds = _shortest(choices, product)
    return "bf16" if seconds["bf16"] < 0.8 * seconds["fp32"] else "fp32"


def _shortest(choices: Iterable[Choice], work: Callable[[Choice], object]) -> dict[Choice, float]:
    """Seconds that the work takes with each choice: the least of several rounds.

    In each round all have their turn, so that a moment in which the machine is busy decides nothing.
    """
    seconds = dict.fromkeys(choices, math.inf)
    for _ in range(ROUNDS):
        for choice in seconds:
            started = time.perf_counter()
            work(choice)
            seconds[choice] = min(seconds[choice], time.perf_counter() - started)
    return seconds


@contextlib.contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Let PyTorch take deterministic kernels only, if that is wanted. Raises ConfigError where there is none.

    To be entered before the first product: cuBLAS looks into the environment once.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):
            raise
        raise ConfigError(
            f"train.deterministic: PyTorch has no such kernel for this model ({str(error).partition('. ')[0]}); "
            "set it to false, or choose another model"
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)


def deterministic(config: Config) -> bool:
    """Whether `same_bits` is wanted here: on a GPU, if the config says so; a CPU gives the same bits anyway."""
    return config.train.deterministic and pick_device(config.device).type == "cuda"


def limit_kernel_cache() -> None:
    """Let oneDNN keep few of the kernels it makes: it makes one for each shape, and holds its buffers with it.

    Batches come in ever new shapes, so that of the 1024 it would keep most are never used again: training would grow
    to several times its size. Whoever has set these variables knows better. Works until the first product.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "16")


def tune_allocator() -> None:
    """Keep freed memory instead of giving it back: large activations are page-faulted anew at every step otherwise.

    glibc only; elsewhere nothing happens.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 256 * 2**20)
